"""The harness tells the truth: what the other tests ask the router, asked of the servers themselves."""

import pytest
from harness.bouncer import VIA
from harness.scram import verifier
from harness.wire import PROTOCOL_3_2, Refused, Wire, open_direct_tls, open_tls, tls_context
from harness.world import PASSWORDS


def _open(port, world, **options):
    return open_tls(port, tls_context(world.authority.certificate), **options)


def test_the_raw_client_logs_in_to_postgresql_by_scram_with_and_without_channel_binding(world):
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"):
        session = _open(world.cluster.primary.port, world).login("app", PASSWORDS["app"], mechanism=mechanism)
        assert session.mechanisms == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]
        assert session.value("SELECT inet_server_port()") == str(world.cluster.primary.port)
        session.terminate()


def test_the_raw_client_speaks_byte_by_byte(world):
    session = _open(world.cluster.primary.port, world, chunk=1).login("a.b", PASSWORDS["a.b"])
    assert session.query("SELECT current_user, current_database(), NULL") == [["a.b", "a.b", None]]
    session.terminate()


def test_the_raw_client_speaks_direct_tls_and_protocol_3_2_with_postgresql_18(world):
    context = tls_context(world.authority.certificate, alpn=["postgresql"])
    session = open_direct_tls(world.node_18.port, context).login("app", PASSWORDS["app"], version=PROTOCOL_3_2)
    assert len(session.secret) == 32 and not session.negotiations
    session.terminate()


def test_a_refusal_is_reported_with_its_fields(world):
    with _open(world.cluster.primary.port, world) as wire:
        with pytest.raises(Refused) as refused:
            wire.login("app", "wrong")
    assert refused.value.sqlstate == "28P01" and refused.value.reason == "auth_failed"


def test_the_replicas_replay_and_refuse_to_write(world):
    lsn = world.cluster.catch_up()
    for replica in world.cluster.replicas:
        assert replica.value("SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,))


@pytest.mark.parametrize("pool, node", [("reads", "pg-1"), ("app", "pg-0"), ("local-pg-0", "pg-0"), ("local-pg-2", "pg-2")])
def test_every_pgbouncer_logs_in_by_verifier_alone_and_names_itself(world, pool, node):
    bouncer = next(made for made in (world.reads, world.app, *world.local_pools.values()) if made.name == pool)
    with _open(bouncer.port, world) as wire:
        session = wire.login("app", PASSWORDS["app"])
        assert session.query(f"SELECT inet_server_port(), {VIA}") == [[str(world.cluster.named(node).port), pool]]
    with Wire(bouncer.port) as plain:
        assert plain.login("app", PASSWORDS["app"]).value("SELECT 1") == "1"


def test_our_own_verifiers_are_what_postgresql_understands(world):
    world.cluster.primary.sql(f"CREATE ROLE made_here LOGIN PASSWORD '{verifier('from python')}'")
    session = _open(world.cluster.primary.port, world).login("made_here", "from python", database="postgres")
    assert session.value("SELECT current_user") == "made_here"
    session.terminate()
    world.cluster.primary.sql("DROP ROLE made_here")


def test_the_probe_role_of_deploy_sql_reads_verifiers_without_being_superuser(world):
    for node in (world.cluster.primary, world.node_18):
        assert node.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'pointsman'") is False
        with _open(node.port, world) as wire:
            session = wire.login("pointsman", PASSWORDS["pointsman"], database="postgres")
            [[name, found]] = session.query("SELECT rolname, verifier FROM pointsman.get_verifier('app')")
            assert (name, found) == ("app", node.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'"))
