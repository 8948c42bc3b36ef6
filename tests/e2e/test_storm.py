"""Several faults at once, on one branch of two: nothing that was acknowledged is lost, nothing is misrouted, the other branch notices nothing."""

import contextlib
import threading
import time

import psycopg
import pytest
from harness.disposable import disposable_cluster
from harness.system import wait_until
from harness.world import BRANCH

CALM = "calm"
WRITERS = 3
READERS = 3


@pytest.fixture
def disposable(world, folder):
    with disposable_cluster(world, folder) as made:
        yield made


class Crowd:
    """Threads that each do one thing again and again until told to stop. What must not happen is kept in `faults`."""

    def __init__(self):
        self.faults = []
        self.stopping = threading.Event()
        self._threads = []

    def add(self, body, *arguments):
        def run():
            try:
                while not self.stopping.is_set():
                    body(*arguments)
            except BaseException as error:  # noqa: BLE001: whatever it is belongs into the assertion
                self.faults.append(f"{body.__name__}{arguments}: {error!r}")

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def finish(self):
        self.stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


class Ledger:
    """What the server has acknowledged, and by whom. A commit whose answer was lost may be in the table or not."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = {}  # id: (server, when)
        self.unknown = set()
        self._next = 0

    def take(self):
        with self.lock:
            self._next += 1
            return self._next

    def by(self, server):
        with self.lock:
            return sum(1 for name, _ in self.acknowledged.values() if name == server)


def test_a_storm_over_one_branch(start_router, world, folder, secrets, router_certificate, disposable):
    """In a few seconds: replay paused on one replica, the primary killed, the configuration reloaded again and again, the other replica
    promoted, the old primary back and writable, the paused replica stopped for good. One synchronous replica, so that acknowledged means kept."""
    old, new, paused = (disposable.named(name) for name in ("pg-0", "pg-1", "pg-2"))
    old.sql("CREATE TABLE ledger (id int, server text)", database="app")
    old.sql("ALTER TABLE ledger OWNER TO app", database="app")
    old.sql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (\"pg-1\")'")
    old.sql("SELECT pg_reload_conf()")
    disposable.cluster.catch_up()
    wait_until(lambda: old.value("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1, "pg-1 to be synchronous")

    config = disposable.config(world, folder, secrets, *router_certificate)
    config["defaults"]["probe"].update(interval="200ms", timeout="1s")
    config["defaults"]["failover"] = {"hold_timeout": "15s", "dead_after": 3, "grace": "2s"}
    config["branches"][CALM] = {
        "members": [{"name": node.name, "host": "127.0.0.1", "port": node.port} for node in world.cluster.nodes]}
    router = start_router(config=config)
    identifiers = {name: str(node.value("SELECT system_identifier FROM pg_control_system()"))
                   for name, node in ((BRANCH, old), (CALM, world.cluster.primary))}
    assert identifiers[BRANCH] != identifiers[CALM]

    def open_session(user):
        return psycopg.connect(**router.libpq(user, listener="direct", database="app"), autocommit=True)

    where = "SELECT current_setting('cluster_name'), pg_is_in_recovery()"
    for user in (f"app.{BRANCH}", f"app.{CALM}"):
        with open_session(user) as session:
            session.execute("SELECT 1")
    for replica in (new, paused):
        router.wait_member(replica.name, role="replica")

    ledger, crowd = Ledger(), Crowd()
    switched = threading.Event()  # pg-1 is the verified primary: no session that begins from now on may meet another

    def write():
        number, after_switch = ledger.take(), switched.is_set()
        with contextlib.suppress(psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction), open_session(f"app.{BRANCH}") as session:
            server, standby = session.execute(where).fetchone()
            assert not (after_switch and server != "pg-1"), f"a new session met {server}"
            if standby:
                return  # demoted between the decision and the login
            with ledger.lock:
                ledger.unknown.add(number)
            session.execute("INSERT INTO ledger VALUES (%s, %s)", (number, server))
            with ledger.lock:
                ledger.unknown.discard(number)
                ledger.acknowledged[number] = (server, time.monotonic())

    def read():
        after_switch = switched.is_set()
        with contextlib.suppress(psycopg.OperationalError), open_session(f"app.{BRANCH}|replica") as session:
            server, _ = session.execute(where).fetchone()
            assert not (after_switch and server == "pg-0"), "a reader met the old primary"

    def calm_session():
        """Lives through everything; any error of it is a fault."""
        with open_session(f"app.{CALM}") as session:
            while not crowd.stopping.is_set():
                (identifier,) = session.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
                assert identifier == identifiers[CALM]

    def calm_login():
        with open_session(f"app.{CALM}|replica") as session:
            (identifier,) = session.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
            assert identifier == identifiers[CALM]

    def reload():
        lag = config["defaults"].setdefault("replicas", {})
        lag["max_lag"] = "30s" if lag.get("max_lag") == "31s" else "31s"
        router.reload(config)

    for node in (old, world.cluster.primary):
        node.sql("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC", database="app")
    for _ in range(WRITERS):
        crowd.add(write)
    for _ in range(READERS):
        crowd.add(read)
    crowd.add(calm_session)
    crowd.add(calm_login)
    crowd.add(reload)
    try:
        wait_until(lambda: ledger.by("pg-0") > 20, "writes to flow", 30)
        paused.sql("SELECT pg_wal_replay_pause()")
        old.kill()
        new.sql("ALTER SYSTEM SET synchronous_standby_names = ''")  # it has no standby of its own
        new.promote()
        wait_until(lambda: router.status()["primary"] == "pg-1", "pg-1 to be the primary", 30)
        switched.set()
        # As after a machine that came back: writable, and without the standby that it waited for.
        with open(f"{old.data}/postgresql.auto.conf", "w", encoding="ascii"):
            pass
        old.start()
        paused.stop()
        wait_until(lambda: ledger.by("pg-1") > 20, "writes to flow again", 30)
    finally:
        crowd.finish()
    assert crowd.faults == []

    kept = [number for (number,) in new.sql("SELECT id FROM ledger", database="app")]
    assert len(kept) == len(set(kept))  # nothing was sent twice
    assert set(ledger.acknowledged) <= set(kept)
    assert set(kept) <= set(ledger.acknowledged) | ledger.unknown
    with contextlib.closing(old.connect("app")) as rogue:
        written_there = {number for (number,) in rogue.execute("SELECT id FROM ledger").fetchall()}
    assert not written_there - set(kept)  # the old one got nothing after its return
    print(f"\nstorm: {len(ledger.acknowledged)} writes acknowledged, {ledger.by('pg-0')} by the old primary; "
          f"{len(ledger.unknown)} of unknown outcome; {len(kept)} kept")
