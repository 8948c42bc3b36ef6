"""The first bytes of a connection: TLS negotiation in all its forms, protocol versions, and startup packets as they should not be."""

import contextlib
import ssl
import struct

import pytest
from harness.wire import (Closed, GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, PROTOCOL_GREASE, Refused, SSL_REQUEST, Wire, error_fields,
                          message, open_direct_tls, open_tls, startup_packet, tls_context)
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"
MAX_STARTUP = 10_000 + 4  # PostgreSQL's MAX_STARTUP_PACKET_LENGTH counts what follows the length word


def works(session):
    assert session.value("SELECT 'alive'") == "alive"
    session.terminate()


# --- negotiating TLS ---

def test_ssl_request_is_answered_s_and_then_tls(router):
    works(router.login(USER))


def test_gssenc_request_is_answered_n_and_an_ssl_request_may_follow(router):
    wire = Wire(router.port())
    wire.send_raw(GSSENC_REQUEST)
    assert wire.read_exact(1) == b"N"
    assert wire.request_tls() == b"S"
    wire.start_tls(router.tls())
    works(wire.login(USER, PASSWORDS["app"]))


def test_a_second_gssenc_request_is_not_answered_again(router):
    with Wire(router.port()) as wire:
        wire.send_raw(GSSENC_REQUEST)
        assert wire.read_exact(1) == b"N"
        wire.send_raw(GSSENC_REQUEST)
        _assert_violation_or_close(wire)


