"""How Pointsman itself logs in, for probes and look-ups: what works, what is refused with which words, and what a hostile server can do."""

import base64
import contextlib
import os
import socket
import struct
import threading
import time

import pytest
from harness.cluster import Node
from harness.router import Router, router_binary, standard_config
from harness.scram import verifier
from harness.system import wait_until
from harness.wire import Refused, message
from harness.world import PASSWORDS

_SQL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "sql")

# Probe role to password, and how pg_hba.conf lets it in.
ROLES = {
    "by_scram": ("probe ü 1", "scram-sha-256"),
    "by_one_round": ("one-round-2", "scram-sha-256"),
    "by_trust": ("never-asked-3", "trust"),
    "by_certificate": ("never-asked-4", "cert"),
    "by_md5": ("hashed-5", "md5"),
    "by_cleartext": ("clear-6", "password"),
}


@pytest.fixture(scope="module")
def node(world):
    """A PostgreSQL 15 of this module's own, with a pg_hba.conf line for each way to log in."""
    made = Node("pg-probe-login", os.path.join(world.folder, "servers"), world.server_certificate,
                world.server_certificate.removesuffix(".crt") + ".key").initialise()
    with open(os.path.join(made.data, "pg_hba.conf"), "w", encoding="utf-8") as hba:
        hba.write("local all postgres trust\n")
        hba.writelines(f"{'hostssl' if method == 'cert' else 'host'} all {role} 127.0.0.0/8 {method}\n" for role, (_, method) in ROLES.items())
        hba.write("host all all 127.0.0.0/8 scram-sha-256\n")
    with open(os.path.join(made.data, "postgresql.conf"), "a", encoding="utf-8") as settings:
        settings.write(f"ssl_ca_file = '{world.authority.certificate}'\n")
    made.start()
    made.sql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORDS['app']}'")
    made.sql("CREATE DATABASE app OWNER app")
    for role, (password, _) in ROLES.items():
        made.run_script(os.path.join(_SQL, "01_probe_role.sql"), probe_role=role, probe_password=password)
        made.run_script(os.path.join(_SQL, "02_auth_role.sql"), auth_role=role)
    made.sql(f"ALTER ROLE by_one_round PASSWORD '{verifier(ROLES['by_one_round'][0], iterations=1)}'")
    made.sql(f"SET password_encryption = 'md5'; ALTER ROLE by_md5 PASSWORD '{ROLES['by_md5'][0]}'")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def start(world, folder, router_certificate, secrets, node):
    """Starts a router with one branch for each (name, probe, changes) given, on this module's server unless the changes say otherwise."""
    made = []

    def start(branches):
        config = standard_config(world, folder, secrets, *router_certificate)
        config["branches"] = {}
        config["defaults"].pop("probe")
        for name, probe, changes in branches:
            config["branches"][name] = {"members": [{"name": "own", "host": "127.0.0.1", "port": node.port}],
                                        "probe": {"database": "postgres", "interval": "200ms", "timeout": "2s", **probe}, **changes}
        config["listeners"] = [entry for entry in config["listeners"] if "branch" not in entry]
        router = Router(router_binary(), os.path.join(folder, f"router-probe-login-{len(made)}"), config, world)
        made.append(router)
        return router.start()

    yield start
    for router in made:
        router.finish()


def probe_as(secrets, role, password=None):
    return {"user": role, "password_file": secrets.file(f"{role}.pw", (password or ROLES[role][0]) + "\n")}


def certificate_of(world, role):
    certificate, key = world.authority.issue(role)
    return {"backend_tls": dict(world.backend_tls(), certificate=certificate, key=key)}


def plain():
    return {"backend_tls": {"mode": "disable"}}


def log_in(router, branch):
    return router.login(f"app.{branch}")


def refused(router, branch):
    """The branch cannot be used; the first login wakes its probe."""
    with pytest.raises(Refused) as caught:
        log_in(router, branch)
    return caught.value


# --- what works ---

def test_every_login_that_is_offered_reaches_the_server(start, world, secrets, node):
    """Probe and look-up both go through: the client's login needs them."""
    router = start([
        ("scram", probe_as(secrets, "by_scram"), {}),
        ("scram-plain", probe_as(secrets, "by_scram"), plain()),
        ("scram-require", probe_as(secrets, "by_scram"), {"backend_tls": {"mode": "require"}}),
        ("one-round", probe_as(secrets, "by_one_round"), {}),
        ("trust", {"user": "by_trust"}, {}),
        ("trust-plain", {"user": "by_trust"}, plain()),
        ("certificate", {"user": "by_certificate"}, certificate_of(world, "by_certificate")),
    ])
    for branch in router.config["branches"]:
        log_in(router, branch).terminate()
        router.wait_member("own", "ok", "primary", branch=branch)
    methods = dict(node.sql("SELECT DISTINCT usename, s.ssl FROM pg_stat_activity JOIN pg_stat_ssl s USING (pid) WHERE usename = 'by_certificate'"))
    assert methods == {"by_certificate": True}
    names = {row[0] for row in node.sql("SELECT DISTINCT application_name FROM pg_stat_activity WHERE usename = 'by_scram'")}
    assert names == {"pointsman-probe", "pointsman-lookup"}
    assert "failed" not in router.log()
    checked = router.command("check", "--config", router.path)
    assert checked.returncode == 0 and "note: 2 branches (trust" in checked.stderr


