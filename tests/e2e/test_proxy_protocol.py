"""Behind a load balancer: listeners that require a PROXY header, version 1 or 2, from trusted sources only."""

import socket
import struct

import pytest
from harness.wire import SSL_REQUEST, Wire
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(family, payload, command=1, version=2):
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack("!H", len(payload)) + payload


def v2_ipv4(source="192.0.2.77", port=40001, tlvs=b""):
    return v2(0x11, socket.inet_aton(source) + socket.inet_aton("198.51.100.1") + struct.pack("!HH", port, 5432) + tlvs)


def v2_ipv6(source="2001:db8::77", port=40002):
    return v2(0x21, socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
              + struct.pack("!HH", port, 5432))


def behind(router, header, **options):
    wire = Wire(router.port("proxied"), **options)
    wire.send_raw(header)
    return wire


def logged_in(router, wire):
    assert wire.request_tls() == b"S"
    wire.start_tls(router.tls())
    return wire.login(USER, PASSWORDS["app"])


def client_of(router, session):
    pid = session.pid
    return next(str(entry) for entry in router.sessions() if str(pid) in str(entry))


@pytest.mark.parametrize("header, address", [
    (v2_ipv4(), "192.0.2.77"),
    (v2_ipv4(tlvs=b"\x04\x00\x03abc" + b"\xea\x00\x0d\x01vpce-0123456"), "192.0.2.77"),
    (v2_ipv6(), "2001:db8::77"),
    (b"PROXY TCP4 192.0.2.78 198.51.100.1 40003 5432\r\n", "192.0.2.78"),
    (b"PROXY TCP6 2001:db8::78 2001:db8::1 40004 5432\r\n", "2001:db8::78"),
])
def test_the_true_client_address_is_known(router, header, address):
    session = logged_in(router, behind(router, header))
    assert address in client_of(router, session)
    session.terminate()


@pytest.mark.parametrize("header", [v2(0x00, b"", command=0), v2(0x00, b""), b"PROXY UNKNOWN\r\n",
                                    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"])
def test_a_header_without_an_address_leaves_the_connections_own(router, header):
    session = logged_in(router, behind(router, header))
    assert "127.0.0.1" in client_of(router, session)
    session.terminate()


def test_a_header_cut_into_single_bytes_is_the_same_header(router):
    for header in (v2_ipv4(), b"PROXY TCP4 192.0.2.78 198.51.100.1 40003 5432\r\n"):
        session = logged_in(router, behind(router, header, chunk=1))
        assert "192.0.2.7" in client_of(router, session)
        session.terminate()


def test_header_and_first_packet_may_come_in_one_segment(router):
    wire = behind(router, v2_ipv4() + SSL_REQUEST)
    assert wire.read_exact(1) == b"S"
    wire.start_tls(router.tls())
    wire.login(USER, PASSWORDS["app"]).terminate()


def test_direct_tls_works_behind_a_header(router):
    wire = behind(router, v2_ipv4())
    wire.start_tls(router.tls(alpn=["postgresql"]))
    wire.login(USER, PASSWORDS["app"]).terminate()


@pytest.mark.parametrize("bad", [
    SSL_REQUEST,
    b"PROXY TCP4 192.0.2.78 198.51.100.1 40003\r\n",
    b"PROXY TCP4 192.0.2.999 198.51.100.1 40003 5432\r\n",
    b"PROXY TCP5 192.0.2.78 198.51.100.1 40003 5432\r\n",
    b"PROXY TCP4 192.0.2.78 198.51.100.1 40003 99999\r\n",
    b"PROXY TCP4 " + b"1" * 120,
    v2_ipv4()[:16] + v2_ipv4()[20:] + SSL_REQUEST,  # four bytes short: it swallows half of the SSLRequest
    v2(0x11, b"\1\2\3"),
    v2(0x11, b"", version=3),
    v2(0x11, socket.inet_aton("1.2.3.4") * 2 + b"\0\1\0\2" + b"\x04\xff\xff", command=1),
    v2(0x11, b"x" * 537),
    v2(0x11, socket.inet_aton("1.2.3.4") * 2 + b"\0\1\0\2", command=7),
])
def test_anything_but_a_good_header_is_closed_without_a_byte(router, bad):
    with behind(router, bad) as wire:
        wire.expect_end()


def test_a_header_from_an_untrusted_source_is_noise(start_router):
    def change(config):
        next(entry for entry in config["listeners"] if entry["name"] == "proxied")["trusted_proxies"] = ["10.0.0.0/8"]

    router = start_router(change)
    with behind(router, v2_ipv4()) as wire:
        wire.expect_end()


def test_a_header_where_none_is_expected_is_noise(router):
    for header in (v2_ipv4(), b"PROXY TCP4 192.0.2.78 198.51.100.1 40003 5432\r\n"):
        with Wire(router.port("direct")) as wire:
            wire.send_raw(header + SSL_REQUEST)
            wire.expect_end()


def test_access_rules_judge_the_true_address(start_router):
    def change(config):
        config["branches"][BRANCH]["access"] = {"allow": ["192.0.2.0/24"]}

    router = start_router(change)
    logged_in(router, behind(router, v2_ipv4("192.0.2.77"))).terminate()
    wire = behind(router, v2_ipv4("203.0.113.5"))
    wire.request_tls()
    wire.start_tls(router.tls())
    wire.startup(USER)
    refused = wire.expect_refusal()
    assert (refused.sqlstate, refused.reason) == ("28000", "not_allowed")
    wire.close()


def test_a_missing_header_costs_at_most_the_login_deadline(start_router):
    router = start_router(lambda config: config["limits"].update(startup_timeout="1s"))
    with behind(router, v2_ipv4()[:10]) as wire:
        assert wire.wait_closed() < 4
