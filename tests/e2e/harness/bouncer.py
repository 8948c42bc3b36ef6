"""PgBouncer 1.18 from Debian. It knows the roles by their SCRAM verifiers only, never by a password."""

import os
import signal

from harness.system import Daemon, free_port, give_to_server_user, is_listening, which


ADDRESSES = {name: f"127.0.1.{number}" for number, name in
             enumerate(("local-pg-0", "local-pg-1", "local-pg-2", "reads", "app"), start=1)}

# SQL: the name of the pool that this connection came through, '' without one.
VIA = ("CASE host(inet_server_addr()) " + " ".join(f"WHEN '{address}' THEN '{name}'" for name, address in ADDRESSES.items())
       + " ELSE '' END")


class Bouncer:
    """One PgBouncer in front of one PostgreSQL node, in transaction mode.

    Each dials its node by a loopback address of its own, so that a query can tell by inet_server_addr() which pool it came through
    (a setting could not: RESET ALL takes it away).
    """

    def __init__(self, name, node, folder, verifiers, certificate, key, authority, **settings):
        self.name = name
        self.dials = ADDRESSES[name]
        self.node = node
        self.port = free_port()
        self._log = os.path.join(folder, f"pgbouncer-{name}.log")
        self._ini = os.path.join(folder, f"pgbouncer-{name}.ini")
        self._userlist = os.path.join(folder, f"pgbouncer-{name}.users")
        self._folder = folder
        self._settings = {
            "listen_addr": "127.0.0.1", "listen_port": self.port, "unix_socket_dir": folder, "pool_mode": "transaction",
            "auth_type": "scram-sha-256", "auth_file": self._userlist, "admin_users": "postgres",
            "client_tls_sslmode": "allow", "client_tls_cert_file": certificate, "client_tls_key_file": key,
            "server_tls_sslmode": "verify-ca", "server_tls_ca_file": authority,
            "max_client_conn": 300, "default_pool_size": 20, "ignore_startup_parameters": "extra_float_digits",
            "log_connections": 1, "log_disconnections": 1, **settings}
        self._write_verifiers(verifiers)
        self._daemon = None

    def _write_verifiers(self, verifiers):
        with open(self._userlist, "w", encoding="utf-8") as text:
            text.writelines(f'"{role}" "{verifier}"\n' for role, verifier in verifiers.items())
        os.chmod(self._userlist, 0o600)
        give_to_server_user(self._userlist)

    def start(self):
        target = f"* = host={self.dials} port={self.node.port}"
        with open(self._ini, "w", encoding="utf-8") as text:
            text.write(f"[databases]\n{target}\n[pgbouncer]\n")
            text.writelines(f"{key} = {value}\n" for key, value in self._settings.items())
        self._daemon = Daemon(f"pgbouncer {self.name}", [which("pgbouncer"), self._ini], self._log,
                              stop_signal=signal.SIGTERM, as_server=True)
        self._daemon.wait_until(lambda: is_listening(self.port), f"pgbouncer {self.name} to listen")
        return self

    def stop(self):
        if self._daemon and self._daemon.running():
            self._daemon.stop()

    def kill(self):
        self._daemon.kill()

    def running(self):
        return self._daemon.running()

    def log(self):
        return self._daemon.log()
