#!/usr/bin/python3
"""Runs PostgreSQL's own regression suite directly and through Pointsman and compares the results. See README.md."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from regresslib import debian  # noqa: E402
from regresslib.process import RegressError  # noqa: E402
from regresslib.servers import Cluster, Endpoint, Router  # noqa: E402
from regresslib.suites import Result, Suites, differences  # noqa: E402

CACHE = Path(__file__).resolve().parents[1] / ".deps" / "pg_regress"
# A suite that mostly fails without the router says nothing about the router.
LEAST_PASSED = 0.95
SHOWN_LINES = 60  # of each difference; all of it goes into a file


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pointsman", type=Path, required=True, metavar="PATH", help="the binary under test")
    parser.add_argument("--isolation", action="store_true", help="the isolation suite too")
    parser.add_argument("--pipeline", action="store_true", help="libpq's pipeline programs too")
    parser.add_argument("--only", choices=["regress", "isolation", "pipeline"], help="this suite and no other")
    parser.add_argument("--version", metavar="V", help="Debian's version of postgresql-15, e.g. " + debian.KNOWN_GOOD +
                        " (default: the first of which source and packages can be had)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep results, logs and differences in this new folder")
    return parser.parse_args()


def say(text: str):
    print(text, flush=True)


def run_direct(suites: Suites, names: list[str], cluster: Cluster, keep: Path) -> dict[str, Result]:
    results = {}
    for name in names:
        try:
            results[name] = suites.run(name, cluster.start(), keep / f"{name}.direct")
        finally:
            cluster.stop()
        result = results[name]
        say(f"  {name}: {result.passed()} of {len(result.outcomes)} passed in {result.seconds:.0f} s")
        if result.passed() < LEAST_PASSED * len(result.outcomes):
            raise RegressError(f"too many tests of {name} fail without the router: nothing to compare")
    return results


def run_routed(suites: Suites, names: list[str], cluster: Cluster, router: Router, keep: Path) -> dict[str, Result]:
    results = {}
    for name in names:
        try:
            cluster.start()
            endpoint: Endpoint = router.start()
            result = results[name] = suites.run(name, endpoint, keep / f"{name}.router")
            connections = router.connections()
            router.stop(strict=True)
        finally:
            router.stop(strict=False)
            cluster.stop()
        say(f"  {name}: {result.passed()} of {len(result.outcomes)} passed in {result.seconds:.0f} s, "
            f"{connections} connections")
        if connections < len(result.outcomes):
            raise RegressError(f"{name}: {len(result.outcomes)} tests, but Pointsman saw {connections} connections")
    return results


def compare(direct: dict[str, Result], routed: dict[str, Result], keep: Path) -> bool:
    """Prints the summary; True when nothing differs."""
    all_equal = True
    say(f"\n{'suite':<12}{'tests':>7}{'direct':>9}{'router':>9}{'files':>8}  differences")
    for name, before in direct.items():
        after = routed[name]
        found = differences(before, after)
        say(f"{name:<12}{len(before.outcomes):>7}{before.passed():>9}{after.passed():>9}{len(before.files):>8}  "
            f"{len(found) or 'none'}")
        for test, outcome in before.outcomes.items():
            if outcome != "ok" and after.outcomes.get(test) == outcome:
                say(f"{'':<12}{test}: {outcome} both directly and through the router")
        if found:
            all_equal = False
            (keep / f"{name}.differences").write_text("\n".join(found.values()))
            for text in found.values():
                lines = text.splitlines()
                say("\n" + "\n".join(lines[:SHOWN_LINES]) + ("\n..." if len(lines) > SHOWN_LINES else ""))
    return all_equal


def suites_of(arguments: argparse.Namespace) -> list[str]:
    if arguments.only:
        return [arguments.only]
    return ["regress"] + ["isolation"] * arguments.isolation + ["pipeline"] * arguments.pipeline


def main_in(work: Path, arguments: argparse.Namespace) -> bool:
    downloads = debian.obtain(CACHE, arguments.version, work / "apt.log")
    say(f"PostgreSQL {downloads.name} (Debian)")
    build = debian.unpack(downloads, work / "postgresql")
    keep = work / "keep"
    keep.mkdir()
    names = suites_of(arguments)
    suites = Suites(build, work)
    cluster = Cluster(build, work / "cluster")
    router = Router(arguments.pointsman.resolve(), work / "router", cluster)
    try:
        say("directly:")
        direct = run_direct(suites, names, cluster, keep)
        say("through Pointsman:")
        routed = run_routed(suites, names, cluster, router, keep)
        equal = compare(direct, routed, keep)
        say("\nThe results are the same." if equal else "\nThe results differ.")
        return equal
    finally:
        if arguments.output:
            for log in (work / "cluster/postgres.log", work / "router/pointsman.log", work / "router/pointsman.json"):
                if log.exists():
                    shutil.copy(log, keep)
            shutil.copytree(keep, arguments.output, dirs_exist_ok=True)


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="pointsman-regress-"))
    work.chmod(0o755)  # the server and the suites run as another user
    try:
        if not os.access(arguments.pointsman, os.X_OK) or arguments.pointsman.is_dir():
            raise RegressError(f"{arguments.pointsman} is no program")
        if missing := debian.missing_tools():
            raise RegressError("missing: " + ", ".join(missing))
        return 0 if main_in(work, arguments) else 1
    except RegressError as error:
        print(f"run_pg_regress.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
