"""A cancel request finds the right backend: on every route, in the clear and inside TLS, and only with the right key."""

import contextlib
import os
import struct

import psycopg
import pytest
from harness.forwarder import Forwarder
from harness.router import conninfo
from harness.system import wait_until
from harness.wire import PROTOCOL_3_0, PROTOCOL_3_2, Refused, SSL_REQUEST, Wire, cancel, cancel_packet
from harness.world import BRANCH, BRANCH_18, PASSWORDS

USER = f"app.{BRANCH}"
ROUTES = [(USER, "direct"), (f"{USER}|replica", "direct"), (USER, "pooled"), (f"{USER}|reads", "pooled"), (f"{USER}|app", "pooled")]


@contextlib.contextmanager
def sleeping_session(router, user=USER, listener="direct", **options):
    """A session in the middle of a minute's sleep, seen to be running by the server itself."""
    session = router.login(user, listener=listener, **options)
    [[pid, port]] = session.query("SELECT pg_backend_pid(), inet_server_port()")
    nodes = [*router.world.cluster.nodes, router.world.node_18]
    node = next(node for node in nodes if str(node.port) == port)
    marker = os.urandom(6).hex()
    session.send_query(f"SELECT pg_sleep(60) AS m{marker}")
    wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()",
                                  (f"%m{marker}%",)), "the sleep to run")
    try:
        yield session
    finally:
        session.wire.close()


def assert_cancelled(session):
    with pytest.raises(Refused) as caught:
        session.result()
    assert caught.value.sqlstate == "57014" and caught.value.severity == "ERROR"
    assert session.value("SELECT 'goes on'") == "goes on"


@pytest.mark.parametrize("user, listener", ROUTES)
@pytest.mark.parametrize("version", [PROTOCOL_3_0, PROTOCOL_3_2])
@pytest.mark.parametrize("inside_tls", [False, True], ids=["clear", "tls"])
def test_the_right_key_cancels_the_query(router, user, listener, version, inside_tls):
    with sleeping_session(router, user, listener, version=version) as session:
        cancel(router.port(listener), session.pid, session.secret, router.tls() if inside_tls else None)
        assert_cancelled(session)


def test_a_cancel_may_come_over_direct_tls_and_another_listener(router):
    with sleeping_session(router) as session:
        with router.open_direct("pooled") as wire:
            wire.send(cancel_packet(session.pid, session.secret))
            wire.expect_end()
        assert_cancelled(session)


def test_a_cancel_cut_into_single_bytes_is_the_same_cancel(router):
    with sleeping_session(router) as session:
        with Wire(router.port(), chunk=1) as wire:
            wire.send(cancel_packet(session.pid, session.secret))
            wire.expect_end()
        assert_cancelled(session)


@pytest.mark.parametrize("worker_try", range(4))
def test_a_cancel_reaches_its_session_from_any_worker(router, worker_try):
    """Two workers share the port: several tries make it all but sure that key and cancel met on different ones."""
    with sleeping_session(router) as session:
        cancel(router.port(), session.pid, session.secret)
        assert_cancelled(session)


@pytest.mark.parametrize("spoil", ["secret", "pid", "short", "long", "empty", "too long"])
@pytest.mark.parametrize("version", [PROTOCOL_3_0, PROTOCOL_3_2])
def test_a_wrong_key_is_closed_without_a_byte_and_nothing_happens(router, spoil, version):
    with sleeping_session(router, version=version) as session:
        pid, secret = session.pid, session.secret
        if spoil == "secret":
            secret = bytes([secret[0] ^ 1]) + secret[1:]
        elif spoil == "pid":
            pid ^= 1
        elif spoil == "short":
            secret = secret[:-1]
        elif spoil == "long":
            secret += b"\0"
        elif spoil == "empty":
            secret = b""
        elif spoil == "too long":
            secret = secret + b"\0" * (257 - len(secret))
        cancel(router.port(), pid, secret)
        with pytest.raises(TimeoutError):
            session.wire.socket.settimeout(0.3)
            session.result()
        session.wire.socket.settimeout(20)
        cancel(router.port(), session.pid, session.secret)  # and the right one still does
        assert_cancelled(session)


def test_the_key_of_a_session_that_ended_cancels_nothing(router):
    session = router.login(USER)
    pid, secret = session.pid, session.secret
    session.terminate()
    cancel(router.port(), pid, secret)
    router.login(USER).terminate()


def test_a_cancel_when_nothing_runs_disturbs_nothing(router):
    session = router.login(USER)
    cancel(router.port(), session.pid, session.secret)
    assert wait_until(lambda: session.value("SELECT 'fine'"), "the next query to work") == "fine"
    session.terminate()


def test_the_pid_of_the_key_is_the_backends_own_on_direct_routes(router):
    for target in ("", "|replica"):
        session = router.login(USER + target)
        assert session.value("SELECT pg_backend_pid()") == str(session.pid)
        session.terminate()


def test_the_secret_is_ours_and_different_every_time(router):
    secrets = set()
    for _ in range(5):
        session = router.login(USER)
        secrets.add(session.secret)
        session.terminate()
    assert len(secrets) == 5


def test_cancels_are_counted_by_outcome(router):
    before = router.metrics()
    with sleeping_session(router) as session:
        cancel(router.port(), session.pid, session.secret)
        assert_cancelled(session)
    cancel(router.port(), 12345, b"\0\1\2\3")

    def counted():
        after = router.metrics()
        outcomes = {dict(labels)["outcome"] for labels, value in after.all("pointsman_cancel_requests_total").items()
                    if value > before.samples.get(("pointsman_cancel_requests_total", labels), 0)}
        return len(outcomes) == 2

    wait_until(counted, "one cancel that was sent and one that was not")


def test_the_cancel_leg_uses_tls_when_the_sessions_leg_does(start_router, world):
    with Forwarder(world.app.port) as network:
        def change(config):
            config["branches"][BRANCH]["pools"]["app"]["endpoints"] = [{"host": "127.0.0.1", "port": network.port}]

        router = start_router(change)
        with sleeping_session(router, f"{USER}|app", "pooled") as session:
            before = len(network.beginnings)
            cancel(router.port("pooled"), session.pid, session.secret)
            assert_cancelled(session)
            begun = network.beginnings[before:]
            assert begun and all(first.startswith(SSL_REQUEST) for first in begun)


def test_psycopg_cancels_through_the_router(router):
    connection = psycopg.connect(conninfo(router.libpq(USER, database="app")), autocommit=True)
    connection.pgconn.send_query(b"SELECT pg_sleep(60)")
    pid = connection.info.backend_pid
    router.world.cluster.primary.wait_backend_runs(pid, "pg_sleep")
    connection.cancel()
    result = connection.pgconn.get_result()
    assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
    connection.close()


def test_a_backend_of_postgresql_18_is_cancelled_with_short_and_long_keys(router):
    for version in (PROTOCOL_3_0, PROTOCOL_3_2):
        with sleeping_session(router, f"app.{BRANCH_18}", version=version) as session:
            cancel(router.port(), session.pid, session.secret)
            assert_cancelled(session)


def test_a_cancel_request_of_a_wrong_size_is_closed(router):
    for size in (8, 11, 12 + 257, 10_000):
        with Wire(router.port()) as wire:
            wire.send(struct.pack("!II", size, 80877102) + b"\0" * (size - 8))
            wire.expect_end()
    assert router.login(USER, PASSWORDS["app"]).value("SELECT 1") == "1"
