"""The programs under measurement. Each adapter knows how to start one and how a client reaches it."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .postgres import DATABASE, PASSWORD, PROBE_PASSWORD, PROBE_ROLE, ROLE, Postgres, Workdir
from .process import LOOPBACK, Server, free_port, need


@dataclass
class Running:
    """One started peer. `server` is None for the direct connection, whose own cost is not a proxy's."""

    server: Server | None
    plain_port: int
    tls_port: int | None
    user: str = ROLE
    direct_tls: bool = False  # its TLS clients must begin with the ClientHello

    def conninfo(self, tls: bool) -> str:
        port = self.tls_port if tls else self.plain_port
        return (f"host={LOOPBACK} port={port} user={self.user} password={PASSWORD} dbname={DATABASE} "
                f"sslmode={'require' if tls else 'disable'} gssencmode=disable")

    def stop(self):
        if self.server is not None:
            self.server.stop()


class Peer:
    """`start` may be called several times; every call gives a fresh process with `threads` threads."""

    name = ""
    has_tls = True
    bulk_only = False

    def __init__(self, work: Workdir, postgres: Postgres):
        self.work = work
        self.postgres = postgres
        self.count = 0

    def version(self) -> str:
        return ""

    def start(self, threads: int, tool: list[str] = ()) -> Running:
        """`tool` goes before the command, e.g. valgrind."""
        raise NotImplementedError

    def folder(self) -> Path:
        self.count += 1
        return self.work.folder(f"{self.name}-{self.count}")

    def launch(self, tool: list[str], command: list[str], folder: Path, port: int) -> Server:
        server = Server(self.name, [*tool, *command], folder / "log")
        server.wait_for_port(port, 120 if tool else 30)
        return server


class Direct(Peer):
    name = "direct"

    def version(self) -> str:
        return "PostgreSQL " + self.postgres.version()

    def start(self, threads, tool=()):
        return Running(None, self.postgres.port, self.postgres.port)


class HAProxy(Peer):
    """TCP mode on one port, TLS termination on the other. Session tickets are off: libpq never resumes, and no other
    peer issues any."""

    name = "haproxy"

    def __init__(self, work, postgres):
        super().__init__(work, postgres)
        self.binary = need("haproxy", "haproxy")

    def version(self):
        return subprocess.run([self.binary, "-v"], capture_output=True, text=True).stdout.split(" - ")[0]

    def start(self, threads, tool=()):
        folder, plain, tls = self.folder(), free_port(), free_port()
        config = self.work.file(folder / "haproxy.cfg", f"""\
global
  nbthread {threads}
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend plain
  bind {LOOPBACK}:{plain}
  default_backend postgres
frontend tls
  bind {LOOPBACK}:{tls} ssl crt {self.work.path}/server.pem alpn postgresql
  default_backend postgres
backend postgres
  server pg-0 {LOOPBACK}:{self.postgres.port}
""")
        server = self.launch(tool, [self.binary, "-db", "-f", str(config)], folder, plain)
        return Running(server, plain, tls, direct_tls=True)


class PgBouncer(Peer):
    """Session pooling, the client's SCRAM keys reused towards the server, TLS on the client side only."""

    name = "pgbouncer"
    extra = ""

    def __init__(self, work, postgres):
        super().__init__(work, postgres)
        self.binary = need("pgbouncer", "pgbouncer")

    def version(self):
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True).stdout.splitlines()[0]

    def start(self, threads, tool=()):
        folder, port = self.folder(), free_port()
        users = self.work.file(folder / "users.txt", f'"{ROLE}" "{self.postgres.verifier()}"\n')
        config = self.work.file(folder / "pgbouncer.ini", f"""\
[databases]
{DATABASE} = host={LOOPBACK} port={self.postgres.port} dbname={DATABASE}
[pgbouncer]
listen_addr = {LOOPBACK}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = session
max_client_conn = 2000
default_pool_size = 500
client_tls_sslmode = allow
client_tls_cert_file = {self.work.path}/server.crt
client_tls_key_file = {self.work.path}/server.key
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
{self.extra}
""")
        return Running(self.launch(tool, [self.binary, str(config)], folder, port), port, port)


class PgBouncer64K(PgBouncer):
    """The same with 64 KiB packet buffers instead of 4 KiB: what bulk transfer needs."""

    name = "pgbouncer-64k"
    bulk_only = True
    extra = "pkt_buf = 65536"


class RelayUv(Peer):
    """relay_uv.cc: a bare libuv relay, the steadiest comparator."""

    name = "relay-uv"
    has_tls = False

    def __init__(self, work, postgres, binary: Path):
        super().__init__(work, postgres)
        self.binary = binary

    def start(self, threads, tool=()):
        folder, port = self.folder(), free_port()
        command = [str(self.binary), str(port), str(self.postgres.port)]
        return Running(self.launch(tool, command, folder, port), port, None)


class Pointsman(Peer):
    """One branch with one member, SCRAM done by the router on both sides, clear text to the backend on loopback."""

    name = "pointsman"
    branch = "bench"

    def __init__(self, work, postgres, binary: Path):
        super().__init__(work, postgres)
        # A copy: the original may be rebuilt meanwhile, or lie where the server user may not look.
        self.binary = work.path / "pointsman"
        shutil.copyfile(binary, self.binary)
        work.own(self.binary, 0o755)

    def version(self):
        done = subprocess.run([self.binary, "--version"], capture_output=True, text=True)
        return done.stdout.strip()

    def start(self, threads, tool=()):
        folder, port = self.folder(), free_port()
        password = self.work.file(folder / "probe.pw", PROBE_PASSWORD + "\n")
        config = {
            "listeners": [{"name": "bench", "address": LOOPBACK, "port": port, "mode": "direct", "tls": "optional"}],
            "tls": {"certificate": str(self.work.path / "server.crt"), "key": str(self.work.path / "server.key")},
            "admin": {"address": LOOPBACK, "port": free_port()},
            "workers": threads,
            "log": {"level": "warn"},
            "drain_timeout": "1s",
            "branches": {self.branch: {
                "members": [{"name": "pg-0", "host": LOOPBACK, "port": self.postgres.port}],
                "probe": {"user": PROBE_ROLE, "password_file": str(password), "database": "postgres"},
                "backend_tls": {"mode": "disable"},
                "auth": {"method": "scram", "verifiers": "lookup"},
            }},
        }
        path = self.work.file(folder / "pointsman.json", json.dumps(config, indent=2))
        command = [str(self.binary), "serve", "--config", str(path)]
        return Running(self.launch(tool, command, folder, port), port, port, user=f"{ROLE}.{self.branch}")
