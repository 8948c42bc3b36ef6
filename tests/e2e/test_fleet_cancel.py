"""Cancel requests behind one address: whichever of three routers one lands on, the right query is cancelled, and only that one."""

import contextlib
import os
import signal
import socket
import ssl
import threading
import time

import psycopg
import pytest
from harness.dns import NAME, DnsServer, can_replace_resolv_conf, free_loopback_address
from harness.forwarder import Forwarder
from harness.router import conninfo
from harness.system import free_port, run, wait_until
from harness.wire import PROTOCOL_3_0, PROTOCOL_3_2, Wire, cancel, cancel_packet
from harness.world import BRANCH
from test_cancel import ROUTES, USER, assert_cancelled, sleeping_session

pytestmark = pytest.mark.skipif(not can_replace_resolv_conf(), reason="needs root: DNS has port 53, and resolv.conf is replaced in a mount namespace")

SECRET = "k" * 44
OTHER_SECRET = "j" * 44
NOBODY = b"\x01\x02\x03\x04"


class Fleet:
    def __init__(self, dns, start_router, secrets):
        self.dns, self._start_router, self._secrets = dns, start_router, secrets
        self.port = free_port()
        self.routers, self.addresses = [], []
        self.secret_file = secrets.file(f"fleet-{self.port}.key", f"# of the fleet\n{SECRET}\n")

    def write_secrets(self, *secret, name=None):
        return self._secrets.file(name or os.path.basename(self.secret_file), "\n".join(secret) + "\n")

    def add(self, change=None, *, secret_file=None):
        address = free_loopback_address(self.port)

        def configure(config):
            config["cancel"] = {"secret_file": secret_file or self.secret_file,
                                "peers": {"dns": f"{NAME}:{self.port}", "address": address}}
            config["log"]["level"] = "debug"
            config["drain_timeout"] = "20s"
            if change:
                change(config)

        router = self._start_router(configure, prefix=self.dns.prefix())
        self.routers.append(router)
        self.addresses.append(address)
        return router

    def list(self, *numbers):
        """DNS names these routers."""
        addresses = {self.addresses[number] for number in numbers}
        self.dns.say(addresses)
        wait_until(lambda: {line.split()[0] for line in run([*self.dns.prefix(), "getent", "ahostsv4", NAME], check=False).stdout.splitlines()} == addresses,
                   "DNS to name the fleet")


@pytest.fixture
def empty_fleet(folder, start_router, secrets):
    dns = DnsServer(os.path.join(folder, f"dns-{free_port()}"))
    dns.start()
    yield Fleet(dns, start_router, secrets)
    dns.stop()


@pytest.fixture
def fleet(empty_fleet):
    for _ in range(3):
        empty_fleet.add()
    empty_fleet.list(0, 1, 2)
    return empty_fleet


def outcomes(router):
    return {dict(labels)["outcome"]: int(value) for labels, value in router.metrics().all("pointsman_cancel_requests_total").items() if value}


def answers(router):
    return {dict(labels)["outcome"]: int(value) for labels, value in router.metrics().all("pointsman_peer_answers_total").items() if value}


def assert_runs_on(session):
    with pytest.raises(TimeoutError):
        session.wire.socket.settimeout(0.3)
        session.result()
    session.wire.socket.settimeout(20)


def test_a_short_key_is_found_by_asking_the_others_on_every_route(fleet):
    a, b, c = fleet.routers
    for number, (user, listener) in enumerate(ROUTES, start=1):
        with sleeping_session(a, user, listener, version=PROTOCOL_3_0) as session:
            assert len(session.secret) == 4
            cancel((b, c)[number % 2].port(), session.pid, session.secret)
            assert_cancelled(session)
    assert outcomes(a) == {}
    assert outcomes(b) == {"sent_by_peer": 2} and outcomes(c) == {"sent_by_peer": 3}
    assert answers(a) == {"sent": 5}
    for router in (b, c):
        wait_until(lambda: router.metrics().sum("pointsman_peers") == 2, "a router to count itself out")


