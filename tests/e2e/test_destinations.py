"""The five destinations: the user name picks the server, and the server sees only the role."""

import psycopg
import pytest
from harness.bouncer import VIA
from harness.router import conninfo
from harness.system import clean_environment
from harness.world import BRANCH, BRANCH_18, PASSWORDS

WHERE = f"SELECT inet_server_port(), pg_is_in_recovery(), {VIA}, current_user, session_user, current_database()"


def landed(router, user, listener, sql=WHERE, **options):
    return router.psql(sql, user, listener=listener, **options).stdout.split("|")


def test_no_target_on_the_direct_port_is_the_primary(router, cluster):
    assert landed(router, f"app.{BRANCH}", "direct") == [str(cluster.primary.port), "f", "", "app", "app", "app"]


def test_target_primary_on_the_direct_port_is_the_primary(router, cluster):
    assert landed(router, f"app.{BRANCH}|primary", "direct")[:3] == [str(cluster.primary.port), "f", ""]


def test_target_replica_on_the_direct_port_is_one_of_the_replicas(router, cluster):
    port, recovering, via, *who = landed(router, f"app.{BRANCH}|replica", "direct")
    assert port in {str(node.port) for node in cluster.replicas}
    assert (recovering, via, who) == ("t", "", ["app", "app", "app"])


def test_sessions_spread_over_both_replicas(router, cluster):
    ports = set()
    sessions = []
    try:
        for _ in range(12):
            session = router.login(f"reader.{BRANCH}|replica")
            sessions.append(session)
            ports.add(int(session.value("SELECT inet_server_port()")))
    finally:
        for session in sessions:
            session.wire.close()
    assert ports == {node.port for node in cluster.replicas}


@pytest.mark.parametrize("target", ["", "|primary"])
def test_no_target_on_the_pooled_port_is_the_pgbouncer_beside_the_primary(router, cluster, target):
    assert landed(router, f"app.{BRANCH}{target}", "pooled") == [str(cluster.primary.port), "f", "local-pg-0", "app", "app", "app"]


def test_a_replica_pool_is_reached_by_its_name(router, cluster):
    assert landed(router, f"app.{BRANCH}|reads", "pooled")[:3] == [str(cluster.named("pg-1").port), "t", "reads"]


def test_a_primary_pool_is_reached_by_its_name(router, cluster):
    assert landed(router, f"app.{BRANCH}|app", "pooled")[:3] == [str(cluster.primary.port), "f", "app"]


@pytest.mark.parametrize("separator", ["%7C", "%7c"])
@pytest.mark.parametrize("listener, target, recovering", [("direct", "replica", "t"), ("pooled", "reads", "t"), ("pooled", "app", "f")])
def test_the_percent_encoded_pipe_is_a_pipe(router, separator, listener, target, recovering):
    assert landed(router, f"app.{BRANCH}{separator}{target}", listener)[1] == recovering


def test_a_url_with_an_encoded_pipe_works_with_libpq_decoding_it_and_without(router):
    for encoded in ("%7C", "%257C"):
        url = (f"postgresql://app.{BRANCH}{encoded}replica@localhost:{router.port()}/app?hostaddr=127.0.0.1&sslmode=verify-full"
               f"&sslrootcert={router.world.authority.certificate}")
        with psycopg.connect(url, password=PASSWORDS["app"]) as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


def test_a_role_with_a_dot_is_split_at_the_last_dot(router):
    for listener, target in (("direct", ""), ("direct", "|replica"), ("pooled", ""), ("pooled", "|reads")):
        assert landed(router, f"a.b.{BRANCH}{target}", listener)[3:] == ["a.b", "a.b", "a.b"]


def test_a_missing_database_is_the_role_name(router):
    for listener, target in (("direct", ""), ("direct", "|replica"), ("pooled", ""), ("pooled", "|app")):
        session = router.login(f"reader.{BRANCH}{target}", listener=listener)  # the raw client names no database
        assert session.value("SELECT current_database()") == "reader"
        session.terminate()


def test_a_database_that_is_given_is_kept(router):
    assert landed(router, f"reader.{BRANCH}", "direct", database="app")[3:] == ["reader", "reader", "app"]
    assert landed(router, f"reader.{BRANCH}|reads", "pooled", database="app")[3:] == ["reader", "reader", "app"]


def test_the_backend_never_sees_branch_or_target(router, cluster):
    session = router.login(f"app.{BRANCH}|primary", parameters={"application_name": "who am i"})
    [seen] = cluster.primary.sql("SELECT usename, datname, application_name FROM pg_stat_activity WHERE pid = %s",
                                 (int(session.value("SELECT pg_backend_pid()")),))
    assert seen == ("app", "app", "who am i")
    session.terminate()
    assert BRANCH not in cluster.primary.log()


@pytest.mark.parametrize("listener, user, expected", [
    ("fixed", "app", "f"), ("fixed", f"app.{BRANCH}", "f"), ("fixed", f"app.{BRANCH}|primary", "f"), ("fixed-replica", "app", "t"),
    ("fixed-replica", f"app.{BRANCH}|replica", "t"),
])
def test_a_listener_with_a_fixed_branch_takes_the_whole_name_as_the_role(router, listener, user, expected):
    assert landed(router, user, listener, database="app", password=PASSWORDS["app"])[1:4] == [expected, "", "app"]


