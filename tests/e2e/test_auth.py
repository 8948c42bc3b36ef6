"""Who gets in: SCRAM with and without channel binding, roles that may not, rotated passwords, user lists, and the relayed exchange."""

import base64
import contextlib
import socket
import struct

import pytest
from harness.scram import Exchange
from harness.system import wait_until
from harness.wire import Closed, Refused, error_fields, message
from harness.world import BRANCH, BRANCH_18, PASSWORDS

USER = f"app.{BRANCH}"


def failed_login(router, user, password, **options):
    """The FATAL of a login that must fail, with the SCRAM parameters the router gave away on the way."""
    listener = options.pop("listener", "direct")
    with router.open(listener) as wire:
        wire.startup(user)
        with pytest.raises(Refused) as caught:
            wire.authenticate(password, **options)
        wire.expect_end()
        refused = caught.value
        refused.transcript = wire.transcript
    challenges = [body for kind, body in refused.transcript if kind == "R" and body[:4] == struct.pack("!I", 11)]
    refused.challenge = dict(part.split("=", 1) for part in challenges[0][4:].decode().split(",")) if challenges else {}
    return refused


def what_a_stranger_sees(refused, role):
    """The whole exchange but nonce, salt bytes and the role's own name."""
    seen = []
    for kind, body in refused.transcript:
        if kind == "E":
            seen.append((kind, tuple(sorted((code, text.replace(role, "ROLE")) for code, text in error_fields(body).items()))))
        elif body[:4] == struct.pack("!I", 11):
            seen.append((kind, len(refused.challenge["r"]), len(refused.challenge["s"]), refused.challenge["i"]))
        else:
            seen.append((kind, body))
    return seen


# --- right and wrong ---

@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("user, listener", [(USER, "direct"), (f"{USER}|replica", "direct"), (USER, "pooled"), (f"{USER}|reads", "pooled")])
def test_the_right_password_gets_in_on_every_route(router, mechanism, user, listener):
    session = router.login(user, listener=listener, mechanism=mechanism)
    assert session.mechanisms == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]
    assert session.value("SELECT current_user") == "app"
    session.terminate()


def test_in_the_clear_channel_binding_is_not_offered(router):
    session = router.open_plain("off").login(USER, PASSWORDS["app"], header="y,,")
    assert session.mechanisms == ["SCRAM-SHA-256"]
    session.terminate()


def test_the_client_sees_the_salt_and_rounds_the_server_has(router, world):
    session = router.login(USER)
    rounds, salt = world.verifiers["app"].split("$")[1].split(":")
    assert session.exchange.server_first["s"] == salt and session.exchange.server_first["i"] == rounds
    session.terminate()


@pytest.mark.parametrize("role", ["nosuchrole", "sleeping", "expired", "legacy", "nopassword", "postgres"])
def test_whoever_may_not_log_in_looks_exactly_like_a_wrong_password(router, role):
    wrong = failed_login(router, USER, "wrong")
    refused = failed_login(router, f"{role}.{BRANCH}", PASSWORDS.get(role, "whatever"))
    assert (refused.sqlstate, refused.reason) == ("28P01", wrong.reason)
    assert what_a_stranger_sees(refused, role) == what_a_stranger_sees(wrong, "app")
    assert "password authentication failed" in refused.message


@pytest.mark.parametrize("user", [f"nosuchrole.{BRANCH}", f"sleeping.{BRANCH}", f"legacy.{BRANCH}", USER])
def test_the_salt_of_a_name_stays_the_same_while_the_nonce_does_not(router, user):
    first, second = (failed_login(router, user, "wrong").challenge for _ in range(2))
    assert first["s"] == second["s"] and first["i"] == second["i"] == "4096"
    assert first["r"] != second["r"]


def test_two_unknown_roles_have_two_salts(router):
    assert failed_login(router, f"ghost1.{BRANCH}", "x").challenge["s"] != failed_login(router, f"ghost2.{BRANCH}", "x").challenge["s"]


