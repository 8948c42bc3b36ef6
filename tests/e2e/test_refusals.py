"""Every refusal of the contract that a client can provoke: SQLSTATE, message, DETAIL, HINT, and the reason word in the routine field."""

import re
import struct
import time

import pytest
from harness.scram import verifier
from harness.system import black_hole, wait_until
from harness.wire import Closed, PROTOCOL_2_0, Refused, Wire, startup_packet
from harness.world import BRANCH, BRANCH_18, PASSWORDS

REASONS = {"bad_user", "bad_option", "unknown_branch", "unknown_pool", "wrong_port", "no_primary", "no_local_pool", "no_replica", "all_lagging",
           "min_lsn_not_reached", "hold_expired", "tls_required", "not_allowed", "limit", "throttled", "backend_unreachable", "backend_fault",
           "auth_failed", "no_verifier", "protocol_violation", "timeout", "draining"}


def refusal(router, user, *, listener="direct", password=None, wire=None, **options):
    """Logs in as far as it goes and returns the FATAL that ends it, with `asked` telling whether a password was asked for first."""
    wire = wire or router.open(listener)
    with wire:
        with pytest.raises(Refused) as caught:
            wire.login(user, PASSWORDS.get(user.split(".")[0], "anything") if password is None else password, **options)
        wire.expect_end()
        refused = caught.value
        refused.asked = any(kind == "R" for kind, _ in wire.transcript)
        refused.accepted = any(kind == "R" and body == struct.pack("!I", 0) for kind, body in wire.transcript)
    assert refused.severity == "FATAL"
    assert refused.message and "\n" not in refused.message
    assert refused.reason in REASONS, refused
    assert not refused.accepted, "AuthenticationOk was sent before the backend accepted its login; libpq would not try its next host"
    return refused


def assert_names_nothing_inside(router, refused):
    """Before a client has proved itself it learns nothing about topology."""
    text = " ".join((refused.message, refused.detail, refused.hint))
    assert "127.0.0.1" not in text
    assert not re.search(r"\bpg-\d\b", text)
    for node in router.world.cluster.nodes:
        assert str(node.port) not in text


# --- the name ---

@pytest.mark.parametrize("user", [
    "app", "app.", f".{BRANCH}", f".{BRANCH}|primary", f"app.{BRANCH}|", f"app.{BRANCH}|primary|replica", "|", ".", "|primary",
    f"app.{BRANCH.upper()}", f"app.{BRANCH}_x", f"app.-{BRANCH}", "app." + "b" * 64, f"{'r' * 64}.{BRANCH}", f"app.{BRANCH}|Primary",
    f"app.{BRANCH}|" + "p" * 64, f"app.{BRANCH} |replica", f"app.{BRANCH}| replica", f"app.{BRANCH}|-x", f"app.{BRANCH}|replica%7Cx",
])
@pytest.mark.parametrize("listener", ["direct", "pooled"])
def test_a_malformed_user_name_is_refused_before_any_password(router, user, listener):
    refused = refusal(router, user, listener=listener)
    assert (refused.sqlstate, refused.reason) == ("28000", "bad_user")
    assert refused.hint and not refused.asked
    assert_names_nothing_inside(router, refused)


@pytest.mark.parametrize("word", ["any", "standby", "rw", "ro", "default", "local"])
@pytest.mark.parametrize("listener", ["direct", "pooled"])
def test_a_reserved_word_is_no_pool(router, word, listener):
    refused = refusal(router, f"app.{BRANCH}|{word}", listener=listener)
    assert refused.sqlstate == "28000" and refused.reason in {"bad_user", "unknown_pool", "wrong_port"}
    assert word in refused.message + refused.detail


@pytest.mark.parametrize("user", [b"app\xff\xfe.x7k2m9q4w1ab", b"'; DROP TABLE x; --.x7k2m9q4w1ab", b"a\nb\x1b[31m.nosuch", "ünï.nosuch".encode(),
                                  b"%s%n%x.nosuch", b"\\x00.nosuch"])
