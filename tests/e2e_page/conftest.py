"""Fixtures of the status page's tests. Run: POINTSMAN_BINARY=build/release/pointsman /usr/bin/python3 -m pytest tests/e2e_page

    stage     a cluster of three, two PgBouncers, and a router with 10,000 more branches (one per run)
    browser   a headless Chromium (one per run)
    page      the status page in it, opened afresh

POINTSMAN_TEST_SCREENSHOTS names a folder that then gets the pictures.
"""

import os
import shutil
import signal
import sys
import tempfile

import pytest

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [_HERE, os.path.join(os.path.dirname(_HERE), "e2e")]

from browser import Browser  # noqa: E402
from stage import Stage  # noqa: E402

TEST_DEADLINE_SECONDS = 60


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    def too_late(*_):
        raise TimeoutError(f"{item.name} took longer than {TEST_DEADLINE_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(TEST_DEADLINE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(scope="session")
def folder():
    path = tempfile.mkdtemp(prefix="pointsman-page-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    os.chmod(path, 0o755)  # the servers run as another user
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def stage(folder):
    made = Stage(folder)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def browser(folder):
    made = Browser(os.path.join(folder, "browser"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def page(browser, stage):
    """Whatever a test does with it: no error in the console, nothing that the policy forbids, no request to elsewhere."""
    browser.forget()
    browser.prefer("light")
    browser.open(stage.router.admin_url + "/")
    browser.value("localStorage.clear()")
    browser.wait("document.querySelectorAll('[role=option][data-name]').length > 0", "the list to be filled")
    yield browser
    assert browser.console == [] and browser.violations == []
    assert [url for url in browser.requests if not url.startswith(stage.router.admin_url + "/")] == []


@pytest.fixture
def screenshot(page):
    wanted = os.environ.get("POINTSMAN_TEST_SCREENSHOTS")

    def take(name):
        picture = page.screenshot(os.path.join(wanted, f"{name}.png") if wanted else None)
        assert picture.startswith(b"\x89PNG")
        return picture

    return take