def test_the_same_role_has_its_own_salt_on_another_branch(router):
    here, there = (failed_login(router, f"ghost.{branch}", "x").challenge["s"] for branch in (BRANCH, BRANCH_18))
    assert here != there


def test_the_log_says_what_the_client_is_not_told(router):
    failed_login(router, f"legacy.{BRANCH}", PASSWORDS["legacy"])
    router.wait_log(r"no_verifier.*legacy|legacy.*no_verifier")
    failed_login(router, USER, "wrong")
    router.wait_log(r"auth_failed.*\bapp\b|\bapp\b.*auth_failed")


def test_failures_are_counted_by_branch_and_reason(router):
    """Whoever has seen the end of a connection finds it counted and logged, however long the client keeps its own half open."""
    def counted():
        return router.metrics().sum("pointsman_auth_failures_total", branch=BRANCH, reason="auth_failed")

    before = counted()
    with router.open() as wire:
        wire.startup(USER)
        with pytest.raises(Refused):
            wire.authenticate("wrong")
        wire.expect_end()
        assert counted() == before + 1


def test_a_failed_login_does_not_lock_out_the_next(router):
    for _ in range(4):
        failed_login(router, USER, "wrong")
    router.login(USER).terminate()


# --- nobody is contacted for a stranger ---

def test_no_backend_is_contacted_before_the_client_has_proved_itself(start_router):
    with contextlib.closing(socket.socket()) as pool:
        pool.bind(("127.0.0.1", 0))
        pool.listen(8)
        pool.setblocking(False)

        def change(config):
            config["branches"][BRANCH]["pools"]["app"]["endpoints"] = [{"host": "127.0.0.1", "port": pool.getsockname()[1]}]

        router = start_router(change)
        failed_login(router, f"{USER}|app", "wrong", listener="pooled")
        failed_login(router, f"nosuchrole.{BRANCH}|app", "wrong", listener="pooled")
        with pytest.raises(BlockingIOError):
            pool.accept()
        with router.open("pooled") as wire:  # the counter-proof: after the right proof the pool is dialled
            wire.startup(f"{USER}|app")
            _answer_challenge(wire, PASSWORDS["app"])
            pool.setblocking(True)
            pool.settimeout(10)
            dialled, _ = pool.accept()
            dialled.close()


def _answer_challenge(wire, password):
    assert wire.read_message().type == "R"
    exchange = Exchange(password)
    first = exchange.first()
    wire.send(message("p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first))
    wire.send(message("p", exchange.final(wire.read_message().body[4:])))


# --- rotation ---

@contextlib.contextmanager
def fresh_role(cluster, name, password):
    """A role nobody has asked about yet: forced look-ups are rationed per role."""
    cluster.primary.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    cluster.catch_up()
    try:
        yield f"{name}.{BRANCH}"
    finally:
        cluster.primary.sql(f"DROP ROLE {name}")


def second_time_lucky(router, user, password):
    """A cached verifier's salt is on the wire before anybody can know that it is stale: one failure is lawful, and it must refresh the cache."""
    try:
        return router.login(user, password, database="app")
    except Refused as refused:
        assert refused.sqlstate == "28P01"
        return router.login(user, password, database="app")


@pytest.mark.parametrize("first, second", [("", "|replica"), ("|replica", "")])
def test_a_rotated_password_works_on_the_next_attempt_everywhere(router, cluster, first, second):
    role = "rotated_" + ("there" if first else "here")
    with fresh_role(cluster, role, "old") as user:
        for target in (first, second):
            router.login(user + target, "old", database="app").terminate()
        cluster.primary.sql(f"ALTER ROLE {role} PASSWORD 'new'")
        for target in (first, second):
            session = second_time_lucky(router, user + target, "new")
            assert session.value("SELECT current_user") == role
            session.terminate()
        assert failed_login(router, user, "old").sqlstate == "28P01"
        cluster.primary.sql(f"ALTER ROLE {role} PASSWORD 'newest'")
        wait_until(lambda: router.login(user, "newest", database="app").value("SELECT 1"), "the newest password to work", deadline=5, every=0.1)


def test_a_rotated_password_works_on_a_replica_while_another_has_not_replayed_it(router, cluster):
    behind, caught_up = cluster.replicas
    with fresh_role(cluster, "rotated_away", "old") as user:
        router.login(f"{user}|replica", "old", database="app").terminate()
        behind.sql("SELECT pg_wal_replay_pause()")
        try:
            wait_until(lambda: behind.value("SELECT pg_get_wal_replay_pause_state()") == "paused", "replay to pause")
            cluster.primary.sql("ALTER ROLE rotated_away PASSWORD 'turned while one slept'")
            lsn = cluster.current_lsn()
            wait_until(lambda: caught_up.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,)), "the other replica to replay")
            for _ in range(6):
                session = second_time_lucky(router, f"{user}|replica", "turned while one slept")
                assert session.value("SELECT pg_is_in_recovery()") == "t"
                session.terminate()
        finally:
            behind.sql("SELECT pg_wal_replay_resume()")
        cluster.catch_up()


