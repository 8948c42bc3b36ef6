"""The three suites: how each is run against an endpoint, and what counts as its result."""

import difflib
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from .debian import Build
from .process import LOOPBACK, RegressError, as_server_user, give_to_server_user, run
from .servers import Endpoint

# "test name ... ok 12 ms" for one alone, "     name ... FAILED" for a member of a group (pg_regress.c, version 15).
_OUTCOME = re.compile(r"^(?:test|\s{5})\s*(\S+)\s+\.\.\. (ok|FAILED|failed \(ignored\))", re.MULTILINE)
_SUITE_SECONDS = 1800
_PIPELINE_ROWS = "700"  # as t/001_libpq_pipeline.pl


@dataclass
class Result:
    """One run of one suite: per test its outcome, and per file of results its content."""
    outcomes: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0

    def passed(self) -> int:
        return sum(outcome == "ok" for outcome in self.outcomes.values())

    def names(self) -> set[str]:
        """The tests, and those files that belong to none by name."""
        return self.outcomes.keys() | {name for name in self.files if Path(name).stem not in self.outcomes}

    def seen(self, name: str) -> tuple:
        """All that is compared of one test or lone file: two runs agree on it when this is equal."""
        own = {file: content for file, content in self.files.items() if name in (file, Path(file).stem)}
        return self.outcomes.get(name), tuple(sorted(own.items()))


def _outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


class Suites:
    """Every run of a suite writes into one and the same path, for some tests show it; `keep` then takes it away."""

    def __init__(self, build: Build, work: Path):
        self._build = build
        self._work = work

    def run(self, name: str, endpoint: Endpoint, keep: Path, only: list[str] | None = None) -> Result:
        """`only` some tests, where they can stand alone: those of the regression suite build on each other, so it runs whole."""
        out = self._work / "out"
        out.mkdir()
        give_to_server_user(out)
        begin = time.monotonic()
        result = {"regress": self._regress, "isolation": self._isolation, "pipeline": self._pipeline}[name](endpoint, out, only)
        result.seconds = time.monotonic() - begin
        shutil.move(out, keep)
        if not result.outcomes:
            raise RegressError(f"{name} ran no test; see {keep}")
        return result

    def _regress(self, endpoint: Endpoint, out: Path, _only: list[str] | None) -> Result:
        folder = self._build.tests / "regress"
        return self._pg_regress(endpoint, out, self._build.programs / "regress/pg_regress", folder,
                                f"--schedule={folder / 'parallel_schedule'}", f"--dlpath={self._build.modules}",
                                "--max-connections=20", "--max-concurrent-tests=20")

    def _isolation(self, endpoint: Endpoint, out: Path, only: list[str] | None) -> Result:
        folder = self._build.tests / "isolation"
        which = only or [f"--schedule={folder / 'isolation_schedule'}"]
        return self._pg_regress(endpoint, out, self._build.programs / "isolation/pg_isolation_regress", folder, *which)

    def _pg_regress(self, endpoint: Endpoint, out: Path, program: Path, folder: Path, *more: str) -> Result:
        ended = run([program, f"--inputdir={folder}", f"--outputdir={out}", f"--bindir={self._build.binaries}",
                     f"--host={LOOPBACK}", f"--port={endpoint.port}", f"--user={endpoint.user}", *more],
                    seconds=_SUITE_SECONDS, check=False, env=endpoint.environment(self._build), cwd=out, **as_server_user())
        (out / "console").write_text(ended.stdout)
        outcomes = dict(_OUTCOME.findall(ended.stdout))
        if not outcomes or not (out / "results").is_dir():
            raise RegressError(f"{program.name} did not start its tests:\n{ended.stdout[-3000:]}")
        return Result(outcomes, _outputs(out / "results"))

    def _pipeline(self, endpoint: Endpoint, out: Path, only: list[str] | None) -> Result:
        options = {"env": endpoint.environment(self._build), "cwd": out, **as_server_user()}
        names = only or run([self._build.pipeline, "tests"], **options).stdout.split()
        expected = self._build.tests / "modules/libpq_pipeline/traces"
        where = f"host={LOOPBACK} port={endpoint.port} user={endpoint.user} dbname=postgres"
        result = Result()
        for name in names:
            wanted = expected / f"{name}.trace"
            trace = out / f"{name}.trace"
            # Only those with an expected trace are repeatable; the others move data in steps that depend on time.
            tracing = ["-t", trace] if wanted.exists() else []
            ended = run([self._build.pipeline, "-r", _PIPELINE_ROWS, *tracing, name, where], check=False, seconds=120, **options)
            (out / f"{name}.console").write_text(ended.stdout)
            same = not tracing or (trace.exists() and trace.read_bytes() == wanted.read_bytes())
            result.outcomes[name] = "ok" if ended.returncode == 0 and same else "FAILED"
        result.files = {name: content for name, content in _outputs(out).items() if name.endswith(".trace")}
        return result


class Comparison:
    """All runs of one suite, both ways. A test is settled once some run through the router and some direct run agree on it;
    what is not is repeated, for a few tests depend on how the machine schedules processes."""

    def __init__(self, direct: Result, routed: Result):
        self.direct, self.routed = [direct], [routed]
        self.differed = self.unsettled()  # at first sight

    def add(self, direct: Result, routed: Result):
        self.direct.append(direct)
        self.routed.append(routed)

    def unsettled(self) -> list[str]:
        names = self.direct[0].names() | self.routed[0].names()
        return sorted(name for name in names if not _seen(self.direct, name) & _seen(self.routed, name))

    def explain(self, name: str) -> str:
        """What was not the same in the first run."""
        direct, routed = self.direct[0], self.routed[0]
        lines = []
        if direct.outcomes.get(name) != routed.outcomes.get(name):
            lines.append(f"{name}: {direct.outcomes.get(name)} directly, {routed.outcomes.get(name)} through the router")
        for file in sorted({file for result in (direct, routed) for file in result.files if name in (file, Path(file).stem)}):
            before, after = direct.files.get(file), routed.files.get(file)
            if before is None or after is None:
                lines.append(f"{file}: only written {'through the router' if before is None else 'directly'}")
            elif before != after:
                texts = [content.decode(errors="backslashreplace").split("\n") for content in (before, after)]
                lines += difflib.unified_diff(*texts, f"direct/{file}", f"router/{file}", lineterm="")
        return "\n".join(lines) + "\n"


def _seen(results: list[Result], name: str) -> set[tuple]:
    return {result.seen(name) for result in results if name in result.names() or result is results[0]}
