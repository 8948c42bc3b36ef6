"""Fixtures of the tests of deploy/."""

import os
import shutil
import sys
import tempfile

import pytest

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(_HERE), "e2e"))

from image import Image  # noqa: E402
from manifests import KUBERNETES, TARGETS, render  # noqa: E402


@pytest.fixture(scope="session")
def dependencies():
    """The folder with what tests/e2e/setup_deps.sh installs."""
    path = os.environ.get("POINTSMAN_TEST_DEPS") or os.path.join(os.path.dirname(_HERE), ".deps")
    if not os.path.isdir(os.path.join(path, "node_modules")):
        pytest.fail(f"{path}/node_modules is missing: run tests/e2e/setup_deps.sh first")
    return path


@pytest.fixture
def image():
    if os.geteuid() != 0:
        pytest.skip("needs root, to enter the image's file system")
    folder = tempfile.mkdtemp(prefix="pointsman-image-")
    os.chmod(folder, 0o755)
    yield Image(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def rendered(dependencies):
    return {target: render(dependencies, os.path.join(KUBERNETES, target)) for target in TARGETS}


@pytest.fixture(params=TARGETS)
def target(request):
    return request.param


@pytest.fixture
def objects(rendered, target):
    return rendered[target][0]
