"""Faults of the world around: a black hole, a clock that jumps, a PgBouncer that restarts, a probe role whose password changes."""

import concurrent.futures
import itertools
import mmap
import os
import struct
import subprocess
import time

import psycopg
import pytest
from harness.disposable import Disposable
from harness.namespace import add_address, black_hole, can_make_namespaces, in_network_namespace
from harness.router import Router, router_binary, standard_config
from harness.system import wait_until
from harness.wire import Refused
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"
_numbers = itertools.count(200)


# --- a black hole ---

@pytest.mark.skipif(not can_make_namespaces(), reason="needs root for a network namespace")
def test_a_black_hole_to_one_member_and_then_to_the_primary(world, folder, secrets, router_certificate):
    def body():
        number = next(_numbers)
        disposable = Disposable(world, folder, number)
        addresses = {}
        for place, node in enumerate(disposable.cluster.nodes):
            addresses[node.name] = f"10.77.0.{10 + place}"
            add_address(addresses[node.name])
        router = None
        try:
            disposable.start()
            for node in disposable.cluster.nodes:
                with open(os.path.join(node.data, "pg_hba.conf"), "a", encoding="ascii") as text:
                    text.write("host all all 10.77.0.0/24 scram-sha-256\n")
                node.sql("SELECT pg_reload_conf()")
            config = disposable.config(world, folder, secrets, *router_certificate)
            for member in config["branches"][BRANCH]["members"]:
                member["host"] = addresses[member["name"]]
            config["defaults"]["backend_tls"]["server_name"] = "localhost"
            config["defaults"]["probe"].update(interval="200ms", timeout="500ms")
            config["defaults"]["failover"] = {"hold_timeout": "1s", "dead_after": 3, "grace": "1s"}
            router = Router(router_binary(), os.path.join(folder, f"router-ns{number}"), config, world)
            router.start()
            router.login(USER).terminate()
            for name in ("pg-1", "pg-2"):
                router.wait_member(name, role="replica")
            held = router.login(USER)

            black_hole(addresses["pg-2"])
            slowest = 0.0
            for _ in range(8):  # also before a probe has noticed: a dial into the hole is given up and the other one is taken
                started = time.monotonic()
                session = router.login(f"{USER}|replica")
                assert session.value("SELECT current_setting('cluster_name')") == "pg-1"
                session.terminate()
                slowest = max(slowest, time.monotonic() - started)
            print(f"\nslowest login beside a black hole: {slowest:.2f} s")
            assert slowest < 8
            router.wait_member("pg-2", state="down")
            assert held.value("SELECT current_setting('cluster_name')") == "pg-0"

            black_hole(addresses["pg-0"])
            router.wait_member("pg-0", state="down")
            with pytest.raises(Refused) as refused:
                router.login(USER)
            assert (refused.value.sqlstate, refused.value.reason) == ("57P03", "hold_expired")
            assert [row["phase"] for row in router.sessions() if row["phase"] == "relaying"] == ["relaying"]  # not ended by silence
            disposable.named("pg-1").promote()
            wait_until(lambda: router.status()["primary"] == "pg-1", "pg-1 to be the primary")
            refused = held.wire.expect_refusal()
            assert (refused.sqlstate, refused.reason) == ("57P01", "demoted")
            assert router.login(USER).value("SELECT current_setting('cluster_name')") == "pg-1"
        finally:
            if router is not None:
                router.finish()
            disposable.stop()

    in_network_namespace(body)


# --- a clock that jumps ---

_CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long* step;
__attribute__((constructor)) static void open_step(void) {
  int fd = open(getenv("POINTSMAN_CLOCK_STEP"), O_RDONLY);
  step = mmap(0, sizeof *step, PROT_READ, MAP_SHARED, fd, 0);
}
int clock_gettime(clockid_t id, struct timespec* out) {
  int result = (int)syscall(SYS_clock_gettime, id, out);
  if (id == CLOCK_REALTIME && step) out->tv_sec += *step;
  return result;
}
int gettimeofday(struct timeval* restrict out, void* restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_stepped_by_an_hour_changes_nothing(world, folder, make_config, hours):
    """Lag, deadlines and caches run on the monotonic clock. The wall clock is the log's, and the certificates'."""
    binary = os.environ.get("POINTSMAN_RELEASE_BINARY") or router_binary()
    base = os.path.join(folder, f"clock-{next(_numbers)}")
    os.makedirs(base)
    with open(f"{base}/clock.c", "w", encoding="ascii") as text:
        text.write(_CLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", f"{base}/clock.so", f"{base}/clock.c"], check=True)
    with open(f"{base}/step", "wb") as text:
        text.write(struct.pack("l", 0))
    config = make_config()
    config["branches"][BRANCH]["replicas"] = {"max_lag": "2s"}
    config["defaults"]["backend_tls"] = {"mode": "require"}  # an hour ago the servers' certificates were not valid yet
    router = Router(binary, f"{base}/router", config, world,
                    environment={"LD_PRELOAD": f"{base}/clock.so", "POINTSMAN_CLOCK_STEP": f"{base}/step"})
    try:
        router.start()
        primary, replica = router.login(USER), router.login(f"{USER}|replica")
        for name in ("pg-1", "pg-2"):
            router.wait_member(name, role="replica")
        before = time.time()
        with open(f"{base}/step", "r+b") as text, mmap.mmap(text.fileno(), 0) as shared:
            shared[:] = struct.pack("l", hours * 3600)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for member in router.status()["members"]:
                assert member["state"] == "ok", member
                if member["role"] == "replica":
                    assert member["lag_seconds"] < 1 and member["sample_age_seconds"] < 2, member
            assert router.login(f"{USER}|replica").value("SELECT 1") == "1"
            time.sleep(0.1)
        assert primary.value("SELECT 1") == replica.value("SELECT 1") == "1"
        primary.terminate()
        last = router.wait_log(r"(\S+)Z .*session ended .*target=\S*primary|(\S+)Z .*session ended .*member=pg-0").group(0)
        stamp = time.mktime(time.strptime(last.split(".")[0], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        assert abs(stamp - before - hours * 3600) < 120  # the step did reach the process
    finally:
        router.finish()


# --- a PgBouncer that restarts ---

def test_a_pgbouncer_that_is_killed_and_comes_back(start_router, world):
    router = start_router()
    user = f"{USER}|app"
    with psycopg.connect(**router.libpq(user, listener="pooled", database="app"), autocommit=True) as session:
        session.execute("SELECT 1")
        world.app.kill()
        try:
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
            with pytest.raises(Refused) as refused:
                router.login(user, listener="pooled")
            assert refused.value.sqlstate == "57P03"
        finally:
            world.app.start()
    assert router.login(user, listener="pooled").value("SELECT 1") == "1"


def test_a_pool_that_comes_back_within_the_hold_is_waited_for(start_router, world):
    def longer(config):
        config["defaults"]["failover"] = {"hold_timeout": "10s"}

    router = start_router(longer)
    world.app.kill()
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: router.login(f"{USER}|app", listener="pooled").value("SELECT 1"))
            wait_until(lambda: router.status()["holding"] == 1, "the login to be held")
            world.app.start()
            assert waiting.result(20) == "1"
    finally:
        if not world.app.running():
            world.app.start()


# --- the probe role's password changes ---

def test_a_probe_role_whose_password_changes(start_router, world, folder, secrets, router_certificate):
    """The cluster is known as it was, sessions live on and new ones are let in; a new file mends it without a restart."""
    disposable = Disposable(world, folder, next(_numbers))
    try:
        disposable.start()
        config = disposable.config(world, folder, secrets, *router_certificate)
        own = os.path.join(folder, "own-probe.pw")
        with open(own, "w", encoding="ascii") as text:
            text.write(PASSWORDS["pointsman"] + "\n")
        os.chmod(own, 0o600)
        config["defaults"]["probe"].update(password_file=own, interval="200ms")
        router = start_router(config=config)
        session = router.login(USER)
        disposable.cluster.primary.sql("ALTER ROLE pointsman PASSWORD 'another'")
        disposable.cluster.catch_up()
        for node in disposable.cluster.nodes:  # those that are logged in would go on for ever
            node.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pointsman'")
        router.wait_log(r"pg-0 refuses the probe login")
        assert session.value("SELECT 1") == "1"
        assert router.login(USER).value("SELECT current_setting('cluster_name')") == "pg-0"
        with open(own, "w", encoding="ascii") as text:
            text.write("another\n")
        router.await_reload(lambda: None)
        router.wait_log(r"pg-0 answers probes again")
    finally:
        disposable.stop()
