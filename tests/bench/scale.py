#!/usr/bin/python3
"""Many branches: 10,000 configured, 200 of them in use on one real server.

    tests/bench/scale.py --pointsman build/release/pointsman [--branches 10000] [--active 200] [--json FILE]

Measures the time from start to ready, a reload without and with a change, memory, what probing costs the router and the server, what a
scrape and the status cost, whether looking a branch up gets slower, and how long the same branches take one request at a time. Times are of this machine; the figures are never asserted.
"""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchlib.postgres import PROBE_PASSWORD, PROBE_ROLE, Postgres, Workdir  # noqa: E402
from benchlib.process import LOOPBACK, BenchError, Server, free_port  # noqa: E402

SECONDS = 10  # of watching the probes


def cpu_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_children(pid):
    return sum(cpu_of(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


class Router:
    def __init__(self, work, postgres, binary, branches, **more):
        self.folder = work.folder(f"router-{branches}")
        self.port, self.admin = free_port(), free_port()
        password = work.file(self.folder / "probe.pw", PROBE_PASSWORD + "\n")
        (self.folder / "branches.d").mkdir()
        for number in range(branches):
            self.write_branch(number, postgres.port)
        work.own(self.folder / "branches.d", 0o755)
        config = {
            "listeners": [{"name": "direct", "address": LOOPBACK, "port": self.port, "mode": "direct", "tls": "off"}],
            "admin": {"address": LOOPBACK, "port": self.admin}, "workers": 2, "log": {"level": "warn"},
            "defaults": {"probe": {"user": PROBE_ROLE, "password_file": str(password)}, "backend_tls": {"mode": "disable"}},
            "branches_dir": "branches.d", **more,
        }
        work.file(self.folder / "pointsman.json", json.dumps(config))
        self.command = [str(binary), "serve", "--config", str(self.folder / "pointsman.json")]
        self.server = None

    def write_branch(self, number, port, lag="10s"):
        path = self.folder / "branches.d" / f"b{number:05}.json"
        path.write_text(self.document(port, lag))
        path.chmod(0o644)

    @staticmethod
    def document(port, lag="10s"):
        return json.dumps({"members": [{"name": "pg-0", "host": LOOPBACK, "port": port}], "replicas": {"max_lag": lag}})

    def start(self):
        started = time.monotonic()
        self.server = Server("pointsman", self.command, self.folder / "log")
        while True:
            try:
                self.get("/readyz")
                return time.monotonic() - started
            except OSError:
                if time.monotonic() - started > 120:
                    raise BenchError(self.server.tail()) from None
                time.sleep(0.005)

    def get(self, path, method="GET"):
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.admin}{path}", method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def timed(self, path, method="GET", times=1):
        best, size = None, 0
        for _ in range(times):
            started = time.monotonic()
            size = len(self.get(path, method))
            took = time.monotonic() - started
            best = took if best is None else min(best, took)
        return best, size

    def route_ms(self, branch, times=300):
        """The least of many answers of /api/route: the look-up and everything around it."""
        return self.timed(f"/api/route?listener=direct&user=app.{branch}", times=times)[0] * 1e3

    def rss_mib(self):
        text = Path(f"/proc/{self.server.pid}/smaps_rollup").read_text()
        return int(text.split("Rss:")[1].split()[0]) / 1024

    def cpu_seconds(self):
        return cpu_of(self.server.pid)


def measure(arguments, work, postgres):
    out = {"branches": arguments.branches, "active": arguments.active}
    small = Router(work, postgres, arguments.pointsman, 1)
    small.start()
    out["rss_one_branch_mib"] = small.rss_mib()
    small.route_ms("b00000", 5)
    out["route_ms_one_branch"] = small.route_ms("b00000")
    small.server.stop(20)

    router = Router(work, postgres, arguments.pointsman, arguments.branches)
    out["start_s"] = router.start()
    out["rss_mib"] = router.rss_mib()
    out["reload_unchanged_s"] = router.timed("/api/reload", "POST", 3)[0]
    router.write_branch(arguments.branches - 1, postgres.port, "20s")
    out["reload_one_changed_s"] = router.timed("/api/reload", "POST")[0]
    before = router.cpu_seconds()
    time.sleep(SECONDS)
    out["cpu_idle_percent"] = (router.cpu_seconds() - before) / SECONDS * 100

    step = max(1, arguments.branches // arguments.active)
    started = time.monotonic()
    active = [f"b{number:05}" for number in range(0, step * arguments.active, step)]
    for branch in active:
        router.get(f"/api/route?listener=direct&user=app.{branch}")
    out["wake_all_s"] = time.monotonic() - started
    out["route_ms"] = router.route_ms(active[len(active) // 2])
    probes = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pointsman-probe'"
    out["probe_connections"] = int(postgres.sql("postgres", probes))
    time.sleep(2)
    before, server_before = router.cpu_seconds(), cpu_of_children(postgres.server.pid)
    time.sleep(SECONDS)
    out["cpu_probing_percent"] = (router.cpu_seconds() - before) / SECONDS * 100
    out["server_cpu_percent"] = (cpu_of_children(postgres.server.pid) - server_before) / SECONDS * 100
    out["probed_within_1200_ms"] = int(postgres.sql("postgres", probes + " AND state_change > now() - interval '1200 ms'"))
    out["rss_probing_mib"] = router.rss_mib()
    out["scrape_s"], out["scrape_bytes"] = router.timed("/metrics", times=3)
    out["status_s"], out["status_bytes"] = router.timed("/api/status", times=3)
    out["overview_s"], out["overview_bytes"] = router.timed("/api/overview", times=3)
    status = json.loads(router.get("/api/status"))["branches"]
    out["seen_active"] = sum(branch["active"] for branch in status.values())
    router.server.stop(20)
    measure_requests(arguments, work, postgres, out)
    return out


def measure_requests(arguments, work, postgres, out):
    """The branches one by one by PUT, over one connection after the other as the server ends them; then a page with every branch's series."""
    router = Router(work, postgres, arguments.pointsman, 0, metrics={"address": LOOPBACK, "port": free_port(), "detail": "all"})
    router.start()
    connection = http.client.HTTPConnection(LOOPBACK, router.admin, timeout=60)
    slowest, started, before = 0.0, time.monotonic(), router.cpu_seconds()
    for number in range(arguments.branches):
        asked = time.monotonic()
        connection.request("PUT", f"/api/branches/n{number:05}", router.document(postgres.port))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            raise BenchError(f"PUT answered {answer.status}: {body.decode()}")
        slowest = max(slowest, time.monotonic() - asked)
    out["put_all_s"] = time.monotonic() - started
    out["put_all_cpu_s"] = router.cpu_seconds() - before
    out["put_slowest_ms"] = slowest * 1e3
    out["put_rss_mib"] = router.rss_mib()
    out["scrape_detail_all_s"], out["scrape_detail_all_bytes"] = router.timed("/metrics", times=3)
    router.server.stop(20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pointsman", required=True, type=Path)
    parser.add_argument("--branches", type=int, default=10_000)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.pointsman = arguments.pointsman.resolve()
    work = Workdir()
    postgres = None
    try:
        postgres = Postgres(work)
        result = measure(arguments, work, postgres)
        for name, value in result.items():
            print(f"{name:24} {value:,.3f}" if isinstance(value, float) else f"{name:24} {value:,}")
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    except BenchError as error:
        sys.exit(f"scale.py: {error}")
    finally:
        if postgres:
            postgres.server.stop(60)
        work.remove()


if __name__ == "__main__":
    main()
