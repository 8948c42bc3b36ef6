"""Members and leader by EndpointSlices, from a FAKE API server (harness/kubernetes.py) over TLS; the PostgreSQL behind them is real."""

import contextlib
import json
import os

import pytest
from harness.forwarder import Forwarder
from harness.dns import free_loopback_address
from harness.kubernetes import NAMESPACE, FakeKubernetes, endpoint, slice_of
from harness.system import free_port, wait_until
from harness.wire import Refused
from harness.world import BRANCH

USER = f"app.{BRANCH}"
ALL, LEADER = "orders-r", "orders-rw"


class Places:
    """Each node on an address of its own, all on one port, as pods are."""

    def __init__(self, world, stack):
        self.port = free_port()
        self.addresses = {}
        for node in world.cluster.nodes:
            self.addresses[node.name] = free_loopback_address(self.port)
            stack.enter_context(Forwarder(node.port, host=self.addresses[node.name], port=self.port))
        self.ports = [{"name": "metrics", "port": 9187, "protocol": "TCP"}, {"name": "postgres", "port": self.port, "protocol": "TCP"}]

    def all(self, *names, **more):
        return slice_of("orders-r-abcde", ALL, [endpoint(name, self.addresses[name], zone="a", **more) for name in names], ports=self.ports)

    def leader(self, *names):
        return slice_of("orders-rw-fghij", LEADER, [endpoint(name, self.addresses[name]) for name in names], ports=self.ports)


@pytest.fixture
def places(world):
    with contextlib.ExitStack() as stack:
        yield Places(world, stack)


@pytest.fixture
def api(world, secrets, folder):
    certificate, key = world.authority.issue("kubernetes", ("IP:127.0.0.1",))
    fake = FakeKubernetes(certificate, key, "first-token")
    secrets.file("service-account-token", "first-token\n")
    yield fake
    fake.close()


@pytest.fixture
def start_found(start_router, world, secrets, api):
    def start(source=None, environment=None, **branch):
        def discovered(config):
            kubernetes = {"namespace": NAMESPACE, "service": ALL, "leader_service": LEADER, "api": api.url(),
                          "ca": world.authority.certificate, "token_file": os.path.join(secrets.folder, "service-account-token"),
                          **(source or {})}
            config["branches"] = {BRANCH: {
                "discover": {"kubernetes": {key: value for key, value in kubernetes.items() if value is not None}},
                "backend_tls": {"server_name": "localhost"}, "failover": {"hold_timeout": "5s"}, **branch}}
            config["listeners"] = [listener for listener in config["listeners"] if listener["name"] in ("direct", "fixed")]

        return start_router(discovered, environment=environment)

    return start


def members(router):
    return {member["name"]: member for member in router.status()["members"]}


def discovery(router):
    return router.status()["discovery"]


def wait_members(router, *names):
    wait_until(lambda: set(members(router)) == set(names), f"the members to be {names}")


def begin(start_found, places, api, *names, **options):
    names = names or ("pg-0", "pg-1", "pg-2")
    api.put(places.all(*names), places.leader("pg-0"))
    router = start_found(**options)
    router.login(USER).terminate()
    wait_members(router, *names)
    wait_until(lambda: api.watching() == 1, "the watch to be open")
    return router


def test_members_are_listed_and_then_watched(start_found, places, api):
    router = begin(start_found, places, api, "pg-0", "pg-1")
    assert router.status()["primary"] == "pg-0"
    assert discovery(router)["source"] == "kubernetes" and discovery(router)["state"] == "ok"
    kept = router.login(USER)
    api.put(places.all("pg-0", "pg-1", "pg-2"))
    wait_members(router, "pg-0", "pg-1", "pg-2")
    router.wait_member("pg-2", role="replica")
    api.put(places.all("pg-0", "pg-2"))
    wait_members(router, "pg-0", "pg-2")
    assert router.login(USER + "|replica").value("SELECT current_setting('cluster_name')") == "pg-2"
    assert kept.value("SELECT pg_is_in_recovery()") == "f"
    # A second slice of the same service, and its end.
    extra = slice_of("orders-r-second", ALL, [endpoint("pg-1", places.addresses["pg-1"])], ports=places.ports)
    api.put(extra)
    wait_members(router, "pg-0", "pg-1", "pg-2")
    api.delete("orders-r-second")
    wait_members(router, "pg-0", "pg-2")
    assert len(api.asked(watch=False)) == 1 and len(api.asked(watch=True)) == 1, "one list, one watch"
    kept.terminate()


