"""Everything that stands behind the router in these tests, started once: cluster, pools, PostgreSQL 18, roles, certificates."""

import os

from harness.bouncer import Bouncer
from harness.certs import Authority
from harness.cluster import Cluster, Node, PostgreSQL18, make_server_folder

_SQL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "deploy", "sql")

BRANCH = "x7k2m9q4w1ab"
BRANCH_18 = "new18"

# Role name to password. All of them log in with SCRAM but `legacy`.
PASSWORDS = {
    "app": "app-Passwort-1",
    "reader": "reader secret 2",
    "a.b": "dotted-3",
    "sleeping": "nologin-4",
    "expired": "expired-5",
    "legacy": "md5-6",
    "repl": "replication-7",
    "turning": "rotated-8",
    "narrow": "narrow-9",
    "stranger": "not-in-the-pools-10",
    "pointsman": "probe-11",
    "pointsman_auth": "look-up-12",
    "superprobe": "superuser-13",
    "countedprobe": "counted-14",
}

# What each role is beside LOGIN; the md5 role is made under another password_encryption, and `nopassword` has none.
_ATTRIBUTES = {
    "app": "LOGIN", "reader": "LOGIN IN ROLE pg_read_all_data", "a.b": "LOGIN", "sleeping": "NOLOGIN",
    "expired": "LOGIN VALID UNTIL '2020-01-01'", "repl": "LOGIN REPLICATION", "turning": "LOGIN",
    "narrow": "LOGIN CONNECTION LIMIT 1", "stranger": "LOGIN",
    "superprobe": "LOGIN SUPERUSER",
}

_DATABASES = ("app", "reader", "a.b", "repl", "turning", "narrow", "stranger")

# Who the PgBouncers know; `stranger` is missing on purpose.
_POOL_ROLES = ("app", "reader", "a.b", "turning", "narrow", "expired", "repl")


class World:
    def __init__(self, folder, package_18):
        self.folder = folder
        self._package_18 = package_18
        self._started = []

    def start(self):
        servers = make_server_folder(os.path.join(self.folder, "servers"))
        self.authority = Authority(os.path.join(self.folder, "pki"))
        self.stranger_authority = Authority(os.path.join(self.folder, "other-pki"), "Somebody else's CA")
        self.server_certificate, server_key = self.authority.issue("backend", for_server_user=True, folder=servers)
        self.cluster = Cluster(servers, self.server_certificate, server_key)
        self._begin(self.cluster)
        self._create_roles(self.cluster.primary)
        self.verifiers = self._read_verifiers(_POOL_ROLES)
        self.cluster.catch_up()

        def bouncer(name, node, **settings):
            made = Bouncer(name, node, servers, self.verifiers, self.server_certificate, server_key,
                           self.authority.certificate, **settings)
            return self._begin(made)

        self.local_pools = {node.name: bouncer(f"local-{node.name}", node) for node in self.cluster.nodes}
        self.reads = bouncer("reads", self.cluster.named("pg-1"))
        self.app = bouncer("app", self.cluster.primary)

        self.postgresql_18 = PostgreSQL18(self._package_18, self.folder)
        self.node_18 = Node("pg-18", servers, self.server_certificate, server_key, binaries=self.postgresql_18.binaries)
        self._begin(self.node_18.initialise())
        self._create_roles(self.node_18)
        return self

    def _begin(self, server):
        self._started.append(server)
        return server.start()

    def stop(self):
        for server in reversed(self._started):
            server.stop()

    # --- roles ---

    def _create_roles(self, node):
        for role, attributes in _ATTRIBUTES.items():
            node.sql(f"CREATE ROLE \"{role}\" PASSWORD '{PASSWORDS[role]}' {attributes}")
        node.sql(f"SET password_encryption = 'md5'; CREATE ROLE legacy LOGIN PASSWORD '{PASSWORDS['legacy']}'")
        node.sql("CREATE ROLE nopassword LOGIN")
        for database in _DATABASES:
            node.sql(f'CREATE DATABASE "{database}" OWNER "{database}"')
        # The scripts an operator runs. The probe role may look up verifiers here; `pointsman_auth` is for those who want them apart.
        node.run_script(os.path.join(_SQL, "01_probe_role.sql"), probe_password=PASSWORDS["pointsman"])
        node.run_script(os.path.join(_SQL, "02_auth_role.sql"), auth_role="pointsman")
        node.run_script(os.path.join(_SQL, "02_auth_role.sql"), auth_password=PASSWORDS["pointsman_auth"])
        node.run_script(os.path.join(_SQL, "01_probe_role.sql"), probe_role="countedprobe", probe_password=PASSWORDS["countedprobe"])
        node.run_script(os.path.join(_SQL, "02_auth_role.sql"), auth_role="countedprobe")
        node.sql("INSERT INTO pointsman.allowed_privileged_roles (role_name) VALUES ('repl')")

    def _read_verifiers(self, roles):
        rows = self.cluster.primary.sql("SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY(%s)", (list(roles),))
        return dict(rows)

    # --- what a configuration says about all this ---

    def probe(self, secrets, **overrides):
        return {"user": "pointsman", "password_file": secrets.password("pointsman"), "database": "postgres",
                "interval": "200ms", "timeout": "2s", **overrides}

    def member(self, name, **overrides):
        node = self.cluster.named(name)
        return {"name": name, "host": "127.0.0.1", "port": node.port, "pgbouncer_port": self.local_pools[name].port, **overrides}

    def members(self, *names):
        return [self.member(name) for name in names or ("pg-0", "pg-1", "pg-2")]

    def pools(self):
        return {"reads": {"target": "replica", "endpoints": [{"host": "127.0.0.1", "port": self.reads.port}]},
                "app": {"target": "primary", "endpoints": [{"host": "127.0.0.1", "port": self.app.port}]}}

    def backend_tls(self):
        return {"mode": "verify-full", "ca": self.authority.certificate}
