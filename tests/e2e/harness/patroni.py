"""A real Patroni cluster of three members over a real etcd, both Debian's, on free loopback ports."""

import json
import os
import signal
import urllib.request

import psycopg

from harness.cluster import BINARIES_15, SUPERUSER, make_server_folder
from harness.system import Daemon, as_server_user, free_port, give_to_server_user, run, wait_until, which
from harness.world import PASSWORDS

_SQL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "deploy", "sql")
SCOPE = "pointsman-test"


class Etcd:
    def __init__(self, folder):
        self.client_port, self._peer_port = free_port(), free_port()
        self._data = os.path.join(folder, "etcd")
        self._log = os.path.join(folder, "etcd.log")
        self._daemon = None

    def start(self):
        client, peer = f"http://127.0.0.1:{self.client_port}", f"http://127.0.0.1:{self._peer_port}"
        self._daemon = Daemon("etcd", [
            which("etcd"), "--name", "one", "--data-dir", self._data, "--unsafe-no-fsync", "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"one={peer}"], self._log, stop_signal=signal.SIGTERM, as_server=True)
        self._daemon.wait_until(self._healthy, "etcd to be healthy", deadline=30)
        return self

    def _healthy(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.client_port}/health", timeout=2) as answer:
            return json.load(answer)["health"] == "true"

    def stop(self):
        if self._daemon and self._daemon.running():
            self._daemon.stop()


class Member:
    def __init__(self, name, folder, etcd, certificate, key, *, tags=None, ca=None):
        self.name = name
        self.port, self.rest_port = free_port(), free_port()
        self.sockets = folder
        self.tls = ca is not None
        self._data = os.path.join(folder, name)
        self._log = os.path.join(folder, f"{name}.log")
        self.settings = os.path.join(folder, f"{name}.json")
        self._daemon = None
        rest = {"listen": f"127.0.0.1:{self.rest_port}", "connect_address": f"127.0.0.1:{self.rest_port}"}
        if ca:
            rest.update(certfile=certificate, keyfile=key, verify_client="none")
        settings = {
            "scope": SCOPE, "name": name, "restapi": rest,
            "etcd3": {"hosts": f"127.0.0.1:{etcd.client_port}"},
            "bootstrap": {
                "dcs": {"ttl": 20, "loop_wait": 2, "retry_timeout": 5, "maximum_lag_on_failover": 1048576,
                        "postgresql": {"use_pg_rewind": False, "parameters": {
                            "wal_level": "replica", "hot_standby": "on", "max_wal_senders": 10, "max_connections": 60}}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "no-sync", {"auth": "trust"}],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": self._data, "bin_dir": BINARIES_15, "pgpass": os.path.join(folder, f"{name}.pgpass"),
                "authentication": {"superuser": {"username": SUPERUSER}, "replication": {"username": SUPERUSER}},
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "parameters": {"unix_socket_directories": folder, "fsync": "off", "ssl": "on", "ssl_cert_file": certificate,
                               "ssl_key_file": key, "password_encryption": "scram-sha-256", "lc_messages": "C"},
                "pg_hba": [f"local all {SUPERUSER} trust", f"local replication {SUPERUSER} trust",
                           f"host all {SUPERUSER} 127.0.0.1/32 trust", f"host replication {SUPERUSER} 127.0.0.1/32 trust",
                           "host all all 127.0.0.0/8 scram-sha-256"],
            },
            "tags": tags or {},
        }
        if ca:
            settings["ctl"] = {"cacert": ca}
        with open(self.settings, "w", encoding="utf-8") as text:
            json.dump(settings, text, indent=2)
        give_to_server_user(self.settings)

    def url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.rest_port}"

    def start(self):
        self._daemon = Daemon(self.name, [which("patroni"), self.settings], self._log, stop_signal=signal.SIGTERM, as_server=True)
        return self

    def running(self):
        return self._daemon is not None and self._daemon.running()

    def signal(self, number):
        self._daemon.signal(number)

    def wait_until(self, probe, what, deadline):
        return self._daemon.wait_until(probe, what, deadline)

    def sql(self, query, database="postgres"):
        with psycopg.connect(host=self.sockets, port=self.port, user=SUPERUSER, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else None

    def leads(self):
        return self.sql("SELECT NOT pg_is_in_recovery()")[0][0]

    def streams(self):
        return self.sql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'")[0][0] == 1

    def stop(self):
        if self.running():
            self._daemon.stop(deadline=60)
        # A Patroni that is ended while it makes its node may leave PostgreSQL behind.
        if os.path.exists(os.path.join(self._data, "postmaster.pid")):
            run([f"{BINARIES_15}/pg_ctl", "stop", "-m", "immediate", "-D", self._data], check=False, **as_server_user())


class PatroniCluster:
    """`pg-0` is the leader at first; `tags` are by member name."""

    def __init__(self, world, folder, *, tags=None, tls=False):
        self.folder = make_server_folder(folder)
        certificate, key = world.authority.issue("patroni", for_server_user=True, folder=self.folder)
        self.etcd = Etcd(self.folder)
        self.members = [Member(f"pg-{number}", self.folder, self.etcd, certificate, key, tags=(tags or {}).get(f"pg-{number}"),
                               ca=world.authority.certificate if tls else None) for number in range(3)]

    def named(self, name):
        return next(member for member in self.members if member.name == name)

    def start(self):
        self.etcd.start()
        leader, *others = self.members
        leader.start().wait_until(leader.leads, "the leader to be up", deadline=60)
        leader.sql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORDS['app']}'")
        leader.sql("CREATE DATABASE app OWNER app")
        for script, variables in (("01_probe_role.sql", {"probe_password": PASSWORDS["pointsman"]}), ("02_auth_role.sql", {"auth_role": "pointsman"})):
            command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", leader.sockets, "-p", leader.port, "-U", SUPERUSER, "-d", "postgres"]
            for name, value in variables.items():
                command += ["-v", f"{name}={value}"]
            run([*command, "-f", os.path.join(_SQL, script)])
        for member in others:
            member.start()
        for member in others:
            member.wait_until(member.streams, f"{member.name} to stream", deadline=60)
        return self

    def stop(self):
        # The leader goes last, or the others would begin to elect.
        for member in reversed(self.members):
            if member.running():
                member.signal(signal.SIGCONT)
        for member in sorted(self.members, key=lambda member: member.running() and _quietly(member.leads)):
            member.stop()
        self.etcd.stop()

    def ctl(self, *arguments):
        return run([which("patronictl"), "-c", self.members[0].settings, *arguments], **as_server_user())

    def leader(self):
        return next((member.name for member in self.members if member.running() and _quietly(member.leads)), None)

    def switch_over(self, to):
        self.ctl("switchover", SCOPE, "--force", "--candidate", to)

    def wait_leader(self, name, deadline=60):
        wait_until(lambda: self.named(name).leads(), f"{name} to lead", deadline)


def _quietly(probe):
    try:
        return bool(probe())
    except psycopg.Error:
        return False
