"""Real PostgreSQL: nodes of version 15 (primary and streaming replicas) and of version 18, all on loopback."""

import contextlib
import os
import shutil
import signal

import psycopg

from harness.system import (Daemon, as_server_user, clean_environment, free_port, give_to_server_user, run, run_as_server,
                            wait_until)

BINARIES_15 = "/usr/lib/postgresql/15/bin"
SUPERUSER = "postgres"

_SETTINGS = {
    "listen_addresses": "'*'",  # on loopback every pool dials an address of its own; pg_hba.conf lets nobody else in
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "ssl": "on",
    "password_encryption": "'scram-sha-256'",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "10",
    "wal_keep_size": "'256MB'",
    "hot_standby": "on",
    "wal_receiver_status_interval": "1",
    "wal_retrieve_retry_interval": "'200ms'",  # a promotion waits for it when the receiver has just lost its primary
    "max_standby_streaming_delay": "-1",
    "shared_buffers": "'64MB'",
    "autovacuum_naptime": "'1h'",
    "log_line_prefix": "'%m [%p] %u@%d %r '",
    "log_connections": "on",
    "log_disconnections": "on",
    "timezone": "'UTC'",
    "lc_messages": "'C'",
}

# The superuser is reachable over the socket only; the md5 role needs its own line, or PostgreSQL would ask it for SCRAM.
_HBA = """\
local   all             postgres                  trust
local   replication     postgres                  trust
host    all             legacy   127.0.0.0/8      md5
host    all             all      127.0.0.0/8      scram-sha-256
host    replication     all      127.0.0.0/8      scram-sha-256
"""