def test_a_role_made_after_a_failed_attempt_works_on_the_next(router, cluster):
    user = f"latecomer.{BRANCH}"
    failed_login(router, user, "late")
    cluster.primary.sql("CREATE ROLE latecomer LOGIN PASSWORD 'late'")
    try:
        wait_until(lambda: router.login(user, "late", database="app").value("SELECT 1"), "the new role to get in", deadline=10, every=0.2)
    finally:
        cluster.primary.sql("DROP ROLE latecomer")


def test_a_role_that_lost_its_login_is_refused_by_the_server_at_the_latest(router, cluster):
    cluster.primary.sql("CREATE ROLE leaver LOGIN PASSWORD 'leave'")
    try:
        session = router.login(f"leaver.{BRANCH}", "leave", database="app")
        cluster.primary.sql("ALTER ROLE leaver NOLOGIN")
        assert session.value("SELECT 1") == "1"  # PostgreSQL keeps what is in
        session.terminate()
        assert failed_login(router, f"leaver.{BRANCH}", "leave").sqlstate.startswith("28")
    finally:
        cluster.primary.sql("DROP ROLE leaver")


def test_the_primary_down_the_last_known_verifier_serves(start_router, world):
    """Verifiers come from any member that answers: here no primary is known at all."""
    router = start_router(lambda config: config["branches"][BRANCH].update(members=world.members("pg-1", "pg-2")))
    session = router.login(f"{USER}|replica")
    assert session.value("SELECT pg_is_in_recovery()") == "t"
    session.terminate()


# --- channel binding with libpq ---

@pytest.mark.parametrize("binding", ["require", "prefer", "disable"])
@pytest.mark.parametrize("user, listener", [(USER, "direct"), (f"{USER}|reads", "pooled")])
def test_libpq_binds_the_channel(router, world, binding, user, listener):
    for environment in (None, world.postgresql_18.client_environment()):
        assert router.psql("SELECT current_user", user, listener=listener, channel_binding=binding,
                           environment=environment).stdout == "app"


def test_libpq_18_binds_the_channel_over_direct_tls(router, world):
    result = router.psql("SELECT current_user", USER, environment=world.postgresql_18.client_environment(), channel_binding="require",
                         sslnegotiation="direct", min_protocol_version="3.2", max_protocol_version="3.2")
    assert result.stdout == "app"


def test_the_binding_is_over_the_certificate_whatever_its_signature(start_router, world, secrets):
    certificate, key = world.authority.issue("router-rsa", key=("rsa:2048",))
    router = start_router(lambda config: config["tls"].update(certificate=certificate, key=key))
    assert router.psql("SELECT 1", USER, channel_binding="require").stdout == "1"


def test_a_client_that_says_the_server_cannot_bind_is_refused_when_it_can(router):
    assert failed_login(router, USER, PASSWORDS["app"], header="y,,").sqlstate == "28000"


