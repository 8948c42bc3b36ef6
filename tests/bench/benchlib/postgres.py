"""The folder of one run and the PostgreSQL in it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from .process import LOOPBACK, SERVER_USER, BenchError, Server, as_server_user, free_port, need, run

ACCOUNTS = 100_000  # as in load.cc
MAX_CONNECTIONS = 1200
ROLE, PASSWORD, DATABASE = "bench", "bench", "bench"
PROBE_ROLE, PROBE_PASSWORD = "pointsman", "probe"


class Workdir:
    """A temporary folder that the server user owns, with the certificate every peer uses."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="pointsman-bench-"))
        self.path.chmod(0o755)
        run([need("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(self.path / "server.key"),
             "-out", str(self.path / "server.crt")])
        (self.path / "server.pem").write_text(
            (self.path / "server.crt").read_text() + (self.path / "server.key").read_text())
        for secret in ("server.key", "server.pem"):
            self.own(self.path / secret, 0o600)
        self.own(self.path, 0o755)

    def own(self, path: Path, mode: int):
        path.chmod(mode)
        if os.geteuid() == 0:
            shutil.chown(path, SERVER_USER, SERVER_USER)

    def folder(self, name: str) -> Path:
        path = self.path / name
        path.mkdir()
        self.own(path, 0o755)
        return path

    def file(self, path: Path, text: str, mode: int = 0o600) -> Path:
        path.write_text(text)
        self.own(path, mode)
        return path

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def bin_folder() -> Path:
    """PostgreSQL 15 where Debian puts it, else whatever pg_config names."""
    debian = Path("/usr/lib/postgresql/15/bin")
    if debian.is_dir():
        return debian
    raise BenchError(f"{debian} is missing: apt-get install postgresql-15")


class Postgres:
    """A real server: SCRAM over TCP, TLS with the P-256 certificate, fsync off, nothing running in the background."""

    def __init__(self, work: Workdir):
        self.folder = work.folder("pg")
        self.port = free_port()
        self.bin = bin_folder()
        data = self.folder / "data"
        run([str(self.bin / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
             "--no-sync"], cwd=self.folder, **as_server_user())
        settings = {
            "listen_addresses": f"'{LOOPBACK}'", "port": self.port, "unix_socket_directories": f"'{self.folder}'",
            "max_connections": MAX_CONNECTIONS, "shared_buffers": "'128MB'", "work_mem": "'64MB'",
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off",
            "checkpoint_timeout": "'1h'", "max_wal_size": "'8GB'", "jit": "off",
            "password_encryption": "'scram-sha-256'",
            "ssl": "on", "ssl_cert_file": f"'{work.path}/server.crt'", "ssl_key_file": f"'{work.path}/server.key'",
        }
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = {value}\n" for key, value in settings.items())
        (data / "pg_hba.conf").write_text(f"local all all trust\nhost all all {LOOPBACK}/32 scram-sha-256\n")
        self.server = Server("postgres", [str(self.bin / "postgres"), "-D", str(data)], self.folder / "log",
                             stop_signal=signal.SIGINT)
        self.server.wait_for_port(self.port)
        self.wait_until_ready()
        self.sql("postgres", f"CREATE ROLE {PROBE_ROLE} SUPERUSER LOGIN PASSWORD '{PROBE_PASSWORD}'; "
                             f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        self.sql("postgres", f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        self.sql(DATABASE, f"SET ROLE {ROLE}; CREATE TABLE sink (line text); "
                           "CREATE TABLE accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)); "
                           f"INSERT INTO accounts SELECT g, 1, 0, '' FROM generate_series(1, {ACCOUNTS}) g; "
                           "ANALYZE accounts")
        self.sql(DATABASE, "VACUUM FREEZE accounts")

    def wait_until_ready(self, seconds: float = 60):
        """The port answers before the server takes connections."""
        deadline = time.monotonic() + seconds
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", str(self.folder), "-p", str(self.port)]).returncode:
            if time.monotonic() > deadline:
                raise BenchError(f"PostgreSQL is not ready after {seconds} s:\n{self.server.tail()}")
            time.sleep(0.05)

    def sql(self, database: str, statements: str) -> str:
        return run([str(self.bin / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p",
                    str(self.port), "-U", "postgres", "-d", database, "-c", statements]).strip()

    def verifier(self) -> str:
        return self.sql("postgres", f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'")

    def version(self) -> str:
        return self.sql("postgres", "SHOW server_version")