@pytest.mark.parametrize("request_bytes", [SSL_REQUEST, GSSENC_REQUEST])
def test_no_encryption_is_negotiated_inside_tls(router, request_bytes):
    with router.open() as wire:
        wire.send(request_bytes)
        refused = wire.expect_refusal()
        assert refused.sqlstate in {"08P01", "0A000"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(router, version):
    wire = router.open(context=router.tls(minimum=version, maximum=version))
    assert wire.tls.version() == version.name.replace("_", ".")
    works(wire.login(USER, PASSWORDS["app"]))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_tls_1_1_is_refused_with_an_alert(router):
    context = tls_context(maximum=ssl.TLSVersion.TLSv1_1, minimum=ssl.TLSVersion.TLSv1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with Wire(router.port()) as wire:
        assert wire.request_tls() == b"S"
        with pytest.raises((ssl.SSLError, Closed)):
            wire.start_tls(context)


def test_only_aead_suites_are_offered_with_tls_1_2(router):
    context = router.tls(maximum=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with Wire(router.port()) as wire:
        wire.request_tls()
        with pytest.raises((ssl.SSLError, Closed)):
            wire.start_tls(context)


def test_a_listener_may_require_tls_1_3(start_router):
    router = start_router(lambda config: config["tls"].update(min_version="1.3"))
    works(router.login(USER))
    with Wire(router.port()) as wire:
        wire.request_tls()
        with pytest.raises((ssl.SSLError, Closed)):
            wire.start_tls(router.tls(maximum=ssl.TLSVersion.TLSv1_2))


def test_direct_tls_with_the_postgresql_alpn_needs_no_ssl_request(router):
    wire = router.open_direct()
    assert wire.tls.selected_alpn_protocol() == "postgresql"
    works(wire.login(USER, PASSWORDS["app"]))
    works(router.login(f"{USER}|app", listener="pooled", wire=router.open_direct("pooled")))


@pytest.mark.parametrize("alpn", [None, ("http/1.1",), ("postgres",)])
def test_direct_tls_without_the_postgresql_alpn_is_refused(router, alpn):
    with contextlib.suppress(ssl.SSLError, Closed):  # TLS 1.3 lets the client finish its side before it hears of an alert
        with router.open_direct(alpn=alpn) as wire:
            wire.startup(USER)
            refused = wire.expect_refusal()  # or it is told inside TLS
            assert refused.sqlstate == "08P01" and "postgresql" in refused.message


def test_an_alpn_after_ssl_request_is_answered_when_it_is_ours(router):
    wire = open_tls(router.port(), router.tls(alpn=["postgresql"]))
    assert wire.tls.selected_alpn_protocol() == "postgresql"
    works(wire.login(USER, PASSWORDS["app"]))


@pytest.mark.parametrize("smuggled", ["a startup", "a ClientHello", "one byte"])
def test_bytes_in_the_clear_behind_ssl_request_are_refused(router, smuggled):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = router.tls().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    behind = {"a startup": startup_packet({"user": USER}), "a ClientHello": outgoing.read(), "one byte": b"\0"}[smuggled]
    with Wire(router.port()) as wire:
        wire.send_raw(SSL_REQUEST + behind)
        _assert_violation_or_close(wire)


def _assert_violation_or_close(wire):
    """A plain close is allowed before a valid header in clear text; an answer is an ErrorResponse with nothing behind it."""
    rest = wire.read_to_end()
    if rest:
        assert rest[:1] == b"E", rest
        length = struct.unpack("!I", rest[1:5])[0]
        assert error_fields(rest[5:1 + length])["C"] in {"08P01", "0A000"}
        assert len(rest) == 1 + length


def test_bytes_in_the_clear_behind_gssenc_request_are_refused(router):
    with Wire(router.port()) as wire:
        wire.send_raw(GSSENC_REQUEST + startup_packet({"user": USER}))
        _assert_violation_or_close(wire)


def test_a_listener_without_tls_says_n_and_serves_plaintext(router):
    wire = router.open_plain("off")
    assert wire.request_tls() == b"N"
    works(wire.login(USER, PASSWORDS["app"]))


def test_a_listener_with_optional_tls_serves_both(router):
    works(router.open_plain("fixed-plain").login("app", PASSWORDS["app"]))
    works(router.open("fixed-plain").login("app", PASSWORDS["app"]))


def test_the_server_name_the_client_indicates_does_not_matter(router):
    for name in ("localhost", "x" * 63 + ".example"):
        context = tls_context()
        works(open_tls(router.port(), context, host=name).login(USER, PASSWORDS["app"]))


# --- versions ---

def test_protocol_3_0_gets_a_short_key_and_no_negotiation(router):
    session = router.login(USER, version=PROTOCOL_3_0)
    assert len(session.secret) == 4 and session.negotiations == []
    works(session)


def test_protocol_3_2_gets_a_long_key_and_no_negotiation(router):
    for user, listener in ((USER, "direct"), (f"{USER}|replica", "direct"), (f"{USER}|app", "pooled")):
        session = router.login(user, listener=listener, version=PROTOCOL_3_2)
        assert 4 < len(session.secret) <= 256 and session.negotiations == []
        works(session)


def test_grease_is_answered_by_exactly_one_negotiation(router):
    session = router.login(USER, version=PROTOCOL_GREASE, parameters={"_pq_.test_protocol_negotiation": "", "application_name": "grease"})
    assert session.negotiations == [(PROTOCOL_3_2, ["_pq_.test_protocol_negotiation"])]
    assert session.value("SHOW application_name") == "grease"
    works(session)


def test_an_unknown_protocol_option_at_a_known_version_is_named_too(router):
    session = router.login(USER, version=PROTOCOL_3_0, parameters={"_pq_.one": "1", "_pq_.two": ""})
    assert session.negotiations == [(PROTOCOL_3_0, ["_pq_.one", "_pq_.two"])]
    works(session)


def test_two_hundred_protocol_options_cost_no_more_than_their_bytes(router):
    names = [f"_pq_.o{number}" for number in range(200)]
    session = router.login(USER, version=PROTOCOL_GREASE, parameters={name: "" for name in names})
    assert session.negotiations == [(PROTOCOL_3_2, names)]
    works(session)


@pytest.mark.parametrize("version", [2 << 16, 1 << 16, 4 << 16, 0, 3 << 24])
def test_every_other_major_version_is_refused(router, version):
    with router.open() as wire:
        wire.send(startup_packet({"user": USER}, version))
        assert wire.expect_refusal().sqlstate == "0A000"


# --- packets ---

def _raw_startup(body, version=PROTOCOL_3_0):
    body = struct.pack("!I", version) + body
    return struct.pack("!I", len(body) + 4) + body


@pytest.mark.parametrize("length", [0, 1, 4, 7, MAX_STARTUP + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_bad_length_is_refused_at_once_and_its_body_never_awaited(router, length):
    with router.open() as wire:
        wire.send(struct.pack("!I", length))
        try:
            refused = wire.expect_refusal()
            assert refused.sqlstate == "08P01"
        except Closed:
            pytest.fail("inside TLS the client is told")


@pytest.mark.parametrize("length", [0, 7, MAX_STARTUP + 1, 0x80000000])
def test_a_bad_length_in_the_clear_is_closed(router, length):
    with Wire(router.port()) as wire:
        wire.send_raw(struct.pack("!I", length))
        _assert_violation_or_close(wire)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 64, b"\0" * 64])
def test_noise_is_closed(router, noise):
    with Wire(router.port()) as wire:
        wire.send_raw(noise)
        _assert_violation_or_close(wire)


@pytest.mark.parametrize("body", [
    b"user\0" + USER.encode() + b"\0",                      # no terminator
    b"user\0" + USER.encode() + b"\0\0x",                   # a byte behind it
    b"user\0" + USER.encode() + b"\0\0application_name\0x\0\0",  # a second list behind it
    b"user\0" + USER.encode() + b"\0database\0",            # a key without its value
    b"user\0" + USER.encode(),                              # an unterminated value
    b"user",
])
def test_a_bad_layout_is_a_protocol_violation(router, body):
    with router.open() as wire:
        wire.send(_raw_startup(body))
        refused = wire.expect_refusal()
    assert (refused.sqlstate, refused.reason) == ("08P01", "protocol_violation")


@pytest.mark.parametrize("body", [b"\0", b""])
def test_an_empty_parameter_list_is_refused(router, body):
    with router.open() as wire:
        wire.send(_raw_startup(body))
        assert wire.expect_refusal().sqlstate in {"28000", "08P01"}


@pytest.mark.parametrize("name, values", [("user", (USER, f"reader.{BRANCH}")), ("database", ("app", "reader"))])
def test_user_or_database_twice_is_refused(router, name, values):
    pairs = [("user", USER)] if name == "database" else []
    with router.open() as wire:
        wire.send(startup_packet([*pairs, *((name, value) for value in values)]))
        refused = wire.expect_refusal()
    assert refused.sqlstate == "08P01"


def test_any_other_repeated_parameter_is_forwarded_and_the_last_one_counts(router):
    session = router.login(USER, parameters=[("application_name", "first"), ("TimeZone", "UTC"), ("application_name", "last")])
    assert session.value("SHOW application_name") == "last"
    works(session)


def test_parameters_may_come_in_any_order(router):
    wire = router.open()
    wire.send(startup_packet([("client_encoding", "LATIN1"), ("database", "app"), ("application_name", "x"), ("user", USER), ("DateStyle", "German")]))
    session = wire.authenticate(PASSWORDS["app"])
    assert session.query("SELECT current_setting('client_encoding'), current_setting('DateStyle')") == [["LATIN1", "German, DMY"]]
    works(session)


def test_an_empty_value_is_a_value(router):
    session = router.login(USER, parameters=[("application_name", ""), ("options", "")], database="")
    assert session.query("SELECT current_setting('application_name'), current_database()") == [["", "app"]]
    works(session)


@pytest.mark.parametrize("excess, accepted", [(-1, True), (0, True), (1, False)])
def test_the_limit_of_a_startup_packet_is_ten_thousand_bytes(router, excess, accepted):
    room = MAX_STARTUP + excess - len(startup_packet([("user", USER), ("application_name", "")]))
    packet = startup_packet([("user", USER), ("application_name", "x" * room)])
    assert len(packet) == MAX_STARTUP + excess
    wire = router.open()
    wire.send(packet)
    if accepted:
        session = wire.authenticate(PASSWORDS["app"])
        assert session.value("SHOW application_name") == "x" * 63
        works(session)
    else:
        assert wire.expect_refusal().sqlstate == "08P01"
        wire.close()


@pytest.mark.parametrize("user, listener", [(USER, "direct"), (f"{USER}|replica", "direct"), (f"{USER}|app", "pooled")])
def test_a_login_cut_into_single_bytes_is_the_same_login(router, user, listener):
    wire = Wire(router.port(listener), chunk=1)
    assert wire.request_tls() == b"S"
    wire.start_tls(router.tls())
    works(wire.login(user, PASSWORDS["app"]))


def test_a_plaintext_login_cut_into_single_bytes_is_the_same_login(router):
    works(router.open_plain("off", chunk=1).login(USER, PASSWORDS["app"]))


def test_direct_tls_cut_into_single_bytes_is_the_same_login(router):
    wire = open_direct_tls(router.port(), router.tls(alpn=["postgresql"]), chunk=1)
    works(wire.login(USER, PASSWORDS["app"]))


def test_the_parameter_status_of_the_backend_arrives_untouched(router, cluster):
    with open_tls(cluster.primary.port, router.tls()) as direct:
        expected = direct.login("app", PASSWORDS["app"]).parameters
    session = router.login(USER)
    assert session.parameters == expected
    works(session)


def test_an_unknown_parameter_is_the_backends_to_refuse(router):
    with router.open() as wire:
        with pytest.raises(Refused) as caught:
            wire.login(USER, PASSWORDS["app"], parameters={"sslmode": "disable"})
    assert caught.value.sqlstate == "42704" and "sslmode" in caught.value.message


def test_a_message_before_the_startup_is_noise(router):
    with router.open() as wire:
        wire.send(message("Q", b"SELECT 1\0"))
        assert wire.expect_refusal().sqlstate in {"08P01", "0A000"}


def test_after_all_this_an_honest_login_works(router):
    works(router.login(USER))
