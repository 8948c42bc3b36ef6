"""The parts of run_pg_regress.py: what Debian gives, what runs, what is compared."""
