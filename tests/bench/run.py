#!/usr/bin/python3
"""Measures Pointsman beside a direct connection, HAProxy, PgBouncer and a bare libuv relay. See README.md."""

import argparse
import json
import os
import platform
import resource
import signal
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchlib import peers as adapters  # noqa: E402
from benchlib import process, report, workloads  # noqa: E402
from benchlib.client import Load  # noqa: E402
from benchlib.postgres import Postgres, Workdir  # noqa: E402
from benchlib.process import BenchError  # noqa: E402

HERE = Path(__file__).resolve().parent
SECTIONS = {"tx": "transactions", "bulk": "bulk", "login": "logins", "syscalls": "syscalls",
            "instructions": "instructions", "idle": "idle"}
PEERS = ["direct", "haproxy", "pgbouncer", "pgbouncer-64k", "relay-uv", "pointsman"]
QUICK = workloads.Effort(rounds=3, seconds=0.5, bulk_rounds=2, bulk_bytes=100_000_000, login_seconds=0.5,
                         idle_sessions=200, still_seconds=4.5, counted=1600, two_cores=True, long_list=False)
FULL = workloads.Effort(rounds=9, seconds=1.0, bulk_rounds=5, bulk_bytes=200_000_000, login_seconds=1.0,
                        idle_sessions=1000, still_seconds=5, counted=4800, two_cores=True, long_list=True)

