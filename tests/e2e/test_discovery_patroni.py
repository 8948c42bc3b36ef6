"""Members and leader by a real Patroni: found, switched over, and Patroni gone."""

import itertools
import os
import signal
import time

import pytest
from harness.patroni import PatroniCluster
from harness.system import free_port, wait_until
from harness.wire import Refused
from harness.world import BRANCH

USER = f"app.{BRANCH}"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def patroni(world, folder):
    made = PatroniCluster(world, os.path.join(folder, f"patroni-{next(_numbers)}"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def start_found(start_router):
    def start(patroni, source=None, **branch):
        def discovered(config):
            urls = [member.url() for member in patroni.members]
            config["branches"] = {BRANCH: {"discover": {"patroni": source or {"urls": urls, "interval": "500ms"}}, **branch}}
            config["listeners"] = [listener for listener in config["listeners"] if listener["name"] in ("direct", "fixed")]
            config["defaults"]["failover"] = {"hold_timeout": "20s", "grace": "3s"}

        return start_router(discovered)

    return start


def members(router):
    return {member["name"]: member for member in router.status()["members"]}


def discovery(router):
    return router.status()["discovery"]


def test_members_and_leader_are_found(start_found, patroni):
    router = start_found(patroni)
    leader = patroni.leader()
    session = router.login(USER)
    assert session.value("SELECT pg_is_in_recovery()") == "f"
    wait_until(lambda: set(members(router)) == {"pg-0", "pg-1", "pg-2"}, "all members")
    assert router.status()["primary"] == leader
    for member in patroni.members:
        router.wait_member(member.name, role="primary" if member.name == leader else "replica")
    replica = router.login(USER + "|replica")
    assert replica.value("SELECT pg_is_in_recovery()") == "t"
    assert discovery(router)["state"] == "ok"
    for one in (session, replica):
        one.terminate()


def test_a_switchover(start_found, patroni):
    """Logins during it are held and land on the new leader; nobody reaches a node that is not."""
    router = start_found(patroni)
    before = patroni.leader()
    after = next(member.name for member in patroni.members if member.name != before)
    router.login(USER).terminate()
    for member in patroni.members:
        router.wait_member(member.name, role="primary" if member.name == before else "replica")
    wait_until(patroni.named(after).streams, f"{after} to stream")
    begun = time.monotonic()
    patroni.switch_over(after)
    session = router.login(USER)
    assert session.value("SELECT pg_is_in_recovery()") == "f"
    wait_until(lambda: router.status()["primary"] == after, f"{after} to be the primary", deadline=30)
    print(f"\nfrom patronictl switchover to the new primary in force: {time.monotonic() - begun:.2f} s")
    router.wait_member(before, role="replica")
    assert router.login(USER).value("SELECT current_setting('port')") == str(patroni.named(after).port)
    session.wire.close()


def test_the_named_leader_has_a_veto(start_found, patroni):
    """A member that is promoted behind Patroni's back takes writes on a higher timeline, and is not the primary as long as Patroni names another."""
    router = start_found(patroni)
    router.login(USER).terminate()
    leader = patroni.leader()
    wait_until(lambda: router.status()["primary"] == leader, "the leader to be the primary")
    rogue = next(member for member in patroni.members if member.name != leader)
    wait_until(rogue.streams, "the rogue to stream")
    rogue.signal(signal.SIGSTOP)  # its Patroni would demote it at once
    try:
        rogue.sql("SELECT pg_promote()")
        router.wait_member(rogue.name, state="unknown", role="unknown")
        for _ in range(10):
            session = router.login(USER)
            assert session.value("SELECT current_setting('port')") == str(patroni.named(leader).port)
            session.terminate()
        assert router.status()["primary"] == leader
    finally:
        rogue.signal(signal.SIGCONT)
        patroni.ctl("reinit", "pointsman-test", rogue.name, "--force")
        wait_until(rogue.streams, "the rogue to be a replica again", deadline=60)


def test_patroni_gone_leaves_the_last_members_in_force(start_found, patroni):
    router = start_found(patroni)
    kept = router.login(USER)
    wait_until(lambda: set(members(router)) == {"pg-0", "pg-1", "pg-2"}, "all members")
    for member in patroni.members:  # the REST interface hangs, PostgreSQL goes on
        member.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: discovery(router)["state"] == "stale", "the silence to be reported")
        assert "Patroni at http://127.0.0.1:" in discovery(router)["error"]
        assert router.metrics().sum("pointsman_discovery_up", branch=BRANCH) == 0
        assert set(members(router)) == {"pg-0", "pg-1", "pg-2"}
        for target in ("", "|replica"):
            router.login(USER + target).terminate()
        assert kept.value("SELECT 1") == "1"
    finally:
        for member in patroni.members:
            member.signal(signal.SIGCONT)
    wait_until(lambda: discovery(router)["state"] == "ok", "Patroni to answer again")
    kept.terminate()


def test_a_dead_node_is_passed_over_and_the_one_that_answers_is_kept(start_found, patroni):
    dead = f"http://127.0.0.1:{free_port()}"
    router = start_found(patroni, [dead, patroni.members[1].url()])
    router.login(USER).terminate()
    assert discovery(router)["state"] == "ok"
    assert router.metrics().sum("pointsman_discovery_failures_total", branch=BRANCH) == 0


def test_tls_and_a_replica_that_takes_no_reads(world, folder, start_found):
    """HTTPS is verified; a member tagged noloadbalance is none; a tagged zone is the member's."""
    made = PatroniCluster(world, os.path.join(folder, f"patroni-{next(_numbers)}"), tls=True,
                          tags={"pg-0": {"zone": "a"}, "pg-1": {"noloadbalance": True}, "pg-2": {"zone": "b"}})
    try:
        made.start()
        urls = [member.url() for member in made.members]
        router = start_found(made, {"urls": urls, "ca": world.authority.certificate, "interval": "500ms"})
        router.login(USER).terminate()
        wait_until(lambda: set(members(router)) == {"pg-0", "pg-2"}, "the members that take reads")
        assert {router.login(USER + "|replica").value("SELECT current_setting('port')") for _ in range(4)} == {str(made.named("pg-2").port)}

        stranger = start_found(made, {"urls": urls, "ca": world.stranger_authority.certificate}, failover={"hold_timeout": "1s"})
        with pytest.raises(Refused) as refused:
            stranger.login(USER)
        assert refused.value.sqlstate == "57P03"
        assert "certificate" in discovery(stranger)["error"], discovery(stranger)
        assert discovery(stranger)["state"] == "stale"
    finally:
        made.stop()