def test_connections_that_the_server_ends_are_made_anew(start, secrets, node):
    router = start([("scram", probe_as(secrets, "by_scram"), {})])
    log_in(router, "scram").terminate()
    router.wait_member("own", "ok", "primary", branch="scram")
    ended = node.sql("SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE usename = 'by_scram' OFFSET 0) ours")
    assert len(ended) >= 1
    wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'by_scram'") >= 1, "a new probe connection")
    router.wait_member("own", "ok", "primary", branch="scram")
    log_in(router, "scram").terminate()


# --- what is refused, and in which words ---

@pytest.mark.parametrize("branch, probe, changes, words", [
    ("wrong", ("by_scram", "not the password"), {}, 'FATAL 28P01: password authentication failed for user \\\\x22by_scram\\\\x22'),
    ("md5", ("by_md5", None), {}, "the server asks for the password as MD5; only SCRAM-SHA-256 is answered: set the role's password anew with "
                                  "password_encryption"),
    ("cleartext", ("by_cleartext", None), {}, "the server asks for the password in clear; only SCRAM-SHA-256 is answered"),
    ("none", None, {}, "the server asks for a password and none is configured"),
    ("no-certificate", ("by_certificate", None), {}, "FATAL 28000: connection requires a valid client certificate"),
    ("other-authority", ("by_scram", None), {"backend_tls": "stranger"}, "TLS: .*certificate"),
    ("other-name", ("by_scram", None), {"backend_tls": "name"}, "TLS: .*(name|host)"),
])
def test_a_login_that_cannot_work_says_what_to_do(start, world, secrets, branch, probe, changes, words):
    tls = {"stranger": {"mode": "verify-full", "ca": world.stranger_authority.certificate},
           "name": dict(world.backend_tls(), server_name="not.in.the.certificate")}
    router = start([(branch, {"user": "by_scram"} if probe is None else probe_as(secrets, *probe),
                     {key: tls[value] for key, value in changes.items()})])
    caught = refused(router, branch)
    assert caught.severity == "FATAL" and caught.sqlstate in ("58000", "57P03")
    router.wait_log(f"branch {branch}: probe of own .* failed: .*{words}")
    assert "by_scram.pw" not in router.log() and "not the password" not in router.log()


def test_a_client_certificate_of_another_authority_is_a_matter_of_tls(start, world, secrets):
    certificate, key = world.stranger_authority.issue("by_certificate")
    router = start([("stranger", {"user": "by_certificate"}, {"backend_tls": dict(world.backend_tls(), certificate=certificate, key=key)})])
    refused(router, "stranger")
    router.wait_log("branch stranger: probe of own .* failed: .*TLS: .*(unknown ca|alert)")


# --- a hostile server ---

class FakeServer:
    """Not a PostgreSQL: says what `speak(connection)` says to whoever connects, and keeps what it was sent."""

    def __init__(self, speak):
        self._speak = speak
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        self.received = []  # the bytes of each connection that has ended
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        peer = FakePeer(connection)
        with connection, contextlib.suppress(OSError, EOFError):
            connection.settimeout(20)
            peer.startup()
            self._speak(peer)
            while peer.read(1):
                pass
        self.received.append(bytes(peer.seen))


