"""Fixtures of the end-to-end tests. Run: POINTSMAN_BINARY=build/…/pointsman /usr/bin/python3 -m pytest tests/e2e

    world    the servers behind the router: PostgreSQL 15 with two replicas, PostgreSQL 18, five PgBouncers (one per run)
    router   Pointsman in front of them with the standard configuration (one per run; tests must leave it as they found it)
    start_router   a Pointsman of the test's own, with the configuration changed as the test likes

Needs what setup_deps.sh installs. Runs as root (the servers then run as `postgres`) or as any other user. Environment:

    POINTSMAN_BINARY         the binary to test (required)
    POINTSMAN_TEST_DEPS      where setup_deps.sh has put the npm packages (default: tests/.deps)
    POINTSMAN_TEST_BULK_MB   how much each COPY test moves (default: 200)
    POINTSMAN_TEST_KEEP      when set, the run's folder with all logs is kept after a failure
    TMPDIR                   where that folder goes (default: memory where there is plenty, else /tmp)
"""

import copy
import itertools
import os
import shutil
import signal
import tempfile

import pytest

from harness.router import Router, Secrets, router_binary, standard_config
from harness.system import clean_environment, free_port
from harness.world import World

TEST_DEADLINE_SECONDS = 120

HERE = os.path.dirname(os.path.abspath(__file__))


def _dependencies():
    return os.environ.get("POINTSMAN_TEST_DEPS") or os.path.join(os.path.dirname(HERE), ".deps")


@pytest.fixture(scope="session", autouse=True)
def no_pg_environment():
    """libpq inside this process obeys no PG… variable and no file of whoever runs the tests."""
    kept = dict(os.environ)
    for key in list(os.environ):
        if key.startswith("PG"):
            del os.environ[key]
    os.environ["HOME"] = clean_environment()["HOME"]
    os.environ["PGSYSCONFDIR"] = "/nonexistent"
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """No test hangs: whatever it waits for, a deadline ends it with a stack trace. Every single wait has a shorter one of its own."""
    def too_late(*_):
        raise TimeoutError(f"{item.name} took longer than {TEST_DEADLINE_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(TEST_DEADLINE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def _scratch():
    """Memory where there is plenty: the clusters write a gigabyte that nobody will read again. TMPDIR decides when it is set."""
    shared_memory = "/dev/shm"
    if "TMPDIR" in os.environ or not os.access(shared_memory, os.W_OK):
        return None
    with open("/proc/meminfo", encoding="ascii") as text:
        available = next(int(line.split()[1]) * 1024 for line in text if line.startswith("MemAvailable"))
    found = os.statvfs(shared_memory)
    roomy = min(available, found.f_bavail * found.f_frsize) >= 6 << 30
    return shared_memory if roomy and not found.f_flag & os.ST_NOEXEC else None


@pytest.fixture(scope="session")
def folder(request):
    """The run's own folder. Not pytest's: that one is 0700, and the servers run as another user; socket paths must be short too."""
    path = tempfile.mkdtemp(prefix="pointsman-e2e-", dir=_scratch())
    os.chmod(path, 0o755)
    yield path
    if request.session.testsfailed and os.environ.get("POINTSMAN_TEST_KEEP"):
        print(f"\nkept: {path}")
    else:
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def dependencies():
    """The node_modules folder with what setup_deps.sh installs."""
    path = os.path.join(_dependencies(), "node_modules")
    if not os.path.isdir(path):
        pytest.fail(f"{path} is missing: run tests/e2e/setup_deps.sh first")
    return path


@pytest.fixture(scope="session")
def world(folder, dependencies):
    made = World(folder, os.path.join(dependencies, "@embedded-postgres", "linux-x64"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def cluster(world):
    return world.cluster


@pytest.fixture(scope="session")
def secrets(folder):
    return Secrets(os.path.join(folder, "secrets"))


@pytest.fixture(scope="session")
def router_certificate(world):
    """The certificate clients see, for localhost and 127.0.0.1."""
    return world.authority.issue("router")


@pytest.fixture(scope="session")
def router(world, folder, secrets, router_certificate):
    made = Router(router_binary(), os.path.join(folder, "router"),
                  standard_config(world, folder, secrets, *router_certificate), world)
    try:
        yield made.start()
    finally:
        made.finish()


_numbers = itertools.count(1)


@pytest.fixture
def make_config(world, folder, secrets, router_certificate):
    """The standard configuration with fresh ports, to be changed by the test."""
    def make():
        return copy.deepcopy(standard_config(world, folder, secrets, *router_certificate))

    return make


@pytest.fixture
def start_router(world, folder, make_config):
    """Starts a router of the test's own; `change` edits the standard configuration in place. Stopped, and checked, at the end."""
    made = []

    def start(change=None, *, config=None, ready=True, **options):
        config = config or make_config()
        if change:
            change(config)
        router = Router(router_binary(), os.path.join(folder, f"router-{next(_numbers)}"), config, world, **options)
        made.append(router)
        return router.start(ready=ready)

    yield start
    for router in made:
        router.finish()


@pytest.fixture
def fresh_port():
    return free_port