def test_plus_without_a_binding_and_a_binding_without_plus_are_violations(router):
    assert failed_login(router, USER, PASSWORDS["app"], mechanism="SCRAM-SHA-256-PLUS", header="n,,").sqlstate == "08P01"
    assert failed_login(router, USER, PASSWORDS["app"], header="p=tls-server-end-point,,").sqlstate == "08P01"
    assert failed_login(router, USER, PASSWORDS["app"], mechanism="SCRAM-SHA-256-PLUS", header="p=tls-unique,,").sqlstate == "08P01"


def test_a_binding_to_another_certificate_is_refused(router, monkeypatch):
    with router.open() as wire:
        monkeypatch.setattr(wire, "end_point_binding", lambda: b"\1" * 32)
        with pytest.raises(Refused) as caught:
            wire.login(USER, PASSWORDS["app"], mechanism="SCRAM-SHA-256-PLUS")
    assert caught.value.sqlstate.startswith("28")


# --- SASL as it should not be ---

def sasl_initial(mechanism, first, length=None):
    return message("p", mechanism + b"\0" + struct.pack("!i", len(first) if length is None else length) + first)


GOOD_FIRST = b"n,,n=,r=abcdefghijklmnopqrstuvwx"
HOSTILE_FIRST = {
    "a length that overflows": sasl_initial(b"SCRAM-SHA-256", GOOD_FIRST, 0x7FFFFFFF),
    "a negative length that is not -1": sasl_initial(b"SCRAM-SHA-256", GOOD_FIRST, -2),
    "a length too small": sasl_initial(b"SCRAM-SHA-256", GOOD_FIRST, 3),
    "a length one too large": sasl_initial(b"SCRAM-SHA-256", GOOD_FIRST, len(GOOD_FIRST) + 1),
    "a mechanism nobody offered": sasl_initial(b"PLAIN", b"\0app\0secret"),
    "no mechanism": sasl_initial(b"", GOOD_FIRST),
    "no terminator": message("p", b"SCRAM-SHA-256"),
    "nothing": message("p"),
    "an authzid": sasl_initial(b"SCRAM-SHA-256", b"n,a=admin,n=,r=abcdefghijklmnop"),
    "a mandatory extension": sasl_initial(b"SCRAM-SHA-256", b"n,,m=x,n=,r=abcdefghijklmnop"),
    "no nonce": sasl_initial(b"SCRAM-SHA-256", b"n,,n="),
    "an unprintable nonce": sasl_initial(b"SCRAM-SHA-256", b"n,,n=,r=abc\x01def"),
    "an unknown flag": sasl_initial(b"SCRAM-SHA-256", b"z,,n=,r=abcdefghijklmnop"),
    "a query instead": message("Q", b"SELECT 1\0"),
    "a message beyond every bound": b"p" + struct.pack("!I", 1 << 20) + b"x" * 16,
    "a message with a negative length": b"p" + struct.pack("!i", -1),
    "a message shorter than its length word": b"p" + struct.pack("!I", 3),
}


@pytest.mark.parametrize("what", HOSTILE_FIRST)
def test_a_hostile_first_message_is_refused_and_reaches_nobody(router, what):
    with router.open("pooled") as wire:
        wire.startup(f"{USER}|app")
        assert wire.read_message().type == "R"
        wire.send(HOSTILE_FIRST[what])
        refused = wire.expect_refusal()
    assert refused.sqlstate in {"08P01", "0A000", "28000"}
    router.login(f"{USER}|app", listener="pooled").terminate()


def test_an_empty_initial_response_is_answered_by_postgresqls_rules(router):
    """Length -1: an empty challenge, after which the client sends its first message, or a violation."""
    with router.open() as wire:
        wire.startup(USER)
        wire.read_message()
        wire.send(message("p", b"SCRAM-SHA-256\0" + struct.pack("!i", -1)))
        got = wire.read_message()
        if got.type == "R":
            assert got.body == struct.pack("!I", 11)
        else:
            assert error_fields(got.body)["C"] == "08P01"


