"""A branch that nobody uses costs no connection; the first login wakes its probes and waits for their verdict."""

import pytest
from harness.system import wait_until
from harness.wire import Refused
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"


@pytest.fixture
def start_counted(start_router, world, secrets):
    """A router whose probes log in by a role of their own, so that the servers can count them."""
    wait_until(lambda: probes(world) == 0, "the probes of the last test to be gone")

    def start(change=None):
        def with_own_probe(config):
            config["defaults"]["probe"] = world.probe(secrets, user="countedprobe", password_file=secrets.password("countedprobe"))
            if change:
                change(config)

        return start_router(with_own_probe)

    return start


def probes(world, *nodes):
    """Connections of the router's own to any PostgreSQL, or to the ones given: probes and look-ups."""
    return sum(node.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'countedprobe'")
               for node in nodes or (*world.cluster.nodes, world.node_18))


def test_an_unused_branch_is_listed_and_not_probed(start_counted):
    router = start_counted()
    status = router.status()
    assert (status["active"], status["primary"]) == (False, None)
    assert [(member["name"], member["role"], member["state"]) for member in status["members"]] == [
        (name, "unknown", "unknown") for name in ("pg-0", "pg-1", "pg-2")]
    assert all(member["lag_seconds"] is None and member["lag_bytes"] is None for member in status["members"])
    assert probes(router.world) == 0
    assert not router.metrics().has("pointsman_member_up", branch=BRANCH)


def test_the_first_login_wakes_the_probes_and_waits_for_their_verdict(start_counted):
    for target, recovering in (("", "f"), ("|replica", "t")):
        router = start_counted()  # a cold one for each
        session = router.login(USER + target)
        assert session.value("SELECT pg_is_in_recovery()") == recovering
        assert router.status()["active"] is True
        session.terminate()
        wait_until(lambda: probes(router.world, router.world.cluster.primary) >= 1, "the primary to be probed")


def test_a_stranger_naming_a_cold_branch_gets_in_no_further_than_anyone(start_counted):
    """A wrong password on a cold branch may wake it, but asks each member at most once or twice."""
    router = start_counted()
    for _ in range(10):
        with router.open() as wire, pytest.raises(Refused) as refused:
            wire.login(USER, "wrong")
        assert refused.value.sqlstate == "28P01"
    assert probes(router.world) <= 2 * 3 + 1


def test_probes_end_when_nobody_has_used_the_branch_for_a_while(start_counted):
    def change(config):
        config["defaults"]["probe"]["idle_after"] = "1s"

    router = start_counted(change)
    router.login(USER).terminate()
    assert router.status()["active"] is True
    wait_until(lambda: not router.status()["active"], "the branch to fall asleep")
    wait_until(lambda: probes(router.world) <= 1, "the probes to end; one connection for look-ups may stay for a minute")
    router.login(f"{USER}|replica").terminate()
    assert router.status()["active"] is True


def test_a_branch_in_use_stays_awake_however_long(start_counted):
    def change(config):
        config["defaults"]["probe"]["idle_after"] = "1s"

    router = start_counted(change)
    session = router.login(USER)
    for _ in range(25):  # two and a half seconds of the session's life
        session.query("SELECT pg_sleep(0.1)")
    assert router.status()["active"] is True
    session.terminate()


def test_five_hundred_branches_cost_nothing_until_they_are_used(start_counted):
    def change(config):
        for number in range(500):
            config["branches"][f"b{number}"] = config["branches"][BRANCH]

    router = start_counted(change)
    assert probes(router.world) == 0
    router.login("app.b250").terminate()
    active = [name for name, status in router.api("/api/status")["branches"].items() if status["active"]]
    assert active == ["b250"]
    assert probes(router.world) <= 2 * 3 + 1
    assert router.login("app.b499", PASSWORDS["app"]).value("SELECT 1") == "1"