def test_a_pod_that_ends_is_left_out_once_it_serves_no_more(start_found, places, api):
    router = begin(start_found, places, api)
    slices = places.all("pg-0", "pg-1", "pg-2")
    slices["endpoints"][1]["conditions"] = {"ready": False, "serving": True, "terminating": True}
    slices["endpoints"][2]["conditions"] = {"ready": False, "serving": False, "terminating": False}
    api.put(slices)
    version = api.bookmark()
    assert int(version) > 0
    for name in ("pg-1", "pg-2"):  # not ready is Kubernetes' opinion; the probe's counts
        router.wait_member(name, role="replica")
    slices = json.loads(json.dumps(slices))
    slices["endpoints"][1]["conditions"]["serving"] = False
    api.put(slices)
    wait_members(router, "pg-0", "pg-2")


def test_a_dropped_watch_goes_on_where_it_was(start_found, places, api):
    router = begin(start_found, places, api, "pg-0", "pg-1")
    version = api.bookmark()
    for number in range(3):
        api.drop_connections()
        wait_until(lambda: len(api.asked(watch=True)) == 2 + number and api.watching() == 1, "the watch to be opened again")
        assert int(api.asked(watch=True)[-1]["resourceVersion"]) >= (int(version) if number else 0)
    api.put(places.all("pg-0", "pg-1", "pg-2"))
    wait_members(router, "pg-0", "pg-1", "pg-2")
    assert api.asked(watch=True)[-1]["allowWatchBookmarks"] == "true"
    assert len(api.asked(watch=False)) == 1, "nothing was listed anew"
    assert discovery(router)["state"] == "ok"


@pytest.mark.parametrize("how", ["an event", "a status"])
def test_a_version_that_is_too_old_lists_anew(start_found, places, api, how):
    router = begin(start_found, places, api, "pg-0", "pg-1")
    api.forget_history()
    with api._lock:  # changed while nobody could watch
        changed = places.all("pg-0", "pg-2")
        changed["metadata"]["resourceVersion"] = str(api._version)
        api._slices["orders-r-abcde"] = changed
    if how == "an event":
        api.say_to_watches(json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired",
                                                                   "message": "too old resource version"}}) + "\n")
    else:
        api.drop_connections()
    wait_members(router, "pg-0", "pg-2")
    assert len(api.asked(watch=False)) == 2
    wait_until(lambda: api.watching() == 1, "the watch to be open again")
    assert discovery(router)["state"] == "ok"


@pytest.mark.parametrize("garbage", ["not JSON\n", '{"type": "MODIFIED", "object": {"kind": "EndpointSlice"}}\n',
                                     '{"type": "SURPRISE", "object": {"metadata": {"resourceVersion": "5"}}}\n', "x" * 300_000],
                         ids=["no JSON", "no name", "unknown type", "too long"])
def test_an_event_that_is_none_is_reported_and_everything_is_listed_anew(start_found, places, api, garbage):
    router = begin(start_found, places, api)
    api.say_to_watches(garbage)
    wait_until(lambda: router.metrics().sum("pointsman_discovery_failures_total", branch=BRANCH) == 1, "the failure to be counted")
    wait_until(lambda: len(api.asked(watch=False)) == 2 and api.watching() == 1, "a new list and watch")
    wait_until(lambda: discovery(router)["state"] == "ok", "discovery to be well")
    assert set(members(router)) == {"pg-0", "pg-1", "pg-2"}