def test_a_strange_name_is_just_another_unknown_name(router, user):
    with router.open() as wire:
        with pytest.raises(Refused) as caught:
            wire.login(user, "anything")
        wire.expect_end()
    assert caught.value.sqlstate in {"28000", "28P01"}
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", router.log()), "bytes of a client's reached the log unescaped"


def test_no_user_at_all_is_28000(router):
    for parameters in ([("database", "app")], [("user", ""), ("database", "app")]):
        with router.open() as wire:
            wire.send(startup_packet(parameters))
            assert wire.expect_refusal().sqlstate == "28000"


def test_an_unknown_branch_is_named(router):
    refused = refusal(router, "app.nosuchbranch")
    assert (refused.sqlstate, refused.reason) == ("28000", "unknown_branch")
    assert "nosuchbranch" in refused.message + refused.detail and not refused.asked
    assert_names_nothing_inside(router, refused)


def test_the_hint_for_a_dotted_role_says_how_the_name_is_split(router):
    refused = refusal(router, "john.doe")
    assert refused.sqlstate == "28000" and refused.reason in {"unknown_branch", "bad_user"}
    assert "last dot" in refused.hint and "branch" in refused.hint


def test_an_unknown_pool_is_named(router):
    refused = refusal(router, f"app.{BRANCH}|nosuchpool", listener="pooled")
    assert (refused.sqlstate, refused.reason) == ("28000", "unknown_pool")
    assert "nosuchpool" in refused.message + refused.detail


def test_a_pool_on_the_direct_port_is_sent_to_the_pooled_port(router):
    refused = refusal(router, f"app.{BRANCH}|reads")
    assert (refused.sqlstate, refused.reason) == ("28000", "wrong_port")
    assert "pooled" in refused.hint


def test_replica_on_the_pooled_port_is_sent_to_5432_or_a_replica_pool(router):
    refused = refusal(router, f"app.{BRANCH}|replica", listener="pooled")
    assert (refused.sqlstate, refused.reason) == ("28000", "wrong_port")
    assert "5432" in refused.hint and "pool" in refused.hint


@pytest.mark.parametrize("listener, user", [("fixed", f"app.{BRANCH}|replica"), ("fixed-replica", f"app.{BRANCH}|primary")])
def test_a_tail_naming_another_target_is_refused_on_a_fixed_listener(router, listener, user):
    refused = refusal(router, user, listener=listener)
    assert refused.sqlstate == "28000" and refused.reason in {"bad_user", "wrong_port"}


def test_an_address_that_is_not_allowed_is_refused_before_any_password(start_router):
    def change(config):
        config["branches"][BRANCH]["access"] = {"allow": ["10.0.0.0/8"]}

    router = start_router(change)
    refused = refusal(router, f"app.{BRANCH}")
    assert (refused.sqlstate, refused.reason) == ("28000", "not_allowed") and not refused.asked
    assert router.login(f"app.{BRANCH_18}").value("SELECT 1") == "1"


def test_hidden_unknown_branches_look_like_a_wrong_password(start_router):
    router = start_router(lambda config: config.update(hide_unknown_branches=True))
    unknown = refusal(router, "app.nosuchbranch", password="wrong")
    wrong = refusal(router, f"app.{BRANCH}", password="wrong")
    assert unknown.asked and wrong.asked

    def shape(refused, branch):
        return {code: text.replace(branch, "BRANCH") for code, text in refused.fields.items() if code not in "FL"}

    assert shape(unknown, "nosuchbranch") == shape(wrong, BRANCH)
    assert unknown.sqlstate == "28P01"


# --- the wire ---

def test_a_plaintext_client_is_told_to_use_tls(router):
    with router.open_plain("direct") as wire:
        wire.send(startup_packet({"user": f"app.{BRANCH}"}))
        refused = wire.expect_refusal()
    assert (refused.sqlstate, refused.reason) == ("28000", "tls_required")
    assert "sslmode=require" in refused.hint


def test_protocol_2_is_an_unsupported_feature(router):
    with router.open() as wire:
        wire.send(startup_packet({"user": f"app.{BRANCH}"}, PROTOCOL_2_0))
        assert wire.expect_refusal().sqlstate == "0A000"


