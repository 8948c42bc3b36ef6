"""One PostgreSQL from Debian, complete: server, client and test programs from its packages, test files from its source.

The three must be of one version: psql and the expected outputs change between minor releases. Debian's mirrors carry
several versions at a time, and not of each one both halves, so every version is tried until one can be had whole."""

import functools
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .process import RegressError, clean_environment, run

SOURCE = "postgresql-15"
PACKAGES = ["postgresql-15", "postgresql-client-15", "postgresql-server-dev-15", "libpq5", "libpq-dev"]
KNOWN_GOOD = "15.18-0+deb12u1"  # had whole when this was written; tried first
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
COMPLETE = "complete"  # the file that marks a finished download
NEEDED = {"apt-get": "apt", "dpkg": "dpkg", "tar": "tar", "bzip2": "bzip2", "gcc": "gcc", "openssl": "openssl"}


class Apt:
    """apt-get with lists, caches and sources of its own: the machine's are read, never written."""

    def __init__(self, folder: Path):
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        settings = {"Dir::Etc::SourceList": folder / "sources.list", "Dir::Etc::SourceParts": folder / "parts",
                    "Dir::State::Lists": folder / "lists", "Dir::Cache": folder / "cache", "APT::Sandbox::User": "root"}
        self._options = ["-q", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
        signed_by = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        (folder / "sources.list").write_text("".join(
            f"{kind} {signed_by}{repository}\n" for repository in _repositories() for kind in ("deb", "deb-src")))

    def get(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        return run(["apt-get", *self._options, *arguments], env=clean_environment(), **options)

    def versions(self) -> list[str]:
        """Those of which both a binary and a source are announced: the known one, then the newest first."""
        kinds: dict[str, set[str]] = {}
        for line in run(["apt-cache", *self._options, "madison", SOURCE], env=clean_environment()).stdout.splitlines():
            name, version, where = (part.strip() for part in line.split("|"))
            if name == SOURCE:
                kinds.setdefault(version, set()).add(where.split()[-1])
        both = [version for version, kind in kinds.items() if {"Packages", "Sources"} <= kind]
        both.sort(key=functools.cmp_to_key(_compare), reverse=True)
        return sorted(both, key=lambda version: version != KNOWN_GOOD)


def _compare(left: str, right: str) -> int:
    if left == right:
        return 0
    return 1 if subprocess.run(["dpkg", "--compare-versions", left, "gt", right]).returncode == 0 else -1


def _repositories() -> list[str]:
    """This machine's Debian repositories as `URI suite component`, whatever the form of its lists."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
                  env=clean_environment()).stdout.splitlines()
    found = sorted({line for line in targets if len(line.split()) == 3 and line.split()[1] in suites
                    and line.split()[2] == "main"})
    if not found:
        raise RegressError(f"apt knows no Debian repository of {codename or 'this release'}")
    return found


def obtain(cache: Path, wanted: str | None, log: Path) -> Path:
    """The folder with one version's files, from the cache or from the mirror. `log` keeps what apt said."""
    held = sorted((path.parent for path in cache.glob(f"*/{COMPLETE}")), key=lambda path: path.name != KNOWN_GOOD)
    for path in held:
        if wanted in (None, path.name):
            return path
    cache.mkdir(parents=True, exist_ok=True)
    apt = Apt(log.parent / "apt")
    apt.get("update")
    versions = [wanted] if wanted else apt.versions()
    failures = []
    for version in versions:
        folder = cache / version
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            source = apt.get("source", "--download-only", "--only-source", f"{SOURCE}={version}", cwd=folder)
            debs = apt.get("download", *(f"{name}={version}" for name in PACKAGES), cwd=folder)
        except RegressError as error:
            shutil.rmtree(folder)
            failures.append(f"{version}: {error}")
            continue
        log.write_text(source.stdout + debs.stdout)
        (folder / COMPLETE).touch()
        return folder
    raise RegressError("no version of which Debian gives both source and packages:\n" + "\n".join(failures or ["none announced"]))


@dataclass
class Build:
    """One unpacked PostgreSQL with its test programs and files."""
    version: str
    binaries: Path        # initdb, postgres, psql
    tests: Path           # src/test of the source
    programs: Path        # pgxs/src/test of the packages: pg_regress, isolationtester
    modules: Path         # regress.so and the two contrib modules it needs
    pipeline: Path        # the libpq_pipeline program
    libraries: Path       # where this version's libpq lies

    def environment(self, **extra: str) -> dict:
        return clean_environment(LD_LIBRARY_PATH=str(self.libraries), **extra)


def unpack(downloads: Path, target: Path) -> Build:
    root, source = target / "root", target / "source"
    source.mkdir(parents=True)
    for deb in sorted(downloads.glob("*.deb")):
        run(["dpkg", "-x", deb, root])
    wanted = [f"*/src/test/{name}/*" for name in ("regress", "isolation", "modules/libpq_pipeline")]
    run(["tar", "xjf", _one(downloads, "*.orig.tar.bz2"), "-C", source, "--strip-components=1", "--no-same-owner",
         "--wildcards", *wanted])
    tests = source / "src/test"
    binaries = _one(root, "usr/lib/postgresql/*/bin")
    libraries = _one(root, "usr/lib/*/libpq.so.5").parent
    headers = [root / "usr/include/postgresql", _one(root, "usr/include/postgresql/*/server")]
    includes = [f"-I{path}" for path in headers]
    modules = target / "modules"
    modules.mkdir()
    run(["gcc", "-O1", "-shared", "-fPIC", *includes, f"-I{tests / 'regress'}", tests / "regress/regress.c",
         "-o", modules / "regress.so"])
    server_libraries = binaries.parent / "lib"
    for name in ("refint.so", "autoinc.so"):
        shutil.copy(server_libraries / name, modules)
    pipeline = target / "libpq_pipeline"
    run(["gcc", "-O1", *includes, tests / "modules/libpq_pipeline/libpq_pipeline.c", "-o", pipeline,
         f"-L{libraries}", f"-L{server_libraries}", "-lpq", "-lpgcommon", "-lpgport"])
    return Build(downloads.name, binaries, tests, server_libraries / "pgxs/src/test", modules, pipeline, libraries)


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise RegressError(f"expected one {pattern} in {folder}, found {len(found)}")
    return found[0]


def missing_tools() -> list[str]:
    return [f"{tool} (apt-get install {package})" for tool, package in NEEDED.items() if not shutil.which(tool)]
