"""Members by DNS, asked for at a real server: who comes, who goes, and an answer that is empty or does not come."""

import contextlib
import os
import signal

import pytest
from harness.dns import NAME, DnsServer, can_replace_resolv_conf, free_loopback_address
from harness.forwarder import Forwarder
from harness.system import free_port, wait_until
from harness.world import BRANCH

USER = f"app.{BRANCH}"

pytestmark = pytest.mark.skipif(not can_replace_resolv_conf(), reason="needs root: DNS has port 53, and resolv.conf is replaced in a mount namespace")


@pytest.fixture
def dns(folder):
    server = DnsServer(os.path.join(folder, f"dns-{free_port()}"))
    yield server
    server.stop()


@pytest.fixture
def places(world):
    """Each node on an address of its own, all on one port, as pods are: {node name: address}, and the port."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        addresses = {}
        for node in world.cluster.nodes:
            addresses[node.name] = free_loopback_address(port)
            stack.enter_context(Forwarder(node.port, host=addresses[node.name], port=port))
        yield addresses, port


@pytest.fixture
def start_found(start_router, dns, places):
    """A router whose one branch is found by DNS; `listed` are the nodes that DNS names at first."""
    addresses, port = places

    def start(*listed, change=None):
        dns.say([addresses[name] for name in listed])
        dns.start()

        def discovered(config):
            branch = config["branches"][BRANCH]
            del branch["members"]
            branch["discover"] = {"dns": {"name": NAME, "port": port, "interval": "200ms"}}
            branch["backend_tls"] = {"server_name": "localhost"}  # the name that every node's certificate has
            branch["failover"] = {"hold_timeout": "5s"}
            if change:
                change(config)

        return start_router(discovered, prefix=dns.prefix())

    return start


def name_of(address):
    return address.replace(".", "-")


def members(router):
    return {member["name"]: member for member in router.status()["members"]}


def wait_members(router, *addresses):
    wanted = {name_of(address) for address in addresses}
    wait_until(lambda: set(members(router)) == wanted, f"the members to be {sorted(wanted)}")


def discovery(router):
    return router.status()["discovery"]


def test_the_first_login_waits_for_names_and_probes(start_found, places):
    addresses, _ = places
    router = start_found("pg-0", "pg-1", "pg-2")
    assert discovery(router) == {"source": "dns", "state": "unknown", "age_seconds": None, "error": None}
    assert router.status()["members"] == []
    session = router.login(USER)
    assert session.value("SELECT pg_is_in_recovery()") == "f"
    session.terminate()
    replica = router.login(USER + "|replica")
    assert replica.value("SELECT pg_is_in_recovery()") == "t"
    replica.terminate()
    wait_members(router, *addresses.values())
    assert router.status()["primary"] == name_of(addresses["pg-0"])
    now = discovery(router)
    assert (now["source"], now["state"], now["error"]) == ("dns", "ok", None) and now["age_seconds"] < 5
    scraped = router.metrics()
    assert scraped.sum("pointsman_discovery_up", branch=BRANCH) == 1
    assert scraped.sum("pointsman_discovery_failures_total", branch=BRANCH) == 0


def test_members_come_and_go_and_sessions_stay(start_found, places, dns):
    addresses, _ = places
    router = start_found("pg-0", "pg-1")
    router.login(USER).terminate()
    wait_members(router, addresses["pg-0"], addresses["pg-1"])
    kept, replica = router.login(USER), router.login(USER + "|replica")

    dns.say(addresses.values())
    wait_members(router, *addresses.values())
    router.wait_member(name_of(addresses["pg-2"]), role="replica")
    # Each session is still counted where it is, however the members' order has changed.
    counts = {name: member["sessions"] for name, member in members(router).items()}
    assert counts == {name_of(addresses["pg-0"]): 1, name_of(addresses["pg-1"]): 1, name_of(addresses["pg-2"]): 0}

    dns.say([addresses["pg-0"], addresses["pg-2"]])
    wait_members(router, addresses["pg-0"], addresses["pg-2"])
    assert kept.value("SELECT pg_is_in_recovery()") == "f"
    fresh = router.login(USER + "|replica")
    assert fresh.value("SELECT current_setting('cluster_name')") == "pg-2"
    counts = {name: member["sessions"] for name, member in members(router).items()}
    assert counts == {name_of(addresses["pg-0"]): 1, name_of(addresses["pg-2"]): 1}
    for session in (kept, fresh):
        session.terminate()
    wait_until(lambda: [member["sessions"] for member in members(router).values()] == [0, 0], "the counts to be back at 0")
    replica.wire.close()


@pytest.mark.parametrize("trouble", ["an empty answer", "a dead server", "a silent server"])
def test_trouble_with_dns_leaves_the_last_members_in_force(start_found, places, dns, trouble):
    addresses, _ = places
    router = start_found("pg-0", "pg-1", "pg-2")
    kept = router.login(USER)
    wait_members(router, *addresses.values())
    if trouble == "an empty answer":
        dns.say([])
    elif trouble == "a dead server":
        dns.stop()
    else:
        dns._daemon.signal(signal.SIGSTOP)
    wait_until(lambda: discovery(router)["state"] == "stale", "the trouble to be reported")
    wait_until(lambda: router.metrics().sum("pointsman_discovery_failures_total", branch=BRANCH) >= 2, "two failures")
    assert NAME in discovery(router)["error"]
    assert router.metrics().sum("pointsman_discovery_up", branch=BRANCH) == 0
    assert set(members(router)) == {name_of(address) for address in addresses.values()}
    assert kept.value("SELECT 1") == "1"
    for target in ("", "|replica"):
        router.login(USER + target).terminate()
    assert router.log().count("the members known so far stay in force") == 1, "once per change"

    if trouble == "a silent server":
        dns._daemon.signal(signal.SIGCONT)
    dns.say([addresses["pg-0"], addresses["pg-1"]])
    if trouble == "a dead server":
        dns.start()
    wait_members(router, addresses["pg-0"], addresses["pg-1"])
    assert discovery(router)["state"] == "ok" and discovery(router)["error"] is None
    router.wait_log("discovery \\(dns\\) answers again")
    kept.terminate()


def test_a_login_is_refused_in_time_while_nobody_is_known(start_found):
    """The hold ends with 57P03, and says that no primary is there; nothing is invented."""
    from harness.wire import Refused
    router = start_found(change=lambda config: config["branches"][BRANCH].update(failover={"hold_timeout": "1s"}))
    with pytest.raises(Refused) as refused:
        router.login(USER)
    assert refused.value.sqlstate == "57P03"
    assert discovery(router)["state"] == "stale"
    router.wait_log("it has named no member yet")


def test_a_reload_keeps_what_was_found(start_found, places):
    addresses, _ = places
    router = start_found("pg-0", "pg-1", "pg-2")
    kept = router.login(USER)
    wait_members(router, *addresses.values())
    branch = router.config["branches"][BRANCH]
    branch["discover"]["dns"]["interval"] = "300ms"
    branch["labels"] = {"app": "changed"}
    assert router.reload(router.config) == "ok"
    assert router.status()["primary"] == name_of(addresses["pg-0"])
    assert set(members(router)) == {name_of(address) for address in addresses.values()}
    # From discovered to listed, and back; what is the same member stays one.
    port = branch["discover"]["dns"]["port"]
    found = branch.pop("discover")
    branch["members"] = [{"name": name_of(addresses[name]), "host": addresses[name], "port": port} for name in ("pg-0", "pg-1")]
    assert router.reload(router.config) == "ok"
    wait_members(router, addresses["pg-0"], addresses["pg-1"])
    assert "discovery" not in router.status()
    del branch["members"]
    branch["discover"] = {"dns": {**found["dns"], "name": "unknown.pointsman.test"}}
    assert router.reload(router.config) == "ok"
    wait_until(lambda: discovery(router)["state"] == "stale", "the other name to be asked for in vain")
    assert set(members(router)) == {name_of(addresses["pg-0"]), name_of(addresses["pg-1"])}, "nobody has named others"
    branch["discover"] = found
    assert router.reload(router.config) == "ok"
    wait_members(router, *addresses.values())
    assert kept.value("SELECT 1") == "1"
    kept.terminate()
