"""Lag and freshness on a real cluster: replay paused, a receiver that is stopped or cut, load, and reading one's own writes."""

import concurrent.futures
import contextlib
import itertools
import os
import signal
import threading
import time

import psycopg
import pytest
from harness.disposable import disposable_cluster
from harness.system import wait_until
from harness.wire import Refused
from harness.world import BRANCH

USER = f"app.{BRANCH}"
REPLICA = f"{USER}|replica"
TRIES = 1000


@pytest.fixture(scope="module")
def disposable(world, folder):
    with disposable_cluster(world, folder) as made:
        yield made


@pytest.fixture
def start_in_front(start_router, world, folder, secrets, router_certificate, disposable):
    def start(**branch):
        config = disposable.config(world, folder, secrets, *router_certificate, **branch)
        config["defaults"]["probe"].update(interval="100ms", timeout="1s")
        router = start_router(config=config)
        router.login(USER).terminate()
        router.wait_member("pg-0", role="primary")
        for replica in ("pg-1", "pg-2"):
            router.wait_member(replica, role="replica")
        return router

    return start


@contextlib.contextmanager
def replay_paused(*nodes):
    for node in nodes:
        node.sql("SELECT pg_wal_replay_pause()")
        wait_until(lambda node=node: node.value("SELECT pg_get_wal_replay_pause_state()") == "paused", f"{node.name} to pause")
    try:
        yield
    finally:
        for node in nodes:
            node.sql("SELECT pg_wal_replay_resume()")


@contextlib.contextmanager
def load(node):
    """WAL all the time, as an application makes it."""
    stop = threading.Event()

    def write():
        with node.connect() as connection:
            while not stop.is_set():
                connection.execute("SELECT pg_logical_emit_message(false, 'load', repeat('x', 1000))")
                time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def member(router, name):
    return next(entry for entry in router.status()["members"] if entry["name"] == name)


def where(router, user=REPLICA, **options):
    parameters = {"options": " ".join(f"-c pointsman.{key}={value}" for key, value in options.items())} if options else {}
    session = router.login(user, parameters=tuple(parameters.items()))
    name = session.value("SELECT current_setting('cluster_name')")
    session.terminate()
    return name


def test_a_paused_replica_goes_out_and_comes_back(start_in_front, disposable):
    router = start_in_front(replicas={"max_lag": "1s", "lag_hard_cap": "60s"})
    with load(disposable.cluster.primary):
        with replay_paused(disposable.named("pg-1")):
            router.wait_member("pg-1", state="lagging")
            lag = member(router, "pg-1")
            assert lag["lag_seconds"] > 1 and lag["lag_bytes"] > 0
            assert {where(router) for _ in range(20)} == {"pg-2"}
            metrics = router.metrics()
            assert metrics.sum("pointsman_member_eligible", branch=BRANCH, member="pg-1") == 0
            assert metrics.sum("pointsman_replica_lag_seconds", branch=BRANCH, member="pg-1") > 1
        router.wait_member("pg-1", state="ok")
    wait_until(lambda: "pg-1" in {where(router) for _ in range(10)}, "pg-1 to be used again")


def test_an_idle_primary_is_no_lag_however_long(start_in_front, disposable):
    """Nothing is written: the replicas have replayed the newest sample, so they are not behind, though time goes by."""
    router = start_in_front(replicas={"max_lag": "500ms"})
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for name in ("pg-1", "pg-2"):
            entry = member(router, name)
            assert (entry["state"], entry["lag_bytes"]) == ("ok", 0)
            assert entry["lag_seconds"] < 0.5
        time.sleep(0.2)


@pytest.mark.parametrize("fault", ["stopped", "cut"])
def test_a_receiver_that_brings_nothing_is_seen_although_the_replica_answers(start_in_front, disposable, fault):
    """SIGSTOP of the walreceiver under load, and one that cannot connect while nothing is written at all."""
    router = start_in_front(replicas={"max_lag": "1s"})
    node = disposable.named("pg-2")
    if fault == "stopped":
        receiver = node.receiver_pid()
        os.kill(receiver, signal.SIGSTOP)
        try:
            with load(disposable.cluster.primary):
                router.wait_member("pg-2", state="lagging")
                assert {where(router) for _ in range(10)} == {"pg-1"}
        finally:
            os.kill(receiver, signal.SIGCONT)
    else:
        conninfo = node.value("SHOW primary_conninfo")
        node.sql("ALTER SYSTEM SET primary_conninfo = 'host=/nonexistent'")
        node.sql("SELECT pg_reload_conf()")
        try:
            router.wait_member("pg-2", state="unknown")
            assert {where(router) for _ in range(10)} == {"pg-1"}
        finally:
            with node.connect() as connection:
                connection.execute("ALTER SYSTEM SET primary_conninfo = '" + conninfo.replace("'", "''") + "'")
            node.sql("SELECT pg_reload_conf()")
    router.wait_member("pg-2", state="ok")