def test_a_startup_without_its_terminator_is_a_protocol_violation(router):
    with router.open() as wire:
        body = struct.pack("!I", 3 << 16) + b"user\0app"
        wire.send(struct.pack("!I", len(body) + 4) + body)
        refused = wire.expect_refusal()
    assert (refused.sqlstate, refused.reason) == ("08P01", "protocol_violation")


# --- not configured ---

def test_a_branch_without_replicas_has_no_such_feature(router):
    refused = refusal(router, f"app.{BRANCH_18}|replica")
    assert (refused.sqlstate, refused.reason) == ("0A000", "no_replica")


def test_a_branch_without_pgbouncer_has_no_such_feature(router):
    refused = refusal(router, f"app.{BRANCH_18}", listener="pooled")
    assert (refused.sqlstate, refused.reason) == ("0A000", "no_local_pool")


@pytest.mark.parametrize("user", [f"repl.{BRANCH}", f"repl.{BRANCH}|reads"])
@pytest.mark.parametrize("value", ["true", "database"])
def test_replication_on_a_pool_has_no_such_feature(router, user, value):
    refused = refusal(router, user, listener="pooled", parameters={"replication": value})
    assert refused.sqlstate == "0A000"


def test_a_bad_replication_value_is_refused_with_its_name(router):
    with router.open() as wire:
        with pytest.raises(Refused) as caught:  # by the router or by PostgreSQL; both say it like this
            wire.login(f"repl.{BRANCH}", PASSWORDS["repl"], parameters={"replication": "perhaps"})
    assert caught.value.sqlstate == "22023" and "replication" in caught.value.message


# --- temporary ---

def test_no_primary_is_temporary(start_router, world):
    def change(config):
        config["branches"][BRANCH]["members"] = world.members("pg-1", "pg-2")
        config["branches"][BRANCH]["failover"] = {"hold_timeout": "500ms"}

    router = start_router(change)
    for listener in ("direct", "pooled"):
        refused = refusal(router, f"app.{BRANCH}", listener=listener)
        assert refused.sqlstate == "57P03" and refused.reason in {"no_primary", "hold_expired"}
        assert refused.asked and refused.detail and refused.hint
    assert refusal(router, f"app.{BRANCH}", password="wrong").sqlstate == "28P01"
    assert router.login(f"app.{BRANCH}|replica").value("SELECT pg_is_in_recovery()") == "t"


def test_no_replica_up_is_temporary(start_router, world, fresh_port):
    def change(config):
        config["branches"][BRANCH]["members"] = [world.member("pg-0"), world.member("pg-1", port=fresh_port())]

    router = start_router(change)
    refused = refusal(router, f"app.{BRANCH}|replica")
    assert refused.sqlstate == "57P03" and refused.reason in {"no_replica", "hold_expired"}
    assert refused.asked and "replica" in refused.message + refused.detail


def test_libpq_goes_to_its_next_host_after_a_temporary_refusal(start_router, router, world, fresh_port):
    def change(config):
        config["branches"][BRANCH]["members"] = [world.member("pg-0"), world.member("pg-1", port=fresh_port())]

    without = start_router(change)
    result = router.psql("SELECT pg_is_in_recovery()", f"app.{BRANCH}|replica", host="localhost,localhost", hostaddr="127.0.0.1,127.0.0.1",
                         port=f"{without.port()},{router.port()}")
    assert result.stdout == "t"


def test_a_pool_that_does_not_answer_is_temporary(start_router, fresh_port):
    def change(config):
        config["branches"][BRANCH]["pools"]["reads"]["endpoints"] = [{"host": "127.0.0.1", "port": fresh_port()}]

    refused = refusal(start_router(change), f"app.{BRANCH}|reads", listener="pooled")
    assert refused.sqlstate == "57P03" and refused.reason in {"backend_unreachable", "hold_expired"}
    assert refused.asked and refused.detail


