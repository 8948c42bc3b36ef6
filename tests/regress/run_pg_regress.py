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
from regresslib.servers import Cluster, Router  # noqa: E402
from regresslib.suites import Comparison, Result, Suites  # noqa: E402

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
    parser.add_argument("--repetitions", type=int, default=2, metavar="N",
                        help="how often what differs is run again before it counts (default: %(default)s; 0: at once)")
    parser.add_argument("--version", metavar="V", help="Debian's version of postgresql-15, e.g. " + debian.KNOWN_GOOD +
                        " (default: the first of which source and packages can be had)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep results, logs and differences in this new folder")
    return parser.parse_args()


def say(text: str):
    print(text, flush=True)


class Bench:
    """The built PostgreSQL, its cluster, the router, and the folder where results are kept."""

    def __init__(self, build: debian.Build, work: Path, pointsman: Path):
        self.keep = work / "keep"
        self.keep.mkdir()
        self._suites = Suites(build, work)
        self._cluster = Cluster(build, work / "cluster")
        self._router = Router(pointsman, work / "router", self._cluster)

    def direct(self, name: str, label: str, only: list[str] | None = None) -> Result:
        try:
            result = self._suites.run(name, self._cluster.start(), self.keep / f"{name}.direct{label}", only)
        finally:
            self._cluster.stop()
        say(f"  directly: {result.passed()} of {len(result.outcomes)} passed in {result.seconds:.0f} s")
        return result

    def routed(self, name: str, label: str, only: list[str] | None = None) -> Result:
        try:
            self._cluster.start()
            result = self._suites.run(name, self._router.start(), self.keep / f"{name}.router{label}", only)
            connections = self._router.wait_for_connections(len(result.outcomes))
            self._router.stop(strict=True)
        finally:
            self._router.stop(strict=False)
            self._cluster.stop()
        say(f"  through Pointsman: {result.passed()} of {len(result.outcomes)} passed in {result.seconds:.0f} s, "
            f"{connections} connections")
        return result


def compare(bench: Bench, name: str, repetitions: int) -> Comparison:
    say(f"{name}:")
    direct = bench.direct(name, "")
    if direct.passed() < LEAST_PASSED * len(direct.outcomes):
        raise RegressError(f"too many tests of {name} fail without the router: there is nothing to compare with")
    found = Comparison(direct, bench.routed(name, ""))
    for repetition in range(1, repetitions + 1):
        again = found.unsettled()
        if not again:
            break
        say(f"  not the same: {' '.join(again)}; once more")
        found.add(bench.direct(name, f".{repetition}", again), bench.routed(name, f".{repetition}", again))
    return found


def report(found: dict[str, Comparison], keep: Path) -> bool:
    """Prints the summary; True when nothing differs to the end."""
    say(f"\n{'suite':<12}{'tests':>7}{'direct ok':>11}{'router ok':>11}{'files':>7}{'differed':>10}{'to the end':>12}")
    for name, comparison in found.items():
        direct, routed = comparison.direct[0], comparison.routed[0]
        say(f"{name:<12}{len(direct.outcomes):>7}{direct.passed():>11}{routed.passed():>11}{len(direct.files):>7}"
            f"{len(comparison.differed):>10}{len(comparison.unsettled()):>12}")
    for name, comparison in found.items():
        direct, routed = comparison.direct[0], comparison.routed[0]
        for test, outcome in direct.outcomes.items():
            if outcome != "ok" and routed.outcomes.get(test) == outcome:
                say(f"{name} {test}: {outcome}, both directly and through the router")
        for test in comparison.differed:
            text = comparison.explain(test)
            (keep / f"{name}.{test}.difference").write_text(text)
            lines = text.splitlines()
            say(f"\n{name} {test}: {'the same when repeated; at first' if test not in comparison.unsettled() else 'not the same'}:\n"
                + "\n".join(lines[:SHOWN_LINES]) + ("\n..." if len(lines) > SHOWN_LINES else ""))
    return not any(comparison.unsettled() for comparison in found.values())


def suites_of(arguments: argparse.Namespace) -> list[str]:
    if arguments.only:
        return [arguments.only]
    return ["regress"] + ["isolation"] * arguments.isolation + ["pipeline"] * arguments.pipeline


def main_in(work: Path, arguments: argparse.Namespace) -> bool:
    downloads = debian.obtain(CACHE, arguments.version, work / "apt.log")
    say(f"PostgreSQL {downloads.name} (Debian)")
    bench = Bench(debian.unpack(downloads, work / "postgresql"), work, arguments.pointsman.resolve())
    try:
        found = {name: compare(bench, name, arguments.repetitions) for name in suites_of(arguments)}
        same = report(found, bench.keep)
        say("\nThe results are the same." if same else "\nThe results differ.")
        return same
    finally:
        if arguments.output:
            for log in (work / "cluster/postgres.log", work / "router/pointsman.log", work / "router/pointsman.json"):
                if log.exists():
                    shutil.copy(log, bench.keep)
            shutil.copytree(bench.keep, arguments.output, dirs_exist_ok=True)


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