class Node:
    def __init__(self, name, folder, certificate, key, *, binaries=BINARIES_15):
        self.name = name
        self.port = free_port()
        self.data = os.path.join(folder, name)
        self.sockets = folder
        self.binaries = binaries
        self._certificate, self._key = certificate, key
        self._log = os.path.join(folder, f"{name}.log")
        self._daemon = None
        self._frozen = []

    # --- making ---

    def initialise(self):
        run_as_server([f"{self.binaries}/initdb", "-D", self.data, "-U", SUPERUSER, "--no-sync", "-E", "UTF8",
                       "--locale=C", "--auth=trust"])
        self._configure()
        return self

    def copy_from(self, primary):
        """A streaming replica by pg_basebackup -R."""
        shutil.rmtree(self.data, ignore_errors=True)
        run_as_server([f"{self.binaries}/pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
                       "-d", f"host={primary.sockets} port={primary.port} user={SUPERUSER} application_name={self.name}"])
        self._configure()
        return self

    def _configure(self):
        settings = dict(_SETTINGS, port=self.port, unix_socket_directories=f"'{self.sockets}'", cluster_name=f"'{self.name}'",
                        ssl_cert_file=f"'{self._certificate}'", ssl_key_file=f"'{self._key}'")
        with open(os.path.join(self.data, "postgresql.conf"), "w", encoding="utf-8") as text:
            text.writelines(f"{key} = {value}\n" for key, value in settings.items())
        with open(os.path.join(self.data, "pg_hba.conf"), "w", encoding="utf-8") as text:
            text.write(_HBA)

    # --- running ---

    def start(self):
        self._daemon = Daemon(self.name, [f"{self.binaries}/postgres", "-D", self.data], self._log,
                              stop_signal=signal.SIGINT, as_server=True)
        self._daemon.wait_until(lambda: self.sql("SELECT 1"), f"{self.name} to accept connections", deadline=60)
        return self

    def stop(self):
        if self._daemon and self._daemon.running():
            self._daemon.stop(deadline=60)

    def log(self):
        return self._daemon.log()

    # --- faults and changes of role ---

    def _processes(self):
        """The postmaster and all it has started, parents first."""
        found, level = [], [self._daemon.pid]
        while level:
            found += level
            below = []
            for pid in level:
                with contextlib.suppress(OSError):
                    for task in os.listdir(f"/proc/{pid}/task"):
                        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as text:
                            below += [int(child) for child in text.read().split()]
            level = below
        return found

    def kill(self):
        """kill -9 of everything, as when the machine is gone; the port refuses from then on."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._daemon.kill()
        # What a killed postmaster leaves, so that start() works again.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.data, "postmaster.pid"))

    def freeze(self):
        """SIGSTOP of everything: ports stay open, nobody answers."""
        self._frozen = self._processes()
        for pid in self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def promote(self):
        run_as_server([f"{self.binaries}/pg_ctl", "promote", "-w", "-D", self.data])
        return self

    def follow(self, primary):
        """A stopped node becomes a standby of `primary` at its next start. It must not have written what `primary` has not."""
        with open(os.path.join(self.data, "postgresql.auto.conf"), "w", encoding="utf-8") as text:
            text.write(f"primary_conninfo = 'host={primary.sockets} port={primary.port} user={SUPERUSER} application_name={self.name}'\n"
                       "recovery_target_timeline = 'latest'\n")
        signal_file = os.path.join(self.data, "standby.signal")
        with open(signal_file, "w", encoding="utf-8"):
            pass
        give_to_server_user(signal_file)
        give_to_server_user(os.path.join(self.data, "postgresql.auto.conf"))
        return self

    def receiver_pid(self):
        return self.value("SELECT pid FROM pg_stat_wal_receiver")

    def replayed(self, lsn):
        return self.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,))

    # --- asking, over the socket and never through the router ---

    def connect(self, database="postgres", **more):
        return psycopg.connect(host=self.sockets, port=self.port, user=SUPERUSER, dbname=database, autocommit=True, **more)

    def sql(self, query, parameters=None, database="postgres"):
        with self.connect(database) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else None

    def value(self, query, parameters=None, database="postgres"):
        return self.sql(query, parameters, database)[0][0]

    def run_script(self, path, database="postgres", **variables):
        """A .sql file through psql, as the superuser."""
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p", self.port, "-U", SUPERUSER, "-d", database]
        for key, value in variables.items():
            command += ["-v", f"{key}={value}"]
        return run([*command, "-f", path])

    def backend_exists(self, pid):
        return self.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)) == 1

    def wait_backend_gone(self, pid, deadline=10):
        wait_until(lambda: not self.backend_exists(pid), f"backend {pid} on {self.name} to end", deadline)

    def wait_backend_runs(self, pid, fragment):
        wait_until(lambda: self.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE %s",
                                      (pid, f"%{fragment}%")), f"backend {pid} to run {fragment}")


class Cluster:
    """pg-0, the primary, with the streaming replicas pg-1 and pg-2."""

    def __init__(self, folder, certificate, key):
        self.folder = folder
        self.nodes = [Node(f"pg-{number}", folder, certificate, key) for number in range(3)]
        self.primary, *self.replicas = self.nodes

    def start(self):
        self.primary.initialise().start()
        for replica in self.replicas:
            replica.copy_from(self.primary).start()
        wait_until(lambda: self.primary.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2,
                   "both replicas to stream", deadline=60)
        return self

    def stop(self):
        for node in [*self.replicas, self.primary]:
            if node._frozen:
                node.thaw()
            node.stop()

    def switch_over(self, successor):
        """A planned switch: the primary stops cleanly, the successor has all it wrote and is promoted, the others follow."""
        old, lost = self.primary, [node for node in self.replicas if node is not successor]
        old.stop()
        successor.promote()
        self.primary, self.replicas = successor, [*lost, old]
        for node in lost:
            node.stop()
            node.follow(successor).start()
        old.follow(successor).start()
        return successor

    def named(self, name):
        return next(node for node in self.nodes if node.name == name)

    def current_lsn(self):
        return self.primary.value("SELECT pg_current_wal_lsn()::text")

    def catch_up(self):
        """Waits until every replica has replayed what the primary has written."""
        lsn = self.current_lsn()
        for replica in self.replicas:
            wait_until(lambda node=replica: node.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,)),
                       f"{replica.name} to replay {lsn}")
        return lsn


class PostgreSQL18:
    """Where the npm package lies, readable for the server's user: initdb, postgres, and a libpq that speaks 3.2."""

    def __init__(self, package, scratch):
        native = os.path.join(package, "native")
        if run([f"{native}/bin/postgres", "--version"], check=False, **as_server_user()).returncode != 0:
            # The tree is somewhere the server's user may not look (a home folder): serve from a copy.
            shutil.copytree(native, os.path.join(scratch, "postgresql-18"), symlinks=True)
            native = os.path.join(scratch, "postgresql-18")
        self.binaries = f"{native}/bin"
        self.libraries = f"{native}/lib"

    def client_environment(self, **extra):
        """With this, Debian's psql and pgbench run on libpq 18."""
        return clean_environment(LD_LIBRARY_PATH=self.libraries, **extra)


def make_server_folder(path):
    os.makedirs(path, mode=0o755, exist_ok=True)
    return give_to_server_user(path)