def test_a_backend_that_accepts_and_says_nothing_costs_at_most_the_login_deadline(start_router):
    with black_hole() as port:
        def change(config):
            config["branches"][BRANCH]["pools"]["reads"]["endpoints"] = [{"host": "127.0.0.1", "port": port}]
            config["limits"]["startup_timeout"] = "3s"

        router = start_router(change)
        start = time.monotonic()
        refused = refusal(router, f"app.{BRANCH}|reads", listener="pooled")
        assert refused.sqlstate == "57P03" and refused.reason in {"backend_unreachable", "timeout"}
        assert time.monotonic() - start < 6


def test_every_replica_too_far_behind_is_temporary_under_fallback_error(start_router, cluster):
    def change(config):
        config["branches"][BRANCH]["replicas"] = {"max_lag": "1s", "fallback": "error", "samples_out": 2, "samples_in": 2}

    router = start_router(change)
    assert router.login(f"app.{BRANCH}|replica").value("SELECT 1") == "1"
    for replica in cluster.replicas:
        replica.sql("SELECT pg_wal_replay_pause()")
    try:
        cluster.primary.sql("CREATE TABLE lag_maker AS SELECT generate_series(1, 1000) AS n")

        def lagging():
            cluster.primary.sql("INSERT INTO lag_maker VALUES (0)")
            try:
                router.login(f"app.{BRANCH}|replica").wire.close()
            except Refused as refused:
                return refused
            return None

        refused = wait_until(lagging, "the replicas to be seen as lagging", every=0.2)
        assert (refused.sqlstate, refused.reason) == ("57P03", "all_lagging")
        assert " s behind" in refused.detail and "1s" in refused.detail and refused.hint
    finally:
        for replica in cluster.replicas:
            replica.sql("SELECT pg_wal_replay_resume()")
        cluster.primary.sql("DROP TABLE lag_maker")
    cluster.catch_up()
    wait_until(lambda: router.login(f"app.{BRANCH}|replica").value("SELECT 1"), "the replicas to be eligible again", every=0.2)


def test_an_lsn_nobody_has_reached_is_temporary(router):
    refused = refusal(router, f"app.{BRANCH}|replica", parameters={"pointsman.min_lsn": "FFFF/0"})
    assert (refused.sqlstate, refused.reason) == ("57P03", "min_lsn_not_reached")
    assert "FFFF/0" in refused.message + refused.detail


# --- operator faults ---

def _assert_operator_fault(router, refused):
    assert (refused.sqlstate, refused.reason) == ("58000", "backend_fault")
    text = " ".join((refused.message, refused.detail, refused.hint))
    assert "127.0.0.1" not in text and "/" not in text, "the detail of an operator's fault belongs in the log only"
    router.wait_log("backend_fault")


def test_a_pool_whose_certificate_does_not_verify_is_an_operator_fault(start_router, world):
    def change(config):
        config["branches"][BRANCH]["pools"]["app"]["backend_tls"] = {"mode": "verify-full", "ca": world.stranger_authority.certificate}

    router = start_router(change)
    _assert_operator_fault(router, refusal(router, f"app.{BRANCH}|app", listener="pooled"))
    assert router.login(f"app.{BRANCH}|reads", listener="pooled").value("SELECT 1") == "1"


def test_a_local_pgbouncer_whose_certificate_does_not_verify_is_an_operator_fault(start_router, world):
    def change(config):
        config["branches"][BRANCH]["pgbouncer_tls"] = {"mode": "verify-full", "ca": world.stranger_authority.certificate}

    router = start_router(change)
    _assert_operator_fault(router, refusal(router, f"app.{BRANCH}", listener="pooled"))
    assert router.login(f"app.{BRANCH}").value("SELECT 1") == "1"


def test_a_member_whose_name_is_not_in_its_certificate_is_an_operator_fault(start_router, world, secrets):
    def change(config):
        config["branches"][BRANCH]["backend_tls"] = dict(world.backend_tls(), server_name="not.in.the.certificate")
        config["branches"][BRANCH]["auth"] = {"method": "scram", "userlist": secrets.userlist("all.users", world.verifiers)}

    router = start_router(change)
    refused = refusal(router, f"app.{BRANCH}")
    assert refused.sqlstate == "58000"