def test_every_replica_behind_fallbacks(start_in_front, disposable):
    router = start_in_front(replicas={"max_lag": "500ms", "lag_hard_cap": "5m"})
    with load(disposable.cluster.primary), replay_paused(disposable.named("pg-1"), disposable.named("pg-2")):
        for name in ("pg-1", "pg-2"):
            router.wait_member(name, state="lagging")
        assert where(router) in ("pg-1", "pg-2")  # least_lagged, the default
        assert where(router, fallback="primary") == "pg-0"
        with pytest.raises(Refused) as refused:
            where(router, fallback="error")
        assert (refused.value.sqlstate, refused.value.reason) == ("57P03", "all_lagging")
        assert "the limit is 500ms" in refused.value.detail


def test_min_lsn_is_refused_after_a_fresh_look_and_reached_with_wait(start_in_front, disposable):
    router = start_in_front()
    with replay_paused(disposable.named("pg-1"), disposable.named("pg-2")):
        disposable.cluster.primary.sql("SELECT pg_logical_emit_message(true, 'x', 'y')")
        lsn = disposable.cluster.current_lsn()
        with pytest.raises(Refused) as refused:
            where(router, min_lsn=lsn)
        assert (refused.value.sqlstate, refused.value.reason) == ("57P03", "min_lsn_not_reached")
        started = time.monotonic()
        with pytest.raises(Refused) as refused:
            where(router, min_lsn=lsn, wait="1s")
        assert refused.value.reason == "min_lsn_not_reached"
        assert 0.9 < time.monotonic() - started < 8
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(where, router, min_lsn=lsn, wait="8s")
            wait_until(lambda: router.status()["holding"] == 1, "the session to wait")
            disposable.named("pg-2").sql("SELECT pg_wal_replay_resume()")
            assert waiting.result(15) == "pg-2"


def test_reading_ones_own_writes_is_never_stale(start_in_front, disposable):
    """A thousand tries against replicas whose replay is delayed: the row is there, whichever replica answers."""
    router = start_in_front()
    primary = disposable.cluster.primary
    primary.sql("CREATE TABLE IF NOT EXISTS mine (id int PRIMARY KEY); GRANT SELECT ON mine TO app", database="app")
    for name, delay in (("pg-1", "20ms"), ("pg-2", "80ms")):
        disposable.named(name).sql(f"ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'")
        disposable.named(name).sql("SELECT pg_reload_conf()")
    numbers = itertools.count(1)
    answered = {"pg-1": 0, "pg-2": 0}
    waits = []
    lock = threading.Lock()

    def reader():
        with primary.connect("app") as writer:
            while True:
                with lock:
                    number = next(numbers)
                if number > TRIES:
                    return
                writer.execute("INSERT INTO mine VALUES (%s)", (number,))
                (lsn,) = writer.execute("SELECT pg_current_wal_lsn()::text").fetchone()
                started = time.monotonic()
                with psycopg.connect(**router.libpq(REPLICA, database="app",
                                                    options=f"-c pointsman.min_lsn={lsn} -c pointsman.wait=8s")) as session:
                    name, found = session.execute(
                        "SELECT current_setting('cluster_name'), EXISTS (SELECT FROM mine WHERE id = %s)", (number,)).fetchone()
                assert found, f"{name} does not have row {number}, written before {lsn}"
                with lock:
                    answered[name] += 1
                    waits.append(time.monotonic() - started)

    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(reader) for _ in range(8)]:
                future.result(200)
    finally:
        for name in answered:
            disposable.named(name).sql("ALTER SYSTEM RESET recovery_min_apply_delay")
            disposable.named(name).sql("SELECT pg_reload_conf()")
    waits.sort()
    print(f"\n{TRIES} reads of one's own writes, none stale: {answered}, median {waits[len(waits) // 2] * 1000:.0f} ms, "
          f"longest {waits[-1] * 1000:.0f} ms")
    assert sum(answered.values()) == TRIES