def test_a_long_key_is_served_by_whoever_gets_it_without_asking(fleet):
    a, b, c = fleet.routers
    for router in (b, c):
        router.login(USER).terminate()  # the branch is in use here: its destinations are known
    for user, listener in ROUTES:
        with sleeping_session(a, user, listener, version=PROTOCOL_3_2) as session:
            assert 60 < len(session.secret) <= 256 and BRANCH.encode() not in session.secret
            cancel(b.port(), session.pid, session.secret)
            assert_cancelled(session)
    assert outcomes(b) == {"sent": len(ROUTES)}
    assert all(answers(router) == {} for router in (a, b, c))
    with sleeping_session(a, version=PROTOCOL_3_2) as session:
        cancel(a.port(), session.pid, session.secret)  # and at home
        assert_cancelled(session)


def test_two_long_keys_of_one_backend_differ(fleet):
    a = fleet.routers[0]
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(sleeping_session(a, f"{USER}|app", "pooled", version=PROTOCOL_3_2)) for _ in range(2)]
        assert sessions[0].secret[5:] != sessions[1].secret[5:]


def test_a_long_key_to_a_place_that_is_unknown_here_is_its_owners(fleet):
    """A branch nobody has used on this router, and one it does not have at all: what a key says is not taken on trust."""
    a, b = fleet.routers[:2]
    with sleeping_session(a, version=PROTOCOL_3_2) as session:
        def lacking(config):
            del config["branches"][BRANCH]
            config["listeners"] = [entry for entry in config["listeners"] if "branch" not in entry]

        stranger = fleet.add(lacking)
        fleet.list(0, 1, 2, 3)
        cancel(stranger.port(), session.pid, session.secret)
        assert_cancelled(session)
    assert outcomes(stranger) == {"sent_by_peer": 1} and answers(a) == {"sent": 1}
    assert outcomes(b) == {}


@pytest.mark.parametrize("version", [PROTOCOL_3_0, PROTOCOL_3_2])
def test_a_wrong_key_cancels_nothing_anywhere(fleet, version):
    a, b, c = fleet.routers
    with sleeping_session(a, version=version) as session:
        spoilt = session.secret[:-1] + bytes([session.secret[-1] ^ 1])
        cancel(b.port(), session.pid, spoilt)
        cancel(b.port(), session.pid ^ 1, session.secret)
        for size in (0, 3, 257):  # no key at all: nobody is asked
            cancel(b.port(), session.pid, b"k" * size)
        assert_runs_on(session)
        assert outcomes(b) == {"unknown_key": 2}
        assert answers(a) == answers(c) == {"unknown_key": 2}
        cancel(b.port(), session.pid, session.secret)
        assert_cancelled(session)