def test_on_a_fixed_listener_a_dotted_role_needs_no_branch(router):
    assert landed(router, "a.b", "fixed", database="a.b", password=PASSWORDS["a.b"])[3:] == ["a.b", "a.b", "a.b"]


def test_a_fixed_listener_may_name_a_pool_and_serve_plaintext(router, cluster):
    got = landed(router, "app", "fixed-plain", database="app", password=PASSWORDS["app"], sslmode="disable")
    assert got[:4] == [str(cluster.primary.port), "f", "app", "app"]
    assert landed(router, "app", "fixed-plain", database="app", password=PASSWORDS["app"])[2] == "app"  # optional: TLS works too


def test_a_default_pool_is_what_no_target_means_on_the_pooled_port(start_router):
    def change(config):
        config["branches"][BRANCH]["default_pool"] = "app"

    router = start_router(change)
    assert landed(router, f"app.{BRANCH}", "pooled")[2] == "app"
    assert landed(router, f"app.{BRANCH}|primary", "pooled")[2] == "app"


def test_a_pool_with_several_endpoints_uses_them_all(start_router, world):
    def change(config):
        config["branches"][BRANCH]["pools"]["reads"]["endpoints"] = [
            {"host": "127.0.0.1", "port": world.local_pools[name].port} for name in ("pg-1", "pg-2")]

    router = start_router(change)
    seen, sessions = set(), []
    for _ in range(12):
        session = router.login(f"app.{BRANCH}|reads", listener="pooled")
        sessions.append(session)
        seen.add(session.value(f"SELECT {VIA}"))
    for session in sessions:
        session.wire.close()
    assert seen == {"local-pg-1", "local-pg-2"}


def test_a_dead_endpoint_of_a_pool_is_passed_over(start_router, world, fresh_port):
    def change(config):
        config["branches"][BRANCH]["pools"]["reads"]["endpoints"].append({"host": "127.0.0.1", "port": fresh_port()})

    router = start_router(change)
    for _ in range(8):
        session = router.login(f"app.{BRANCH}|reads", listener="pooled")
        assert session.value(f"SELECT {VIA}") == "reads"
        session.terminate()


def test_two_branches_behind_one_address_do_not_mix(router, world):
    assert landed(router, f"app.{BRANCH_18}", "direct", "SHOW server_version_num")[0].startswith("18")
    assert landed(router, f"app.{BRANCH}", "direct", "SHOW server_version_num")[0].startswith("15")


def test_verify_full_holds_and_a_wrong_name_or_authority_does_not(router, world):
    parameters = router.libpq(f"app.{BRANCH}", database="app")
    psycopg.connect(conninfo(parameters)).close()
    for changed in ({"host": "elsewhere.test"}, {"sslrootcert": world.stranger_authority.certificate}):
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            psycopg.connect(conninfo(dict(parameters, **changed)))


def test_a_host_name_of_a_member_is_resolved(start_router, world):
    def change(config):
        for member in config["branches"][BRANCH]["members"]:
            member["host"] = "localhost"

    router = start_router(change)
    assert landed(router, f"app.{BRANCH}", "direct")[1] == "f"
    assert landed(router, f"app.{BRANCH}|replica", "direct")[1] == "t"


@pytest.mark.parametrize("mode", ["disable", "require", "verify-ca", "verify-full"])
def test_every_backend_tls_mode_reaches_the_backend_as_said(start_router, world, mode):
    def change(config):
        tls = {"mode": mode}
        if mode.startswith("verify"):
            tls["ca"] = world.authority.certificate
        config["defaults"]["backend_tls"] = tls

    router = start_router(change)
    for user, listener in ((f"app.{BRANCH}", "direct"), (f"app.{BRANCH}|app", "pooled")):
        session = router.login(user, listener=listener)
        assert session.value("SELECT 1") == "1"
        if listener == "direct":
            assert session.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == ("f" if mode == "disable" else "t")
        session.terminate()


def test_server_name_is_what_a_backend_certificate_is_compared_with(start_router, world):
    def change(config):
        config["branches"][BRANCH]["backend_tls"] = dict(world.backend_tls(), server_name="localhost")

    assert landed(start_router(change), f"app.{BRANCH}", "direct")[1] == "f"


def test_the_libpq_of_postgresql_18_reaches_every_destination(router, world):
    environment = world.postgresql_18.client_environment()
    for listener, target, recovering in (("direct", "", "f"), ("direct", "|replica", "t"), ("pooled", "", "f"), ("pooled", "|reads", "t"),
                                         ("pooled", "|app", "f")):
        for negotiation in ("postgres", "direct"):
            got = landed(router, f"app.{BRANCH}{target}", listener, environment=environment, sslnegotiation=negotiation)
            assert got[1] == recovering


def test_the_environment_of_the_tests_steers_no_client():
    assert not [key for key in clean_environment() if key.startswith("PG")]