def _spoiled(final, how):
    without, proof = final.rsplit(b",p=", 1)
    raw = base64.b64decode(proof)
    return {
        "a proof too short": without + b",p=" + base64.b64encode(raw[:31]),
        "a proof too long": without + b",p=" + base64.b64encode(raw + b"x"),
        "a proof that is no base64": without + b",p=!!!!",
        "no proof": without,
        "another nonce": without.replace(b",r=", b",r=X") + b",p=" + proof,
        "another binding": without.replace(b"c=biws", b"c=eSws") + b",p=" + proof,
        "bytes behind": final + b",x=y",
        "nothing": b"",
    }[how]


@pytest.mark.parametrize("how", ["a proof too short", "a proof too long", "a proof that is no base64", "no proof", "another nonce",
                                 "another binding", "bytes behind", "nothing"])
def test_a_hostile_final_message_is_refused(router, how):
    with router.open() as wire:
        wire.startup(USER)
        wire.read_message()
        exchange = Exchange(PASSWORDS["app"])
        first = exchange.first()
        wire.send(sasl_initial(b"SCRAM-SHA-256", first))
        wire.send(message("p", _spoiled(exchange.final(wire.read_message().body[4:]), how)))
        assert wire.expect_refusal().sqlstate in {"08P01", "28P01", "28000"}
    router.login(USER).terminate()


def test_a_client_that_leaves_at_the_password_prompt_is_let_go(router):
    """libpq without a password sends X, or just closes."""
    for farewell in (message("X"), b""):
        with router.open() as wire:
            wire.startup(USER)
            assert wire.read_message().type == "R"
            wire.send(farewell)
            wire.finish_sending()
            wire.expect_end()


def test_queries_sent_behind_the_right_final_message_are_run_once(router):
    with router.open() as wire:
        wire.startup(USER)
        wire.read_message()
        exchange = Exchange(PASSWORDS["app"])
        first = exchange.first()
        wire.send(sasl_initial(b"SCRAM-SHA-256", first))
        final = message("p", exchange.final(wire.read_message().body[4:]))
        wire.send(final + message("Q", b"SELECT 'early'\0") + message("X"))
        kinds = [kind for kind, _ in wire.read_until("Z") + wire.read_until("Z")]
        assert kinds.count("D") == 1 and kinds.count("Z") == 2
        wire.expect_end()


def test_queries_sent_behind_a_wrong_final_message_are_dropped(router):
    with router.open() as wire:
        wire.startup(USER)
        wire.read_message()
        exchange = Exchange("wrong")
        first = exchange.first()
        wire.send(sasl_initial(b"SCRAM-SHA-256", first))
        final = message("p", exchange.final(wire.read_message().body[4:]))
        wire.send(final + message("Q", b"SELECT 'early'\0"))
        with contextlib.suppress(Closed):
            assert wire.read_message().type == "E"
        wire.expect_end()


# --- where verifiers come from ---

def test_verifiers_from_a_userlist(start_router, world, secrets):
    def change(config):
        config["branches"][BRANCH]["auth"] = {"method": "scram", "userlist": secrets.userlist("two.users", {
            role: world.verifiers[role] for role in ("app", "a.b")})}

    router = start_router(change)
    for user, listener in ((USER, "direct"), (f"{USER}|replica", "direct"), (f"{USER}|reads", "pooled"), (f"a.b.{BRANCH}", "pooled")):
        router.login(user, listener=listener).terminate()
    outside = failed_login(router, f"reader.{BRANCH}", PASSWORDS["reader"])
    assert what_a_stranger_sees(outside, "reader") == what_a_stranger_sees(failed_login(router, USER, "wrong"), "app")