def test_guessing_does_not_become_the_others_load(fleet):
    a, b, c = fleet.routers
    cancel(b.port(), 1, NOBODY)  # the connections between them are up

    def guess(count):
        for number in range(count):
            cancel(b.port(), 1000 + number, NOBODY)

    threads = [threading.Thread(target=guess, args=(50,)) for _ in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    allowed = 50 + 10 * (time.monotonic() - began) + 8 + 1  # burst, rate, four threads on two workers that ask before they count
    seen = outcomes(b)
    assert seen["throttled"] > 0 and sum(seen.values()) == 201
    assert answers(a) == answers(c)
    assert answers(a).get("unknown_key", 0) <= 2 * allowed  # each worker has a bucket of its own


def test_a_router_that_is_gone_or_frozen_costs_the_others_nothing(fleet):
    a, b, c = fleet.routers
    cancel(b.port(), 1, NOBODY)  # connected to both
    c.signal(signal.SIGSTOP)
    try:
        with sleeping_session(a) as session:
            began = time.monotonic()
            cancel(b.port(), session.pid, session.secret)
            assert_cancelled(session)
            assert time.monotonic() - began < 5  # nobody waited for the frozen one
        cancel(b.port(), 2, NOBODY)  # comes back once the frozen one has had its time
        assert outcomes(b) == {"unknown_key": 1, "sent_by_peer": 1, "peer_failed": 1}
        b.wait_log(r"a peer cannot be asked about a cancel request.*no answer in time")
    finally:
        c.signal(signal.SIGCONT)
    os.kill(c.pid, signal.SIGKILL)
    c.wait()
    with sleeping_session(a) as session:
        cancel(b.port(), session.pid, session.secret)
        assert_cancelled(session)
    cancel(b.port(), 3, NOBODY)
    assert outcomes(b)["peer_failed"] == 2
    fleet.list(0, 1)  # the name forgets it: wrong keys are wrong keys again

    def wrong_key():
        cancel(b.port(), 4, NOBODY)
        return outcomes(b)["unknown_key"] == 2

    wait_until(wrong_key, "the name to be looked up again", every=0.3)


def test_one_of_them_restarts(fleet):
    """While it drains, its sessions can still be cancelled from outside; when it is back, so can its new ones."""
    a, b, c = fleet.routers
    with sleeping_session(a) as session, sleeping_session(a, version=PROTOCOL_3_2) as long_key:
        a.signal(signal.SIGTERM)
        a.wait_log("draining")
        cancel(b.port(), session.pid, session.secret)
        assert_cancelled_by_drain(session)
        cancel(c.port(), long_key.pid, long_key.secret)
        assert_cancelled_by_drain(long_key)
    assert a.wait() == 0
    cancel(b.port(), 1, NOBODY)  # it is away, and DNS has not noticed
    assert outcomes(b) == {"sent_by_peer": 1, "peer_failed": 1}
    a.start()
    with sleeping_session(a) as session:
        cancel(b.port(), session.pid, session.secret)
        assert_cancelled(session)
    with sleeping_session(b) as session:
        cancel(a.port(), session.pid, session.secret)
        assert_cancelled(session)


def assert_cancelled_by_drain(session):
    """The query's cancel comes first; then the session is idle and the drain ends it."""
    with pytest.raises(Exception) as caught:
        session.result()
    assert caught.value.sqlstate == "57014"


def test_libpq_behind_one_address(fleet):
    """What a Service does: the session goes to one router, the cancel of the same client to another."""
    a, b, _ = fleet.routers
    with Forwarder(a.port()) as service:
        parameters = a.libpq(USER, database="app")
        parameters["port"] = service.port
        with psycopg.connect(conninfo(parameters), autocommit=True) as connection:
            service._target = b.port()
            failed = []

            def sleep():
                try:
                    connection.execute("SELECT pg_sleep(60)")
                except psycopg.errors.QueryCanceled as error:
                    failed.append(error)

            thread = threading.Thread(target=sleep)
            thread.start()
            watcher = a.world.cluster.nodes[0]
            wait_until(lambda: watcher.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'", (connection.info.backend_pid,)),
                       "the sleep to run")
            connection.cancel()
            thread.join(20)
            assert failed and connection.execute("SELECT 1").fetchone() == (1,)


def test_secrets_are_rotated_without_a_gap(fleet):
    a, b, _ = fleet.routers
    b.login(USER).terminate()

    def rotate(*secrets):
        fleet.write_secrets(*secrets)
        for router in fleet.routers:
            assert router.reload() == "ok"

    with sleeping_session(a, version=PROTOCOL_3_2) as old, sleeping_session(a, version=PROTOCOL_3_2) as older:
        rotate(SECRET, OTHER_SECRET)
        rotate(OTHER_SECRET, SECRET)
        with sleeping_session(a, version=PROTOCOL_3_2) as new:
            assert new.secret[1:5] != old.secret[1:5]
            for session in (old, new):
                cancel(b.port(), session.pid, session.secret)
                assert_cancelled(session)
        rotate(OTHER_SECRET)
        cancel(b.port(), older.pid, older.secret)  # opens no more; its owner knows it as it is
        assert_cancelled(older)
    assert outcomes(b) == {"sent": 2, "sent_by_peer": 1}


def test_a_secret_that_is_taken_away_ends_the_asking(fleet):
    """While a question is under way, too: a router asks no more, and answers no more once its peers' connections are over."""
    a, b, c = fleet.routers
    c.signal(signal.SIGSTOP)
    try:
        with Wire(b.port()) as asking:
            asking.send(cancel_packet(1, NOBODY))  # waits for the frozen one
            wait_until(lambda: answers(a) == {"unknown_key": 1}, "the question to be asked")
            config = dict(b.config)
            del config["cancel"]
            assert b.reload(config) == "ok"
            b.wait_log("cancel.peers takes effect at the next restart")
            asking.expect_end()
        with sleeping_session(a) as session:
            cancel(b.port(), session.pid, session.secret)
            assert_runs_on(session)
            cancel(a.port(), session.pid, session.secret)
            assert_cancelled(session)
    finally:
        c.signal(signal.SIGCONT)
    assert outcomes(b) == {"peer_failed": 1, "unknown_key": 1}
    with sleeping_session(b) as session:  # its own keys are known to itself, and still to those who ask it
        cancel(b.port(), session.pid, session.secret)
        assert_cancelled(session)


def test_who_has_not_the_secret_is_no_peer(fleet):
    a, b, _ = fleet.routers
    stranger = fleet.add(secret_file=fleet.write_secrets(OTHER_SECRET, name="stranger.key"))
    fleet.list(0, 1, 2, 3)
    with sleeping_session(a) as session:
        cancel(stranger.port(), session.pid, session.secret)
        assert_runs_on(session)
        assert outcomes(stranger) == {"peer_failed": 1}
        stranger.wait_log(r"a peer cannot be asked about a cancel request.*TLS: ")
        a.wait_log(r"a peer's connection has ended.*TLS: ")
        cancel(b.port(), session.pid, session.secret)
        assert_cancelled(session)
    assert answers(a) == {"sent": 1}

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((fleet.addresses[0], fleet.port), timeout=5) as plain, pytest.raises(OSError):
        context.wrap_socket(plain)
    for noise in (b"\x00\x13\x01" + b"\x01" * 16, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 70000):
        with socket.create_connection((fleet.addresses[0], fleet.port), timeout=5) as plain, contextlib.suppress(ConnectionError):
            plain.sendall(noise)
            while plain.recv(4096):
                pass
    with socket.create_connection((fleet.addresses[0], fleet.port), timeout=5) as silent:
        assert silent.recv(1) == b""  # hung up on after three seconds


def test_without_peers_a_long_key_is_still_served_anywhere(empty_fleet):
    """secret_file alone: nothing listens, nobody is asked."""
    def alone(config):
        del config["cancel"]["peers"]

    a, b = empty_fleet.add(alone), empty_fleet.add(alone)
    b.login(USER).terminate()
    with sleeping_session(a, version=PROTOCOL_3_2) as session:
        cancel(b.port(), session.pid, session.secret)
        assert_cancelled(session)
    cancel(b.port(), 1, NOBODY)
    assert outcomes(b) == {"sent": 1, "unknown_key": 1}
    assert not b.metrics().has("pointsman_peers")


def test_what_is_wrong_with_the_settings_is_said(make_config, start_router, secrets, folder):
    router = start_router()

    def complaint(cancel_config):
        router.write_config({**router.config, "cancel": cancel_config})
        result = router.command("check", "--config", router.path)
        assert result.returncode == 1
        return result.stderr

    good = secrets.file("good.key", SECRET + "\n")
    assert "/cancel/secret_file: " in complaint({"secret_file": secrets.file("short.key", "too short\n")})
    assert "openssl rand" in complaint({"secret_file": secrets.file("short.key", "too short\n")})
    assert "/cancel/secret_file: is missing" in complaint({"peers": {"dns": "peers:7532"}})
    assert "/cancel/peers/dns: " in complaint({"secret_file": good, "peers": {"dns": "peers"}})
    assert "/cancel/peers/dns: is missing" in complaint({"secret_file": good, "peers": {}})
    assert f"/cancel/peers/port: listener direct has port {router.port()} too" in complaint(
        {"secret_file": good, "peers": {"dns": "peers:7532", "port": router.port()}})
    open_to_all = secrets.file("open.key", SECRET + "\n")
    os.chmod(open_to_all, 0o644)
    assert "/cancel/secret_file: " in complaint({"secret_file": open_to_all})
