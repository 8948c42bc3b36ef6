"""What the router tells about itself: metrics by the names of the contract, and one log line for every session."""

import json
import re

import psycopg
import pytest
from harness.system import wait_until
from harness.wire import Refused
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"


@pytest.fixture(scope="module")
def traffic(router):
    """A bit of everything, so that every series has a reason to exist."""
    router.login(USER).query("SELECT 1")
    for user, listener in ((USER, "direct"), (f"{USER}|replica", "direct"), (USER, "pooled"), (f"{USER}|reads", "pooled"), (f"{USER}|app", "pooled")):
        router.login(user, listener=listener).terminate()
    for user in ("app.nosuchbranch", f"{USER}|reads", USER):
        with router.open() as wire, pytest.raises(Refused):
            wire.login(user, "x")
    return router


@pytest.mark.parametrize("name", [
    "pointsman_connections_active", "pointsman_connections_total", "pointsman_routing_decisions_total", "pointsman_routing_refusals_total",
    "pointsman_replica_lag_seconds", "pointsman_replica_lag_bytes", "pointsman_replica_lag_limit_seconds", "pointsman_lag_sample_age_seconds",
    "pointsman_member_up", "pointsman_member_is_primary", "pointsman_member_eligible", "pointsman_probe_failures_total",
    "pointsman_pool_endpoint_connections", "pointsman_pool_endpoint_up", "pointsman_roundtrip_seconds_bucket", "pointsman_login_seconds_bucket", "pointsman_login_seconds_count", "pointsman_bytes_total",
    "pointsman_cancel_requests_total", "pointsman_auth_failures_total", "pointsman_verifier_lookups_total", "pointsman_tls_handshakes_total",
    "pointsman_config_reloads_total", "pointsman_config_last_success_timestamp_seconds", "pointsman_config_branches_rejected",
    "pointsman_certificate_expiry_timestamp_seconds", "pointsman_branch_info", "pointsman_build_info", "pointsman_limit",
    "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total",
])
def test_a_series_of_the_contract_exists(traffic, name):
    assert traffic.metrics().has(name)


def test_every_metric_has_help_and_type(traffic):
    text = traffic.metrics().text
    described = set(re.findall(r"^# HELP (\S+) .", text, re.M)) & set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    for name in traffic.metrics().names():
        assert name in described or re.sub(r"_(bucket|sum|count)$", "", name) in described, name


@pytest.mark.parametrize("user, listener, route, reason", [
    (USER, "direct", "primary", "primary"), (f"{USER}|replica", "direct", "replica", "replica_best"), (USER, "pooled", "local_pool", "local_pool"),
    (f"{USER}|reads", "pooled", "pool", "named_pool")])
def test_a_decision_is_counted_once_by_route_and_reason(router, user, listener, route, reason):
    name = "pointsman_routing_decisions_total"
    before = router.metrics()
    router.login(user, listener=listener).terminate()
    wait_until(lambda: router.metrics().sum(name, branch=BRANCH, route=route, reason=reason)
               == before.sum(name, branch=BRANCH, route=route, reason=reason) + 1, "the decision to be counted")
    assert router.metrics().sum(name) == before.sum(name) + 1


def test_a_refusal_is_counted_by_reason_and_never_by_what_the_client_typed(router):
    name = "pointsman_routing_refusals_total"
    before = router.metrics().sum(name, reason="unknown_branch", listener="direct")
    with router.open() as wire, pytest.raises(Refused):
        wire.login("app.typedbyaclient", "x")
    wait_until(lambda: router.metrics().sum(name, reason="unknown_branch", listener="direct") == before + 1, "the refusal to be counted")
    assert "typedbyaclient" not in router.metrics().text


def test_connections_in_flight_are_a_gauge(router):
    def active():
        return router.metrics().sum("pointsman_connections_active", branch=BRANCH, route="replica")

    before = active()
    session = router.login(f"{USER}|replica")
    wait_until(lambda: active() == before + 1, "the session to be counted")
    session.terminate()
    wait_until(lambda: active() == before, "the session to leave the count")


def test_bytes_are_counted_by_direction(router):
    def counted():
        """The two directions, the smaller number first."""
        return sorted(router.metrics().all("pointsman_bytes_total", branch=BRANCH, route="primary").values())

    session = router.login(USER)
    session.query("SELECT repeat('x', 100000000)")  # so much more than anything before that the order below is certain
    wait_until(lambda: counted()[-1] >= 100_000_000, "the answer to be counted")
    before = counted()
    session.query("SELECT length('" + "y" * 500_000 + "')")
    session.query("SELECT repeat('x', 1000000)")
    session.terminate()
    wait_until(lambda: counted()[0] - before[0] >= 500_000 and counted()[1] - before[1] >= 1_000_000, "both directions to be counted")


