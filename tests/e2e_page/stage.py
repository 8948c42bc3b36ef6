"""What stands behind the status page in these tests: a cluster that may be broken, two PgBouncers, and a router with 10,000 more branches."""

import os

from harness.bouncer import Bouncer
from harness.certs import Authority
from harness.disposable import Disposable
from harness.router import Router, Secrets, router_binary
from harness.system import free_port
from harness.world import PASSWORDS

BRANCH = "orders"
MANY = 10_000  # further branches, which nobody uses
APPS = ("shop", "billing", "search", "reports", "crm", "ledger", "mail", "auth")


def filler(number):
    """The name of one of the many."""
    return f"b{number:05}"


class Stage:
    """`authority` is all that the harness's parts want to know of a world."""

    def __init__(self, folder, many=MANY):
        self.folder = folder
        self.authority = Authority(os.path.join(folder, "pki"))
        self.secrets = Secrets(os.path.join(folder, "secrets"))
        self.disposable = Disposable(self, folder, 1)
        self.cluster = self.disposable.cluster
        self.many = many
        self._started = []

    def start(self):
        self._begin(self.disposable)
        verifiers = dict(self.cluster.primary.sql("SELECT rolname, rolpassword FROM pg_authid WHERE rolname = 'app'"))
        certificate, key = self.authority.issue("pools", for_server_user=True, folder=self.disposable.folder)

        def bouncer(name, node):
            return self._begin(Bouncer(name, self.cluster.named(node), self.disposable.folder, verifiers, certificate, key, self.authority.certificate))

        self.local = bouncer("local-pg-0", "pg-0")
        self.reads = bouncer("reads", "pg-1")
        self.router = Router(router_binary(), os.path.join(self.folder, "router"), self.config(), self)
        self._begin(self.router)
        return self

    def _begin(self, part):
        part.start()
        self._started.append(part)
        return part

    def stop(self):
        for part in reversed(self._started):
            part.finish() if part is getattr(self, "router", None) else part.stop()

    def config(self):
        certificate, key = self.authority.issue("router")
        branch = self.disposable.branch(
            labels={"app": "shop", "team": "checkout"}, replicas={"max_lag": "2s"},
            pools={"reads": {"target": "replica", "endpoints": [{"host": "127.0.0.1", "port": self.reads.port}]}})
        branch["members"][0]["pgbouncer_port"] = self.local.port
        idle = {filler(number): {"members": [{"name": "pg-0", "host": f"10.{number >> 8 & 255}.{number & 255}.1", "port": 5432}],
                                 "labels": {"app": APPS[number % len(APPS)]}} for number in range(self.many)}
        return {
            "listeners": [{"name": name, "address": "127.0.0.1", "port": free_port(), "mode": mode}
                          for name, mode in (("direct", "direct"), ("pooled", "pooled"))],
            "tls": {"certificate": certificate, "key": key},
            "admin": {"address": "127.0.0.1", "port": free_port()},
            "workers": 2,
            "drain_timeout": "5s",
            "defaults": {
                "probe": {"user": "pointsman", "password_file": self.secrets.password("pointsman"), "interval": "200ms", "timeout": "1s"},
                "backend_tls": {"mode": "verify-full", "ca": self.authority.certificate},
                "failover": {"hold_timeout": "10s", "dead_after": 3},
            },
            "branches": {BRANCH: branch, **idle},
        }

    def log_in(self, target="", listener="direct"):
        """A raw session of role `app`, to be kept as long as it is looked at."""
        return self.router.login(f"app.{BRANCH}{target}", PASSWORDS["app"], listener=listener)