def test_an_api_server_out_of_order_leaves_the_last_members_in_force(start_found, places, api):
    router = begin(start_found, places, api)
    kept = router.login(USER)
    api.refuse(500)
    api.drop_connections()
    wait_until(lambda: discovery(router)["state"] == "stale", "the trouble to be reported")
    assert "status 500: out of order on purpose" in discovery(router)["error"]
    assert set(members(router)) == {"pg-0", "pg-1", "pg-2"}
    for target in ("", "|replica"):
        router.login(USER + target).terminate()
    assert kept.value("SELECT 1") == "1"
    asked = len(api.requests)
    api.refuse(None)
    wait_until(lambda: discovery(router)["state"] == "ok", "the API server to be found well")
    assert len(api.requests) - asked < 20, "asked with pauses, not in a loop"
    kept.terminate()


def test_a_service_without_endpoints_leaves_the_last_members_in_force(start_found, places, api):
    router = begin(start_found, places, api)
    api.put(places.leader(), places.all())
    wait_until(lambda: discovery(router)["state"] == "stale", "the empty service to be reported")
    assert "no endpoint" in discovery(router)["error"]
    assert set(members(router)) == {"pg-0", "pg-1", "pg-2"}
    router.login(USER).terminate()
    api.put(places.all("pg-0", "pg-1"))
    wait_members(router, "pg-0", "pg-1")
    assert discovery(router)["state"] == "ok"


def test_the_token_is_read_anew(start_found, places, api, secrets):
    """Tokens rotate: the next request has the new one; a wrong one is 401, and reported."""
    router = begin(start_found, places, api)
    api.token = "second-token"
    api.drop_connections()
    wait_until(lambda: discovery(router)["state"] == "stale", "the old token to be refused")
    assert "status 401: Unauthorized" in discovery(router)["error"]
    secrets.file("service-account-token", "second-token")
    wait_until(lambda: discovery(router)["state"] == "ok", "the new token to be used")
    assert "second-token" not in router.log() and "first-token" not in router.log()


def test_the_named_leader_is_the_one_of_its_service(start_found, places, api):
    """Who leads is verified; that the service names a replica makes no primary, and does not unmake one."""
    router = begin(start_found, places, api)
    api.put(places.leader("pg-1"))
    api.bookmark()
    router.login(USER).terminate()
    assert router.status()["primary"] == "pg-0"


def test_a_server_that_cannot_prove_itself_is_not_believed(start_found, world, places, api):
    api.put(places.all("pg-0"), places.leader("pg-0"))
    router = start_found({"ca": world.stranger_authority.certificate}, failover={"hold_timeout": "1s"})
    with pytest.raises(Refused) as refused:
        router.login(USER)
    assert refused.value.sqlstate == "57P03"
    assert "certificate" in discovery(router)["error"]
    assert api.requests == [], "no token was sent"


def test_the_api_server_by_the_pods_environment(start_found, places, api):
    api.put(places.all("pg-0", "pg-1"), places.leader("pg-0"))
    router = start_found({"api": None}, environment={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)})
    router.login(USER).terminate()
    wait_members(router, "pg-0", "pg-1")


def test_a_port_and_a_zone_by_name(start_found, places, api):
    ports = [{"name": "web", "port": 80, "protocol": "TCP"}, {"name": "db", "port": places.port, "protocol": "TCP"},
             {"name": "pooler", "port": 6432, "protocol": "TCP"}]
    api.put(slice_of("orders-r-abcde", ALL, [endpoint("pg-0", places.addresses["pg-0"], zone="b")], ports=ports))
    router = start_found({"port_name": "db", "pgbouncer_port_name": "pooler", "leader_service": None})
    router.login(USER).terminate()
    wait_members(router, "pg-0")
    assert api.asked(watch=False)[0]["labelSelector"] == f"kubernetes.io/service-name in ({ALL})"
