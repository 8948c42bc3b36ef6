"""What the suites are run against: PostgreSQL alone, or the same with Pointsman in front."""

import json
import re
import shutil
import signal
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .debian import Build
from .process import LOOPBACK, RegressError, Server, as_server_user, clean_environment, free_port, give_to_server_user, run

BRANCH = "regress"
SUPERUSER = "postgres"
PASSWORD = "a-password-for-the-suites"

# As `make check` sets it (pg_regress.c, the temporary instance), and TLS. Durability changes no result and costs time.
_SETTINGS = {"max_prepared_transactions": 2, "max_connections": 200, "fsync": "off", "ssl": "on",
             "listen_addresses": f"'{LOOPBACK}'"}

# What a sanitizer, or the C++ library before it aborts, prints.
_ALARMS = re.compile(r"runtime error|Sanitizer|terminate called|assertion failed|broken invariant", re.IGNORECASE)
_SESSIONS = re.compile(r"^pointsman_connections_total\{.*\} (\d+)", re.MULTILINE)


@dataclass
class Endpoint:
    """Where a suite connects, and as whom."""
    port: int
    user: str
    certificate: Path  # of the server it must meet there

    def environment(self, build: Build) -> dict:
        return build.environment(PGPASSWORD=PASSWORD, PGSSLMODE="verify-full", PGSSLROOTCERT=str(self.certificate))


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed one for loopback; its own authority."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:localhost,IP:{LOOPBACK}", "-keyout", key, "-out", certificate])
    certificate.chmod(0o644)
    key.chmod(0o600)
    return certificate, key


class Cluster:
    """A fresh cluster each time it is started: a suite must not meet what an earlier one left behind."""

    def __init__(self, build: Build, folder: Path):
        self._build = build
        self._folder = folder
        folder.mkdir()
        give_to_server_user(folder)
        self.certificate, key = make_certificate(folder, "backend")
        give_to_server_user(key)
        password = folder / "superuser.pw"
        password.write_text(PASSWORD + "\n")
        run([build.binaries / "initdb", "-D", folder / "template", "-A", "scram-sha-256", f"--pwfile={password}", "-U", SUPERUSER,
             "--locale=C", "-E", "UTF8", "--no-sync"], env=build.environment(), cwd=folder, **as_server_user())
        self.port = free_port()
        settings = _SETTINGS | {"port": self.port, "unix_socket_directories": f"'{folder}'",
                                "ssl_cert_file": f"'{self.certificate}'", "ssl_key_file": f"'{key}'"}
        with (folder / "template/postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = {value}\n" for key, value in settings.items())
        self._server: Server | None = None

    def start(self) -> Endpoint:
        data = self._folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        run(["cp", "-a", self._folder / "template", data])
        self._server = Server("PostgreSQL", [self._build.binaries / "postgres", "-D", data], self._folder / "postgres.log",
                              signal.SIGINT, env=self._build.environment(), **as_server_user())
        ready = [self._build.binaries / "pg_isready", "-q", "-h", LOOPBACK, "-p", self.port]
        self._server.wait_until(lambda: run(ready, check=False, env=self._build.environment()).returncode == 0, "connection")
        return Endpoint(self.port, SUPERUSER, self.certificate)

    def stop(self):
        if self._server:
            self._server.stop()
            self._server = None


class Router:
    """Pointsman with one branch of one member. Verifiers are read by the probe, which is a superuser here."""

    def __init__(self, binary: Path, folder: Path, cluster: Cluster):
        self._binary = binary
        self._folder = folder
        folder.mkdir(mode=0o700)
        folder.chmod(0o755)  # the certificate is read by the suites
        self.certificate, key = make_certificate(folder, "router")
        password = folder / "probe.pw"
        password.touch(mode=0o600)
        password.write_text(PASSWORD + "\n")
        self._port, self._admin_port = free_port(), free_port()
        self._config = folder / "pointsman.json"
        self._config.write_text(json.dumps({
            "listeners": [{"name": "direct", "address": LOOPBACK, "port": self._port, "mode": "direct"}],
            "tls": {"certificate": str(self.certificate), "key": str(key)},
            "admin": {"address": LOOPBACK, "port": self._admin_port},
            "workers": 2,
            "branches": {BRANCH: {
                "members": [{"name": "pg", "host": LOOPBACK, "port": cluster.port}],
                "probe": {"user": SUPERUSER, "password_file": str(password), "database": "postgres"},
                "backend_tls": {"mode": "verify-full", "ca": str(cluster.certificate)},
                "auth": {"method": "scram", "verifiers": "lookup"}}}}, indent=2))
        self._server: Server | None = None

    def start(self) -> Endpoint:
        self._server = Server("pointsman", [self._binary, "serve", "--config", self._config], self._folder / "pointsman.log",
                              signal.SIGTERM, env=clean_environment())
        self._server.wait_until(self._ready, "/readyz")
        return Endpoint(self._port, f"{SUPERUSER}.{BRANCH}", self.certificate)

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._admin_port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def _ready(self) -> bool:
        try:
            self._get("/readyz")
            return True
        except OSError:
            return False

    def wait_for_connections(self, least: int) -> int:
        """How many sessions have ended: the proof that a suite went through it. The last one is counted a moment after its
        client has gone."""
        def ended() -> int:
            try:
                return sum(int(count) for count in _SESSIONS.findall(self._get("/metrics")))
            except OSError:
                return 0  # the wait tells whether it has died

        self._server.wait_until(lambda: ended() >= least, f"{least} counted connections", seconds=10)
        return ended()

    def stop(self, *, strict: bool):
        """`strict`: it must have been alive until now, end with 0, and have raised no alarm."""
        if not self._server:
            return
        server, self._server = self._server, None
        alive = server.running()
        code = server.stop()
        alarm = _ALARMS.search(server.log.read_text(errors="backslashreplace"))
        if strict and not alive:
            raise RegressError(f"pointsman ended by itself with {code}:\n{server.tail()}")
        if strict and (code != 0 or alarm):
            raise RegressError(f"pointsman ended with {code}{f', it said {alarm.group(0)!r}' if alarm else ''}:\n{server.tail()}")
