"""Sessions whose server leaves: members and endpoints taken out by a reload, endpoints that are being replaced. And branches by TLS name."""

import copy
import time

import pytest
from harness.router import role_of
from harness.wire import Refused, open_tls, tls_context
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"
CLUSTER = "SELECT current_setting('cluster_name')"


def told(session):
    refused = session.wire.expect_refusal()
    return refused.sqlstate, refused.reason


def test_a_member_taken_out_ends_its_sessions_when_they_are_idle(start_router):
    router = start_router()
    sessions = {}
    while len(sessions) < 2:
        session = router.login(f"{USER}|replica")
        sessions.setdefault(session.value(CLUSTER), session)
    busy = router.login(f"{USER}|replica")
    while busy.value(CLUSTER) != "pg-2":
        busy.terminate()
        busy = router.login(f"{USER}|replica")
    busy.query("BEGIN")
    config = copy.deepcopy(router.config)
    config["branches"][BRANCH]["members"] = [member for member in config["branches"][BRANCH]["members"] if member["name"] != "pg-2"]
    router.reload(config)
    assert told(sessions["pg-2"]) == ("57P01", "removed")
    assert busy.value("SELECT 1") == "1"  # in its transaction
    busy.query("COMMIT")
    assert told(busy) == ("57P01", "removed")
    assert sessions["pg-1"].value(CLUSTER) == "pg-1"
    router.wait_log(r"session ended .*end=removed")


def two_endpoints(world, **second):
    return {"target": "replica", "drain_timeout": "1s",
            "endpoints": [{"host": "127.0.0.1", "port": world.reads.port},
                          {"host": "127.0.0.1", "port": world.local_pools["pg-2"].port, **second}]}


@pytest.fixture
def router_with_two(start_router, world):
    def change(config):
        config["branches"][BRANCH]["pools"]["two"] = two_endpoints(world)

    return start_router(change)


def on_both(router):
    sessions = {}
    while len(sessions) < 2:
        session = router.login(f"{USER}|two", listener="pooled")
        sessions.setdefault(session.value(CLUSTER), session)
    return sessions


def test_an_endpoint_that_is_draining_takes_no_new_sessions_and_keeps_the_old_ones_for_a_while(router_with_two, world):
    router = router_with_two
    sessions = on_both(router)
    config = copy.deepcopy(router.config)
    config["branches"][BRANCH]["pools"]["two"] = two_endpoints(world, draining=True)
    router.reload(config)
    started = time.monotonic()
    for _ in range(8):
        session = router.login(f"{USER}|two", listener="pooled")
        assert session.value(CLUSTER) == "pg-1"
        session.terminate()
    assert sessions["pg-2"].value(CLUSTER) == "pg-2"
    assert told(sessions["pg-2"]) == ("57P01", "draining")
    assert time.monotonic() - started > 0.5
    assert sessions["pg-1"].value(CLUSTER) == "pg-1"


def test_draining_that_is_taken_back_ends_nothing(router_with_two, world):
    router = router_with_two
    sessions = on_both(router)
    plain, draining = copy.deepcopy(router.config), copy.deepcopy(router.config)
    draining["branches"][BRANCH]["pools"]["two"] = two_endpoints(world, draining=True)
    router.reload(draining)
    router.reload(plain)
    time.sleep(1.5)  # longer than the drain_timeout: nothing may come
    assert {name: session.value(CLUSTER) for name, session in sessions.items()} == {"pg-1": "pg-1", "pg-2": "pg-2"}


def test_an_endpoint_taken_out_ends_its_sessions(router_with_two, world):
    router = router_with_two
    sessions = on_both(router)
    config = copy.deepcopy(router.config)
    config["branches"][BRANCH]["pools"]["two"]["endpoints"].pop()
    router.reload(config)
    assert told(sessions["pg-2"]) == ("57P01", "removed")
    assert sessions["pg-1"].value(CLUSTER) == "pg-1"


# --- the branch by TLS name ---

DOMAIN = "pg.pointsman.test"


@pytest.fixture
def router_by_name(start_router, world):
    def change(config):
        template = next(entry for entry in config["listeners"] if entry["name"] == "fixed")
        template.pop("branch")
        template["branch_from_sni"] = DOMAIN

    return start_router(change)


def log_in(router, server_name, user="app"):
    wire = open_tls(router.port("fixed"), tls_context(), host=server_name)
    try:
        return wire.login(user, PASSWORDS[role_of(user)], database="app")
    except BaseException:
        wire.close()
        raise


def test_the_branch_comes_from_the_tls_server_name(router_by_name):
    router = router_by_name
    session = log_in(router, f"{BRANCH}.{DOMAIN}")
    assert session.value(CLUSTER) == "pg-0"
    assert [row["branch"] for row in router.sessions()] == [BRANCH]
    assert log_in(router, f"{BRANCH.upper()}.{DOMAIN}").value(CLUSTER) == "pg-0"
    assert log_in(router, f"{BRANCH}.{DOMAIN}", f"app.{BRANCH}").value("SELECT current_user") == "app"  # an exact tail is removed


@pytest.mark.parametrize("name", ["localhost", f"{BRANCH}.elsewhere.test", f"a.{BRANCH}.{DOMAIN}", DOMAIN])
def test_a_server_name_that_names_no_branch_is_refused(router_by_name, name):
    with pytest.raises(Refused) as refused:
        log_in(router_by_name, name)
    assert (refused.value.sqlstate, refused.value.reason) == ("28000", "bad_user")
    assert DOMAIN in refused.value.hint


def test_an_unknown_branch_in_the_server_name_is_refused(router_by_name):
    with pytest.raises(Refused) as refused:
        log_in(router_by_name, f"nowhere.{DOMAIN}")
    assert (refused.value.sqlstate, refused.value.reason) == ("28000", "unknown_branch")


def test_two_keys_for_the_branch_are_refused_by_check(router_by_name):
    config = copy.deepcopy(router_by_name.config)
    next(entry for entry in config["listeners"] if entry["name"] == "fixed")["branch"] = BRANCH
    router_by_name.write_config(config)
    result = router_by_name.command("check", "--config", router_by_name.path)
    assert result.returncode == 1
    assert "/branch_from_sni: stands beside" in result.stderr + result.stdout