CLIENT_TLS = """\
openssl_conf = top
[top]
ssl_conf = modules
[modules]
system_default = defaults
[defaults]
Ciphersuites = {suite}
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pointsman", type=Path, metavar="PATH",
                        help="the binary under test (Release); without it only the peers are measured")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of about fifteen; for a first look")
    parser.add_argument("--only", default="", metavar="LIST", help="of " + ",".join(SECTIONS))
    parser.add_argument("--peers", default=",".join(PEERS), metavar="LIST", help="default: all of them")
    parser.add_argument("--rounds", type=int, help="instead of the preset's number, for tx, login and bulk")
    parser.add_argument("--sessions", type=int, help="idle sessions instead of the preset's number")
    parser.add_argument("--core", type=int, help="the core of the one-core runs (default: the last one)")
    parser.add_argument("--cipher", default="TLS_AES_256_GCM_SHA384", metavar="SUITE",
                        help="the TLS 1.3 suite the client offers, so that all encrypt alike (default: %(default)s); "
                             "'any' leaves it to each peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples, ratios and targets")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with logs and configurations")
    return parser.parse_args()


def chosen(text: str, allowed: list[str], what: str) -> list[str]:
    names = [name for name in text.split(",") if name] or allowed
    for name in names:
        if name not in allowed:
            raise BenchError(f"unknown {what} '{name}': one of {', '.join(allowed)}")
    return [name for name in allowed if name in names]


def compile_helpers(work: Workdir) -> tuple[Path, Path]:
    """The load program and the bare relay, as g++ builds them in two seconds."""
    compiler = process.need("g++", "g++")
    base = [compiler, "-std=c++20", "-O2", "-Wall", "-Wextra"]
    for header, package in (("/usr/include/postgresql/libpq-fe.h", "libpq-dev"), ("/usr/include/uv.h", "libuv1-dev"),
                            ("/usr/include/openssl/ssl.h", "libssl-dev")):
        if not Path(header).exists():
            raise BenchError(f"{header} is missing: apt-get install {package}")
    load, relay = work.path / "load", work.path / "relay_uv"
    process.run([*base, "-I/usr/include/postgresql", str(HERE / "load.cc"), str(HERE / "direct_tls.cc"),
                 "-o", str(load), "-lpq", "-lssl", "-ldl"])
    process.run([*base, str(HERE / "relay_uv.cc"), "-o", str(relay), "-luv"])
    for binary in (load, relay):
        binary.chmod(0o755)
    return load, relay


def make_peers(names: list[str], work: Workdir, postgres: Postgres, relay: Path, pointsman: Path | None) -> list:
    made = []
    for name in names:
        if name == "direct":
            made.append(adapters.Direct(work, postgres))
        elif name == "haproxy":
            made.append(adapters.HAProxy(work, postgres))
        elif name == "pgbouncer":
            made.append(adapters.PgBouncer(work, postgres))
        elif name == "pgbouncer-64k":
            made.append(adapters.PgBouncer64K(work, postgres))
        elif name == "relay-uv":
            made.append(adapters.RelayUv(work, postgres, relay))
        elif pointsman is not None:
            made.append(adapters.Pointsman(work, postgres, pointsman))
    return made


def machine(peers: list, core: int, cores: set[int]) -> dict:
    model = next((line.split(": ", 1)[1] for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(), "cpu": model,
            "cores": sorted(cores), "one_core": core, "load_at_start": os.getloadavg()[0],
            "versions": {peer.name: peer.version() for peer in peers}}


def measure(options: argparse.Namespace, work: Workdir) -> dict:
    start = time.monotonic()

    def say(text: str):
        print(f"[{time.monotonic() - start:5.0f} s] {text}", file=sys.stderr, flush=True)

    sections = chosen(options.only, list(SECTIONS), "workload")
    names = chosen(options.peers, PEERS, "peer")
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort.rounds = effort.bulk_rounds = options.rounds
    if options.sessions:
        effort.idle_sessions = options.sessions
    cores = os.sched_getaffinity(0)
    core = options.core if options.core is not None else max(cores)
    if core not in cores:
        raise BenchError(f"core {core} is not one of {sorted(cores)}")
    if effort.two_cores and len(cores) < 2:
        say("one core only: the two-core workloads are left out")
        effort.two_cores = False
    if os.getloadavg()[0] > 0.5:
        say(f"the machine is not quiet (load {os.getloadavg()[0]:.1f}): seconds will be noisy, counts will not")

    load, relay = compile_helpers(work)
    Load.binary = str(load)
    if options.cipher != "any":
        Load.openssl_conf = str(work.file(work.path / "openssl.cnf", CLIENT_TLS.format(suite=options.cipher), 0o644))
    postgres = Postgres(work)
    peers = make_peers(names, work, postgres, relay, options.pointsman)
    bench = workloads.Bench(work, postgres, peers, effort, core, cores, say)
    facts = machine(peers, core, cores)
    for section in sections:
        say(section)
        getattr(bench, SECTIONS[section])()
    facts["load_at_end"] = os.getloadavg()[0]
    facts["seconds"] = round(time.monotonic() - start)
    facts["tls"] = bench.results.tls
    return {"machine": facts, "effort": vars(effort), "targets": report.judge(bench.results),
            "summary": report.summary(bench.results), "notes": bench.results.notes,
            "samples": bench.results.samples, "_results": bench.results}


def show(outcome: dict, has_pointsman: bool):
    facts = outcome["machine"]
    print(f"{facts['cpu']}, kernel {facts['kernel']}, one-core runs on core {facts['one_core']}, "
          f"load {facts['load_at_start']:.1f} before and {facts['load_at_end']:.1f} after, {facts['seconds']} s")
    print(", ".join(f"{name}: {version}" for name, version in facts["versions"].items() if version))
    if strangers := report.strangers(outcome["_results"]):
        print(strangers)
    if len(set(facts["tls"].values())) > 1:
        print(f"the peers did not negotiate the same TLS: {facts['tls']}")
    print("\nmedian (least) over the rounds; /peer: median of same-round ratios of the first column\n")
    print(report.workload_tables(outcome["_results"]))
    if has_pointsman:
        print("\n" + report.target_table(outcome["targets"]))
        print("\nAllocations per relayed read are asserted by tests/e2e/test_allocations.py, not measured here.")
    for note in outcome["notes"]:
        print("note: " + note)


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell's background job would ignore it
    if options.pointsman is not None and not os.access(options.pointsman, os.X_OK):
        print(f"bench: {options.pointsman} is not an executable file", file=sys.stderr)
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # HAProxy under valgrind cannot raise it itself
    work = None
    try:
        for binary in ("strace", "valgrind"):  # said before minutes of measuring, not after
            if not options.only or {"strace": "syscalls", "valgrind": "instructions"}[binary] in options.only:
                process.need(binary, binary)
        work = Workdir()
        outcome = measure(options, work)
        show(outcome, options.pointsman is not None)
        del outcome["_results"]
        if options.json:
            options.json.write_text(json.dumps(outcome, indent=1) + "\n")
        return 1 if outcome["notes"] else 0  # a note is a measurement that failed, never a target that was missed
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the clearing up
        process.stop_all()
        if work is not None:
            if options.keep:
                print(f"kept: {work.path}", file=sys.stderr)
            else:
                work.remove()


if __name__ == "__main__":
    sys.exit(main())
