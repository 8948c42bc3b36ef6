"""Failover on real clusters that each test may break: kill -9, SIGSTOP, promotion, the old primary that comes back."""

import concurrent.futures
import contextlib
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


@pytest.fixture
def disposable(world, folder):
    with disposable_cluster(world, folder) as made:
        yield made


@pytest.fixture
def start_in_front(start_router, world, folder, secrets, router_certificate, disposable):
    def start(change=None, **branch):
        config = disposable.config(world, folder, secrets, *router_certificate, **branch)
        config["defaults"]["probe"].update(interval="200ms", timeout="1s")
        config["defaults"]["failover"] = {"hold_timeout": "10s", "dead_after": 3, "grace": "3s", **branch.get("failover", {})}
        if change:
            change(config)
        router = start_router(config=config)
        router.login(USER).terminate()  # wakes the branch
        router.wait_member("pg-0", role="primary")
        for replica in ("pg-1", "pg-2"):
            router.wait_member(replica, role="replica")
        return router

    return start


def primary_of(router):
    return router.status()["primary"]


def ended(session):
    """The FATAL that ends an idle session without being asked, as (sqlstate, reason)."""
    refused = session.wire.expect_refusal()
    return refused.sqlstate, refused.reason


def wait_until_ended(connection, deadline=10):
    """Asks until the connection is gone, and raises what it said."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        connection.execute("SELECT 1")
        time.sleep(0.05)


def connect(router, user=USER, **more):
    return psycopg.connect(**router.libpq(user, database="app", **more), autocommit=True)


def test_a_killed_primary_and_a_promotion(start_in_front, disposable):
    """Logins that arrive in between are held, in order, and land on the new primary; sessions on the dead one end at once."""
    router = start_in_front()
    with connect(router) as old, concurrent.futures.ThreadPoolExecutor(16) as pool:
        disposable.named("pg-0").kill()
        with pytest.raises(psycopg.OperationalError):
            old.execute("SELECT 1")
        killed = time.monotonic()

        def log_in():
            with connect(router) as session:
                return session.execute("SELECT current_setting('cluster_name'), pg_is_in_recovery()").fetchone()

        waiting = [pool.submit(log_in) for _ in range(16)]
        wait_until(lambda: router.status()["holding"] == 16, "the logins to be held")
        disposable.named("pg-1").promote()
        assert {future.result(20) for future in waiting} == {("pg-1", False)}
        print(f"\nfrom kill -9 to the last of 16 held logins: {time.monotonic() - killed:.2f} s")
    assert primary_of(router) == "pg-1"
    assert router.metrics().sum("pointsman_routing_decisions_total", branch=BRANCH, reason="held", member="pg-1") == 16
    assert router.status()["holding"] == 0


def test_the_old_primary_that_returns_writable_is_not_used(start_in_front, disposable):
    router = start_in_front()
    disposable.named("pg-0").kill()
    disposable.named("pg-1").promote()
    wait_until(lambda: primary_of(router) == "pg-1", "pg-1 to be the primary")
    disposable.named("pg-0").start()
    router.wait_log(r"pg-0 takes writes on timeline 1 although timeline 2 exists; it is not used")
    for _ in range(10):
        with connect(router) as session:
            assert session.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg-1",)
    member = next(entry for entry in router.status()["members"] if entry["name"] == "pg-0")
    assert member["role"] == "unknown"


def test_sessions_on_a_demoted_primary_end_at_their_idle_boundary(start_in_front, disposable):
    """pg-1 is promoted while pg-0 lives on and writes: split brain until somebody stops pg-0; nobody of ours may stay there."""
    router = start_in_front()
    idle, busy = router.login(USER), connect(router)
    busy.autocommit = False
    busy.execute("SELECT 1")  # in a transaction
    disposable.named("pg-1").promote()
    assert ended(idle) == ("57P01", "demoted")
    assert busy.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg-0",)  # its transaction goes on …
    with pytest.raises(psycopg.OperationalError, match="no longer the primary"):
        busy.commit()
        busy.execute("SELECT 1")  # … to its end and no further
    router.wait_log(r"session ended .*end=demoted")


def test_a_transaction_that_does_not_end_is_cut_after_the_grace(start_in_front, disposable):
    router = start_in_front(failover={"grace": "1s"})
    stuck = connect(router)
    stuck.autocommit = False
    stuck.execute("SELECT 1")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(connect(router).execute, "SELECT pg_sleep(30)")
        wait_until(lambda: disposable.named("pg-0").value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1,
                   "the query to run")
        started = time.monotonic()
        disposable.named("pg-1").promote()
        with pytest.raises(psycopg.OperationalError):
            sleeping.result(20)
        assert time.monotonic() - started < 15
    # It was cut when the grace was over, and so is the other one, which only has a transaction open.
    with pytest.raises(psycopg.OperationalError):
        wait_until_ended(stuck)
    # What was cut off does not go on at the server.
    wait_until(lambda: disposable.named("pg-0").value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'") == 0,
               "the backends on the old primary to go")


def test_a_replica_that_the_old_primary_feeds_is_of_another_history(start_in_front, disposable):
    """pg-1 is promoted, pg-0 lives and writes on, pg-2 streams from pg-0: it is up to date with the wrong one."""
    router = start_in_front(replicas={"fallback": "error"})
    disposable.named("pg-1").promote()
    router.wait_member("pg-2", state="unknown")
    disposable.named("pg-0").sql("SELECT pg_logical_emit_message(true, 'x', repeat('x', 100000))")
    lsn = disposable.named("pg-1").value("SELECT pg_current_wal_lsn()::text")
    wait_until(lambda: disposable.named("pg-2").replayed(lsn), "pg-2 to be further than the new primary, elsewhere")
    for options in ({}, {"options": f"-c pointsman.min_lsn={lsn}"},
                    {"options": f"-c pointsman.min_lsn={lsn} -c pointsman.fallback=least_lagged"}):
        with pytest.raises(Refused) as refused:
            router.login(f"{USER}|replica", parameters=tuple(options.items()))
        assert refused.value.sqlstate == "57P03"


@pytest.mark.parametrize("policy", ["keep", "end"])
def test_a_replica_session_on_a_promoted_node(start_in_front, disposable, policy):
    router = start_in_front(replicas={"on_promotion": policy, "samples_in": 1})
    sessions = {}
    while len(sessions) < 2:
        session = router.login(f"{USER}|replica")
        sessions.setdefault(session.value("SELECT current_setting('cluster_name')"), session)
    disposable.named("pg-1").promote()
    wait_until(lambda: primary_of(router) == "pg-1", "pg-1 to be the primary")
    if policy == "keep":
        assert sessions["pg-1"].value("SELECT pg_is_in_recovery()") == "f"
    else:
        assert ended(sessions["pg-1"]) == ("57P01", "promoted")
    assert sessions["pg-2"].value("SELECT pg_is_in_recovery()") == "t"


def test_a_frozen_primary_with_an_open_port_is_not_alive_and_its_sessions_are_left_alone(start_in_front, disposable):
    """Silence stops new logins after dead_after probes; it ends nothing by itself. The successor does."""
    router = start_in_front()
    session = router.login(USER)
    node = disposable.named("pg-0")
    node.freeze()
    router.wait_member("pg-0", state="down")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        late = pool.submit(lambda: connect(router))
        wait_until(lambda: router.status()["holding"] == 1, "the login to be held")
        node.thaw()
        with late.result(20) as answered:
            assert answered.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg-0",)
    assert session.value("SELECT 1") == "1"  # never ended
    node.freeze()
    disposable.named("pg-1").promote()
    wait_until(lambda: primary_of(router) == "pg-1", "pg-1 to be the primary")
    assert ended(session) == ("57P01", "demoted")


def test_a_probe_that_times_out_while_sessions_flow_changes_nothing_for_them(start_in_front, disposable):
    """The probe login is frozen out (its backend stopped), sessions are not."""
    router = start_in_front()
    node = disposable.named("pg-0")
    with connect(router) as session:
        stopped = []

        def stop_probes():
            for (pid,) in node.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'pointsman'"):
                if pid not in stopped:
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)

        end = time.monotonic() + 3
        try:
            while time.monotonic() < end:
                stop_probes()
                assert session.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg-0",)
                time.sleep(0.02)
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        router.wait_member("pg-0", role="primary")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_held_login_is_told_when_the_hold_expires(start_in_front, disposable):
    router = start_in_front(failover={"hold_timeout": "1s"})
    disposable.named("pg-0").kill()
    router.wait_member("pg-0", state="down")
    with pytest.raises(Refused) as refused:
        router.login(USER)
    assert (refused.value.sqlstate, refused.value.reason) == ("57P03", "hold_expired")


def test_a_replica_killed_in_mid_result_cuts_its_reader_and_the_next_login_goes_elsewhere(start_in_front, disposable):
    router = start_in_front()
    reader = connect(router, f"{USER}|replica")
    (name,) = reader.execute("SELECT current_setting('cluster_name')").fetchone()
    rows = 0
    with pytest.raises(psycopg.OperationalError), reader.cursor(name=None) as cursor:
        for _ in cursor.stream("SELECT repeat('x', 1000) FROM generate_series(1, 10000000)"):
            rows += 1
            if rows == 1000:
                disposable.named(name).kill()
    assert rows >= 1000
    for _ in range(10):  # also the first one, whatever the probes have seen by then
        with connect(router, f"{USER}|replica") as session:
            assert session.execute("SELECT current_setting('cluster_name')").fetchone() != (name,)


def test_two_thousand_clients_reconnect_at_once(start_in_front, disposable):
    """The bound on held logins holds, the rest is told 57P03 or 53300, and all who try again get in; the configuration is reloaded all the while."""
    def change(config):
        config["limits"].update(max_held_per_branch=200, max_connections=3000)

    router = start_in_front(change)
    for node in disposable.cluster.nodes:
        node.sql("ALTER SYSTEM SET max_connections = 200")
    disposable.named("pg-0").kill()
    disposable.named("pg-1").promote()
    counts = {"in": 0, "again": 0}
    lock = threading.Lock()

    def client():
        end = time.monotonic() + 100
        while time.monotonic() < end:
            try:
                session = router.login(USER)
                assert session.value("SELECT current_setting('cluster_name')") == "pg-1"
                session.terminate()
                with lock:
                    counts["in"] += 1
                return
            except (Refused, OSError) as refused:
                if isinstance(refused, Refused):
                    assert refused.sqlstate in ("57P03", "53300"), refused
                with lock:
                    counts["again"] += 1
        raise AssertionError("not in within 100 s")

    def reload_again_and_again():
        reloads = 0
        while counts["in"] < 2000 and not stop.is_set():
            router.config["limits"]["max_held_per_branch"] = 200 + reloads % 2
            assert router.reload(router.config) == "ok"
            reloads += 1
        return reloads

    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as operator, concurrent.futures.ThreadPoolExecutor(64) as pool:
        reloading = operator.submit(reload_again_and_again)
        try:
            for future in [pool.submit(client) for _ in range(2000)]:
                future.result(110)
        finally:
            stop.set()
    print(f"\n2,000 clients: {counts}, {reloading.result()} reloads")
    assert counts["in"] == 2000 and reloading.result() >= 3
    wait_until(lambda: router.status()["holding"] == 0, "nobody to be held")
