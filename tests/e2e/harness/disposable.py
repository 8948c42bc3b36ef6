"""A cluster that a test may break: three nodes of its own, the router's roles in them, and a router in front."""

import contextlib
import itertools
import os

from harness.cluster import Cluster, make_server_folder
from harness.router import standard_config
from harness.system import free_port
from harness.world import BRANCH, PASSWORDS

_SQL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "deploy", "sql")


_numbers = itertools.count(1)


@contextlib.contextmanager
def disposable_cluster(world, folder):
    """A started one, gone at the end. Clusters of one run never share a folder."""
    made = Disposable(world, folder, next(_numbers))
    try:
        yield made.start()
    finally:
        made.stop()


class Disposable:
    """The nodes are `pg-0`, the primary, and the streaming replicas `pg-1` and `pg-2`; the only role with a database is `app`."""

    def __init__(self, world, folder, number):
        self.world = world
        servers = make_server_folder(os.path.join(folder, f"d{number}"))
        self.folder = servers
        certificate, key = world.authority.issue(f"disposable-{number}", for_server_user=True, folder=servers)
        self.cluster = Cluster(servers, certificate, key)

    def start(self):
        primary = self.cluster.primary
        self.cluster.start()
        primary.sql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORDS['app']}'")
        primary.sql("CREATE DATABASE app OWNER app")
        primary.run_script(os.path.join(_SQL, "01_probe_role.sql"), probe_password=PASSWORDS["pointsman"])
        primary.run_script(os.path.join(_SQL, "02_auth_role.sql"), auth_role="pointsman")
        self.cluster.catch_up()
        return self

    def stop(self):
        self.cluster.stop()

    def named(self, name):
        return self.cluster.named(name)

    def branch(self, **more):
        return {"members": [{"name": node.name, "host": "127.0.0.1", "port": node.port} for node in self.cluster.nodes], **more}

    def config(self, world, folder, secrets, certificate, key, **branch):
        """The standard configuration with this cluster as its only branch."""
        config = standard_config(world, folder, secrets, certificate, key)
        config["branches"] = {BRANCH: self.branch(**branch)}
        config["listeners"] = [listener for listener in config["listeners"] if listener["name"] in ("direct", "pooled", "fixed", "fixed-replica")]
        for listener in config["listeners"]:
            listener["port"] = free_port()
        return config