def test_a_userlist_does_not_outvote_the_servers_own_no(start_router, world, secrets):
    """VALID UNTIL and NOLOGIN hold: the backend's login decides in the end."""
    [(expired,)] = world.cluster.primary.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'expired'")
    [(sleeping,)] = world.cluster.primary.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'sleeping'")

    def change(config):
        config["branches"][BRANCH]["auth"] = {"method": "scram", "userlist": secrets.userlist("stale.users", {
            "expired": expired, "sleeping": sleeping})}

    router = start_router(change)
    for role in ("expired", "sleeping"):
        assert failed_login(router, f"{role}.{BRANCH}", PASSWORDS[role]).sqlstate.startswith("28")


def test_verifiers_by_a_login_of_their_own(start_router, secrets):
    def change(config):
        config["branches"][BRANCH]["auth"] = {"method": "scram", "lookup": {
            "user": "pointsman_auth", "password_file": secrets.password("pointsman_auth"),
            "query": "SELECT * FROM pointsman.get_verifier($1)"}}

    router = start_router(change)
    router.login(USER).terminate()
    assert failed_login(router, f"nosuchrole.{BRANCH}", "x").sqlstate == "28P01"


def test_a_superuser_probe_works_and_is_warned_about(start_router, world, secrets):
    def change(config):
        config["branches"][BRANCH]["probe"] = world.probe(secrets, user="superprobe", password_file=secrets.password("superprobe"))

    router = start_router(change)
    router.login(USER).terminate()
    router.wait_log(r"(?i)superuser")


def test_lookups_of_invented_roles_do_not_load_the_cluster(start_router, cluster):
    """Rate capped per branch, negative answers cached: fifty logins of one unknown role ask far fewer than fifty times."""
    router = start_router()
    router.login(USER).terminate()

    def lookups():
        asked = router.metrics().all("pointsman_verifier_lookups_total")
        return sum(value for labels, value in asked.items() if dict(labels)["outcome"] not in {"hit", "throttled"})

    before = lookups()
    for _ in range(50):
        failed_login(router, f"invented.{BRANCH}", "x")
    assert lookups() - before <= 10


# --- passthrough ---

@pytest.fixture
def passthrough(start_router):
    def change(config):
        config["branches"][BRANCH].update(auth={"method": "passthrough"}, backend_tls={"mode": "disable"})

    return start_router(change)


@pytest.mark.parametrize("user, listener", [(USER, "direct"), (f"{USER}|replica", "direct"), (USER, "pooled"), (f"{USER}|reads", "pooled")])
def test_passthrough_relays_the_exchange_with_plus_stripped(passthrough, user, listener):
    session = passthrough.login(user, listener=listener)
    assert session.mechanisms == ["SCRAM-SHA-256"]
    assert session.value("SELECT current_user") == "app"
    session.terminate()


def test_passthrough_works_with_libpq(passthrough):
    assert passthrough.psql("SELECT current_user", USER).stdout == "app"


def test_passthrough_relays_the_servers_own_refusal(passthrough):
    refused = failed_login(passthrough, USER, "wrong")
    assert refused.sqlstate == "28P01" and refused.message == 'password authentication failed for user "app"'


@pytest.mark.parametrize("what", HOSTILE_FIRST)
def test_passthrough_checks_every_frame_before_it_goes_on(passthrough, world, what):
    """Debian 12's PgBouncer dies of one of these; behind the router it must not."""
    with passthrough.open("pooled") as wire:
        wire.startup(f"{USER}|app")
        assert wire.read_message().type == "R"
        wire.send(HOSTILE_FIRST[what])
        with contextlib.suppress(Closed):
            assert wire.read_message().type == "E"
        wire.expect_end()
    passthrough.login(f"{USER}|app", listener="pooled").terminate()


# --- secrets stay secret ---

def test_no_password_verifier_or_proof_reached_the_log(router, world):
    log = router.log()
    assert log
    for secret in (*PASSWORDS.values(), *world.verifiers.values(), *(entry.split("$")[2] for entry in world.verifiers.values())):
        assert secret not in log
    assert "SCRAM-SHA-256$" not in log and ",p=" not in log


def test_the_router_cannot_be_dumped_or_read_by_others(router):
    with open(f"/proc/{router.pid}/limits", encoding="ascii") as limits:
        core = next(line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4] == "0"
