"""Bounds: connections in all and per branch, descriptors, and strangers who take up room."""

import contextlib
import os
import resource
import select

from harness.system import run, wait_until
from harness.wire import Closed, Refused, Wire
from harness.world import BRANCH, BRANCH_18, PASSWORDS

USER = f"app.{BRANCH}"


def attempt(router, user=USER, **options):
    """A session, or what was said instead."""
    try:
        return router.login(user, **options)
    except (Refused, Closed, OSError) as error:
        return error


def test_a_branch_has_a_limit_of_its_own(start_router):
    router = start_router(lambda config: config["limits"].update(max_connections_per_branch=2))
    first, second = router.login(USER), router.login(f"{USER}|replica")
    refused = attempt(router)
    assert isinstance(refused, Refused) and (refused.sqlstate, refused.reason) == ("53300", "limit")
    router.login(f"app.{BRANCH_18}").terminate()  # the neighbour has room
    first.terminate()
    third = wait_until(lambda: (got := attempt(router)) and not isinstance(got, Exception) and got, "the freed place to be had")
    for session in (second, third):
        assert session.value("SELECT 1") == "1"


def test_a_full_router_says_so_and_recovers(start_router):
    router = start_router(lambda config: config["limits"].update(max_connections=3))
    sessions = [router.login(USER) for _ in range(3)]
    refused = attempt(router)
    assert isinstance(refused, (Closed, OSError)) or refused.sqlstate == "57P03" and refused.reason == "limit"
    for session in sessions:
        assert session.value("SELECT 1") == "1"
    sessions.pop().terminate()
    wait_until(lambda: not isinstance(attempt(router), Exception), "the freed place to be had")


def test_silent_strangers_do_not_keep_honest_clients_out(start_router):
    def change(config):
        config["workers"] = 1
        config["limits"].update(max_connections=200, startup_timeout="60s")

    router = start_router(change)
    with contextlib.ExitStack() as strangers:
        silent = [strangers.enter_context(Wire(router.port())) for _ in range(200)]
        session = wait_until(lambda: (got := attempt(router)) and not isinstance(got, Exception) and got, "an honest login to get in")
        assert session.value("SELECT 1") == "1"
        closed = [number for number, wire in enumerate(silent) if select.select([wire.socket], [], [], 0)[0]]
        assert len(closed) >= 50 and closed == list(range(len(closed))), "the oldest strangers made room"
        assert router.metrics().sum("pointsman_routing_refusals_total", reason="limit") == len(closed)


def open_descriptors(router):
    """By the router's own account: it is not dumpable, so /proc shows them to root alone."""
    return int(router.metrics().sum("process_open_fds"))


def _cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _limit_descriptors(pid, count):
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))


def test_running_out_of_descriptors_pauses_accepting_and_nothing_else(start_router):
    """libuv 1.44 spins for ever when accept says EMFILE; the router must not, and what is in must go on."""
    router = start_router()
    session = router.login(USER)
    before = resource.prlimit(router.pid, resource.RLIMIT_NOFILE)[0]
    _limit_descriptors(router.pid, open_descriptors(router) + 4)
    with contextlib.ExitStack() as crowd:
        for _ in range(30):
            crowd.enter_context(Wire(router.port()))
        used = _cpu_seconds(router.pid)
        for _ in range(20):  # two seconds of the session's own life, which is the event to watch here
            assert session.value("SELECT 1 FROM pg_sleep(0.1)") == "1"
        assert _cpu_seconds(router.pid) - used < 1.0, "the accept loop spins"
        assert router.running()
    _limit_descriptors(router.pid, before)
    wait_until(lambda: not isinstance(attempt(router), Exception), "logins to work again")
    session.terminate()


def test_descriptors_are_given_back(start_router):
    router = start_router()
    router.login(USER).terminate()
    router.login(f"{USER}|reads", listener="pooled").terminate()
    settled = open_descriptors(router)
    for number in range(30):
        with contextlib.suppress(Refused):
            router.login(USER if number % 2 else "app.nosuch", PASSWORDS["app"]).terminate()
        Wire(router.port()).close()
    wait_until(lambda: open_descriptors(router) <= settled + 2, "the descriptors to come back")


def test_an_explicit_limit_that_cannot_be_had_is_an_error(start_router):
    if os.geteuid() == 0 and _can_raise_hard_limit():
        maximum = int(open("/proc/sys/fs/nr_open", encoding="ascii").read())  # beyond this not even root gets any
    else:
        maximum = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    router = start_router(lambda config: config["limits"].update(max_connections=maximum), ready=False)
    assert router.wait() == 1
    assert "max_connections" in router.log()


def _can_raise_hard_limit():
    return run(["prlimit", "--nofile=64:64", "sh", "-c", "ulimit -n 128"], check=False).returncode == 0


def test_without_an_explicit_limit_few_descriptors_are_enough_to_start(start_router):
    router = start_router(lambda config: config["limits"].pop("max_connections"), prefix=("prlimit", "--nofile=512:512"))
    router.login(USER).terminate()
    assert 0 < router.metrics().samples["pointsman_limit", frozenset({("name", "max_connections")})] <= 20_000


def test_two_hundred_sessions_at_once(router, cluster):
    """More than a handful, on two workers, on every route; all of them answer."""
    sessions = []
    try:
        for number in range(150):
            user, listener = [(USER, "direct"), (f"{USER}|replica", "direct"), (f"{USER}|reads", "pooled")][number % 3]
            sessions.append(router.login(user, listener=listener))
        for session in sessions:
            session.send_query("SELECT pg_backend_pid()")
        assert all(session.result()[0][0] for session in sessions)
    finally:
        for session in sessions:
            session.wire.close()
    wait_until(lambda: cluster.primary.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name = ''") <= 60,
               "the backends to end")
