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


def _outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


class Suites:
    """Every run of a suite writes into one and the same path, for some tests show it; `keep` then takes it away."""

    def __init__(self, build: Build, work: Path):
        self._build = build
        self._work = work

    def run(self, name: str, endpoint: Endpoint, keep: Path) -> Result:
        out = self._work / "out"
        out.mkdir()
        give_to_server_user(out)
        begin = time.monotonic()
        result = {"regress": self._regress, "isolation": self._isolation, "pipeline": self._pipeline}[name](endpoint, out)
        result.seconds = time.monotonic() - begin
        shutil.move(out, keep)
        if not result.outcomes:
            raise RegressError(f"{name} ran no test; see {keep}")
        return result

    def _regress(self, endpoint: Endpoint, out: Path) -> Result:
        return self._pg_regress(endpoint, out, self._build.programs / "regress/pg_regress", "regress", "parallel_schedule",
                                f"--dlpath={self._build.modules}", "--max-connections=20", "--max-concurrent-tests=20")

    def _isolation(self, endpoint: Endpoint, out: Path) -> Result:
        return self._pg_regress(endpoint, out, self._build.programs / "isolation/pg_isolation_regress", "isolation",
                                "isolation_schedule")

    def _pg_regress(self, endpoint: Endpoint, out: Path, program: Path, inputs: str, schedule: str, *more: str) -> Result:
        folder = self._build.tests / inputs
        ended = run([program, f"--inputdir={folder}", f"--outputdir={out}", f"--bindir={self._build.binaries}",
                     f"--host={LOOPBACK}", f"--port={endpoint.port}", f"--user={endpoint.user}",
                     f"--schedule={folder / schedule}", *more],
                    seconds=_SUITE_SECONDS, check=False, env=endpoint.environment(self._build), cwd=out, **as_server_user())
        (out / "console").write_text(ended.stdout)
        outcomes = dict(_OUTCOME.findall(ended.stdout))
        if not outcomes or not (out / "results").is_dir():
            raise RegressError(f"{program.name} did not start its tests:\n{ended.stdout[-3000:]}")
        return Result(outcomes, _outputs(out / "results"))

    def _pipeline(self, endpoint: Endpoint, out: Path) -> Result:
        options = {"env": endpoint.environment(self._build), "cwd": out, **as_server_user()}
        names = run([self._build.pipeline, "tests"], **options).stdout.split()
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


def differences(direct: Result, routed: Result) -> dict[str, str]:
    """By test or file: what is not the same."""
    found = {}
    for name in sorted(direct.outcomes.keys() | routed.outcomes.keys()):
        before, after = (run_.outcomes.get(name, "not run") for run_ in (direct, routed))
        if before != after:
            found[name] = f"{name}: {before} directly, {after} through the router\n"
    for name in sorted(direct.files.keys() | routed.files.keys()):
        before, after = (run_.files.get(name) for run_ in (direct, routed))
        if before != after:
            lines = [(content or b"").decode(errors="backslashreplace").splitlines() for content in (before, after)]
            text = "\n".join(difflib.unified_diff(*lines, f"direct/{name}", f"router/{name}", lineterm=""))
            found[name] = text + "\n" if text else f"{name}: differs in line ends, or is missing in one run\n"
    return found