def test_a_login_is_timed_in_phases(router):
    def phases():
        return {dict(labels)["phase"]: value for labels, value in
                router.metrics().all("pointsman_login_seconds_count", listener="direct").items()}

    before = phases()
    router.login(USER).terminate()
    wait_until(lambda: all(phases().get(phase, 0) > before.get(phase, 0) for phase in ("tls", "startup", "auth", "connect", "total")),
               "every phase to be timed")


def test_a_request_is_timed_to_its_ready_for_query(start_router):
    """Simple, extended and pipelined; a branch with roundtrip_metric has histograms of its own, the others share one."""
    name = "pointsman_roundtrip_seconds"

    def own(config):
        config["branches"][BRANCH]["roundtrip_metric"] = True

    for change, labels in ((None, {}), (own, {"branch": BRANCH})):
        router = start_router(change)
        with psycopg.connect(**router.libpq(f"{USER}|replica", listener="direct", database="app"), autocommit=True) as session:
            session.execute("SELECT pg_sleep(0.06)", prepare=False)  # one round trip
            with session.pipeline():
                for _ in range(5):
                    session.execute("SELECT %s", (1,))  # one Sync at the end
            session.pgconn.exec_(b"SELECT 1")
            metrics = router.metrics()
        assert metrics.sum(f"{name}_count", route="replica", **labels) == 3
        assert metrics.sum(f"{name}_count") == 3 and metrics.sum(f"{name}_sum") >= 0.06
        assert metrics.sum(f"{name}_bucket", route="replica", le="0.0512", **labels) == 2
        assert all(("branch", BRANCH) in key if labels else not any(label == "branch" for label, _ in key)
                   for key in metrics.all(f"{name}_count"))


def test_a_pool_endpoint_is_up_or_down_by_what_became_of_the_last_session(start_router, world):
    def quick(config):
        config["defaults"]["failover"] = {"hold_timeout": "200ms"}

    router = start_router(quick)
    up = lambda: router.metrics().all("pointsman_pool_endpoint_up", branch=BRANCH, pool="app")  # noqa: E731
    router.login(USER).terminate()
    assert up() == {}
    router.login(f"{USER}|app", listener="pooled").terminate()
    assert list(up().values()) == [1]
    world.app.kill()
    try:
        with pytest.raises(Refused):
            router.login(f"{USER}|app", listener="pooled")
        wait_until(lambda: list(up().values()) == [0], "the endpoint to be down")
        assert router.metrics().sum("pointsman_dial_failures_total", branch=BRANCH, route="pool") >= 1
        pool = next(entry for entry in router.status()["pools"] if entry["name"] == "app")
        assert pool["endpoints"][0]["state"] == "down"
    finally:
        world.app.start()
    router.login(f"{USER}|app", listener="pooled").terminate()
    wait_until(lambda: list(up().values()) == [1], "the endpoint to be up")


def test_lag_is_known_for_replicas_only(router):
    router.wait_member("pg-1", role="replica")
    members = {dict(labels)["member"] for labels in router.metrics().all("pointsman_replica_lag_seconds", branch=BRANCH)}
    assert members == {"pg-1", "pg-2"}
    assert router.metrics().sum("pointsman_member_is_primary", branch=BRANCH) == 1


def test_the_labels_of_a_branch_are_in_its_info(router):
    [labels] = router.metrics().all("pointsman_branch_info", branch=BRANCH)
    assert dict(labels)["app"] == "orders"


# --- the log ---

def test_the_end_of_a_session_is_one_line_with_everything(router):
    session = router.login(f"reader.{BRANCH}|replica", parameters={"application_name": "logged"})
    port = session.wire.socket.getsockname()[1]
    session.query("SELECT repeat('x', 12345)")
    session.terminate()
    line = wait_until(lambda: [line for line in router.log().splitlines() if f":{port}" in line and "reader" in line and "replica_best" in line],
                      "the line of the session")[-1]
    for word in ("reader", BRANCH, "replica", "pg-", "replica_best", "127.0.0.1"):
        assert word in line
    assert max(int(number) for number in re.findall(r"\b\d+\b", line)) >= 12345, "bytes are in the line"


def test_text_of_a_client_is_escaped_in_the_log(router):
    evil = 'evil"\n2030-01-01 forged line \x1b[31m'
    with router.open() as wire, pytest.raises(Refused):
        wire.login(f"{evil}.{BRANCH}", "x")
    router.wait_log(r"evil")
    assert not [line for line in router.log().splitlines() if line.startswith("2030-01-01")]
    assert "\x1b" not in router.log()


def test_json_logs_are_one_document_a_line(start_router):
    router = start_router(lambda config: config["log"].update(format="json"))
    router.login(USER).terminate()
    with router.open() as wire, pytest.raises(Refused):
        wire.login('quo"te\n\xff.nosuch', "x")
    router.stop()
    documents = [json.loads(line) for line in router.log().splitlines()]
    assert any(BRANCH in json.dumps(document) for document in documents)


def test_a_query_never_reaches_the_log(router):
    session = router.login(USER, PASSWORDS["app"])
    session.query("SELECT 'a very secret literal'")
    session.terminate()
    assert "a very secret literal" not in router.log()