def test_a_role_the_pool_does_not_know_is_an_operator_fault(router):
    refused = refusal(router, f"stranger.{BRANCH}|reads", listener="pooled", password=PASSWORDS["stranger"])
    _assert_operator_fault(router, refused)
    assert router.login(f"stranger.{BRANCH}").value("SELECT 1") == "1"


def test_a_probe_password_that_is_wrong_is_an_operator_fault(start_router, world, secrets):
    def change(config):
        config["branches"][BRANCH]["probe"] = world.probe(secrets, password_file=secrets.file("wrong.pw", "wrong\n"))
        config["branches"][BRANCH]["auth"] = {"method": "scram", "userlist": secrets.userlist("all.users", world.verifiers)}

    router = start_router(change)
    assert refusal(router, f"app.{BRANCH}").sqlstate == "58000"


# --- what the server itself refuses goes through untouched ---

def test_a_refusal_by_postgresql_arrives_as_postgresql_wrote_it(router, world):
    with router.open() as wire:
        with pytest.raises(Refused) as through:
            wire.login(f"app.{BRANCH}", PASSWORDS["app"], database="nosuchdatabase")
    assert through.value.sqlstate == "3D000" and through.value.message == 'database "nosuchdatabase" does not exist'
    assert through.value.fields["F"] == "postinit.c"


def test_a_connection_limit_of_the_role_is_the_servers_to_enforce(router):
    first = router.login(f"narrow.{BRANCH}")
    with router.open() as wire:
        with pytest.raises(Refused) as second:
            wire.login(f"narrow.{BRANCH}", PASSWORDS["narrow"])
    assert second.value.sqlstate == "53300" and "narrow" in second.value.message
    first.terminate()


# --- silence ---

@pytest.mark.parametrize("stage", ["nothing", "half an SSLRequest", "no ClientHello", "no startup", "half a startup", "no SASL answer"])
def test_a_silent_client_is_closed_by_the_one_login_deadline(start_router, stage):
    router = start_router(lambda config: config["limits"].update(startup_timeout="1s"))
    start = time.monotonic()
    if stage in {"nothing", "half an SSLRequest", "no ClientHello"}:
        wire = Wire(router.port())
        if stage == "half an SSLRequest":
            wire.send_raw(b"\0\0\0\x08")
        if stage == "no ClientHello":
            assert wire.request_tls() == b"S"
    else:
        wire = router.open()
        if stage == "half a startup":
            wire.send(startup_packet({"user": f"app.{BRANCH}"})[:20])
        if stage == "no SASL answer":
            wire.startup(f"app.{BRANCH}")
            assert wire.read_message().type == "R"
    with wire:
        try:
            got = wire.read_message()
            assert got.type == "E" and stage in {"no startup", "half a startup", "no SASL answer"}
        except Closed:
            pass
        wire.expect_end()
    assert time.monotonic() - start < 4
    assert router.login(f"app.{BRANCH}").value("SELECT 1") == "1"


def test_dripping_bytes_do_not_move_the_login_deadline(start_router):
    router = start_router(lambda config: config["limits"].update(startup_timeout="1s"))
    packet = startup_packet({"user": f"app.{BRANCH}", "application_name": "x" * 200})
    start = time.monotonic()
    with router.open() as wire:
        for byte in packet[:-1]:
            try:
                wire.send(bytes([byte]))
            except OSError:
                break
            if time.monotonic() - start > 5:
                break
            time.sleep(0.05)  # the drip itself: a byte every 50 ms would take ten seconds
        wire.wait_closed()
    assert time.monotonic() - start < 4


def test_a_password_right_for_our_verifier_but_not_for_the_pool_is_an_operator_fault(start_router, world, secrets):
    def change(config):
        config["branches"][BRANCH]["auth"] = {"method": "scram", "userlist": secrets.userlist("own.users", {"app": verifier(PASSWORDS["app"])})}

    router = start_router(change)
    assert refusal(router, f"app.{BRANCH}|app", listener="pooled").sqlstate == "58000"