class FakePeer:
    def __init__(self, connection):
        self._connection = connection
        self.seen = bytearray()

    def read(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self._connection.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
            self.seen += piece
        return bytes(data)

    def send(self, data):
        self._connection.sendall(data)

    def startup(self):
        (size,) = struct.unpack("!I", self.read(4))
        return self.read(size - 4)

    def response(self):
        kind, size = struct.unpack("!cI", self.read(5))
        assert kind == b"p"
        return self.read(size - 4)

    def begin_scram(self):
        """Asks for SCRAM and returns the client's nonce."""
        self.send(authentication(10, b"SCRAM-SHA-256\0\0"))
        return self.response().rsplit(b"r=", 1)[1]


def authentication(code, data=b""):
    return message("R", struct.pack("!I", code) + data)


READY = message("Z", b"I")


def offer_rounds(rounds):
    def speak(peer):
        nonce = peer.begin_scram()
        salt = base64.b64encode(os.urandom(16))  # another one each time: nothing can be kept
        peer.send(authentication(11, b"r=" + nonce + b"more,s=" + salt + b",i=%d" % rounds))

    return speak


def ok_without_signature(peer):
    peer.begin_scram()
    peer.send(authentication(0) + READY)


def drip(peer):
    peer.send(authentication(0))
    while True:
        peer.send(message("N", b"SNOTICE\0C00000\0Mstill here\0\0"))
        time.sleep(0.01)


def flood(peer):
    peer.send(authentication(0))
    while True:
        peer.send(message("N", bytes(60_000)))


def endless_rows(peer):
    peer.send(authentication(0) + READY)
    peer.read(5)
    row = message("D", struct.pack("!HI", 1, 1) + b"x")
    peer.send(message("1") + message("2") + message("T", struct.pack("!H", 1) + b"c\0" + bytes(18)))
    while True:
        peer.send(row * 1000)


def copy_out(peer):
    peer.send(authentication(0) + READY)
    peer.read(5)
    peer.send(message("1") + message("2") + message("H", b"\0\0\0"))


FAKES = {
    "cleartext": (lambda peer: peer.send(authentication(3)), "the server asks for the password in clear"),
    "md5": (lambda peer: peer.send(authentication(5, b"salt")), "the server asks for the password as MD5"),
    "gssapi": (lambda peer: peer.send(authentication(7)), "code 7: GSSAPI"),
    "many-rounds": (offer_rounds(2 ** 31), "SCRAM: iteration count missing or out of bounds"),
    "no-signature": (ok_without_signature, "AuthenticationOk without the server's signature"),
    "garbage": (lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "a message out of place \\(type H\\) during the login"),
    "long-message": (lambda peer: peer.send(b"E" + struct.pack("!I", 1 << 30)), "a message of impossible length"),
    "dripping": (drip, "no login within the deadline"),
    "flooding": (flood, "the server sent more than we take"),
    "endless-rows": (endless_rows, "the server (answers with more than 10000 rows|sent more than we take)"),
    "copy": (copy_out, "the server answered with COPY"),
    "hanging-up": (lambda peer: peer.send(b""), None),
}
HOSTILE_PASSWORD = "never-on-the-wire-7"


def test_hostile_servers_learn_nothing_and_disturb_nobody(start, secrets):
    fakes = {name: FakeServer(speak) for name, (speak, _) in FAKES.items()}
    try:
        probe = {"user": "by_scram", "password_file": secrets.file("hostile.pw", HOSTILE_PASSWORD + "\n")}
        router = start([("honest", probe_as(secrets, "by_scram"), {})] +
                       [(name, probe, dict(plain(), members=[{"name": "own", "host": "127.0.0.1", "port": fake.port}]))
                        for name, fake in fakes.items()])
        waiting = [threading.Thread(target=refused, args=(router, name)) for name in FAKES]
        for thread in waiting:
            thread.start()
        log_in(router, "honest").terminate()
        for name, (_, words) in FAKES.items():
            if words is not None:
                router.wait_log(f"branch {name}: probe of own .* failed: .*{words}")
        for thread in waiting:
            thread.join(60)
            assert not thread.is_alive()
        assert router.status("honest")["members"][0]["state"] == "ok"
        log_in(router, "honest").terminate()
        for name, fake in fakes.items():
            seen = b"".join(fake.received)
            assert HOSTILE_PASSWORD.encode() not in seen, name
            if name in ("cleartext", "md5", "gssapi"):
                # A StartupMessage and nothing behind it, in no connection.
                assert fake.received and all(len(bytes_) == struct.unpack("!I", bytes_[:4])[0] for bytes_ in fake.received), name
    finally:
        for fake in fakes.values():
            fake.close()


def test_servers_that_name_the_most_rounds_do_not_starve_the_others(start, secrets):
    """A million rounds is what we take. Derivations run off the loop and only two at a time, so the control loop answers meanwhile, and
    a name look-up finds a thread."""
    fakes = [FakeServer(offer_rounds(1_000_000)) for _ in range(6)]
    try:
        probe = {"user": "by_scram", "password_file": secrets.file("hostile.pw", HOSTILE_PASSWORD + "\n")}
        honest = dict(probe_as(secrets, "by_scram"), timeout="20s")
        router = start([("honest", honest, {"failover": {"hold_timeout": "30s"}})] +
                       [(f"slow-{number}", dict(probe, interval="50ms"),
                         dict(plain(), members=[{"name": "own", "host": "127.0.0.1", "port": fake.port}]))
                        for number, fake in enumerate(fakes)])
        waiting = [threading.Thread(target=refused, args=(router, f"slow-{number}")) for number in range(len(fakes))]
        for thread in waiting:
            thread.start()
        wait_until(lambda: sum(len(fake.received) for fake in fakes) >= 1, "a slow derivation to have been given up or ended")
        slowest = 0
        for _ in range(50):
            begun = time.monotonic()
            assert router.http("/readyz")[0] == 200
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 1, "the control loop stood still"
        log_in(router, "honest").terminate()
        router.wait_member("own", "ok", "primary", branch="honest")
        for thread in waiting:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        for fake in fakes:
            fake.close()


def test_a_router_stops_while_keys_are_being_derived(start, secrets):
    fake = FakeServer(offer_rounds(1_000_000))
    try:
        probe = {"user": "by_scram", "password_file": secrets.file("hostile.pw", HOSTILE_PASSWORD + "\n"), "interval": "50ms"}
        router = start([("slow", probe, dict(plain(), members=[{"name": "own", "host": "127.0.0.1", "port": fake.port}]))])
        refused(router, "slow")
        router.stop()
    finally:
        fake.close()
