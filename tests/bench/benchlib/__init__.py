"""The parts of the benchmark; tests/bench/run.py puts them together."""
