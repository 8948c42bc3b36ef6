"""Fixtures of the package's tests. POINTSMAN_BINARY is build/release/pointsman: the package is made from the build folder around it."""

import itertools
import os
import shutil
import tempfile

import pytest

from machine import Machine, can_make_machines
from harness.router import router_binary
from harness.system import run


@pytest.fixture(scope="session")
def folder():
    path = tempfile.mkdtemp(prefix="pointsman-package-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def package(folder):
    """The .deb, made as docs/install.md says."""
    build = os.path.dirname(router_binary())
    made = os.path.join(folder, "made")
    run(["cpack", "-G", "DEB", "--config", os.path.join(build, "CPackConfig.cmake"), "-B", made], cwd=build, timeout=110)
    packages = [name for name in os.listdir(made) if name.endswith(".deb")]
    assert len(packages) == 1, packages
    return os.path.join(made, packages[0])


@pytest.fixture(scope="session")
def _machines_can_be_made():
    return can_make_machines()


_numbers = itertools.count(1)


@pytest.fixture
def machine(folder, _machines_can_be_made):
    if not _machines_can_be_made:
        pytest.skip("needs root and the right to mount an overlay")
    made = Machine(os.path.join(folder, f"machine-{next(_numbers)}"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def installed(machine, package):
    """A machine with the package on it."""
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    machine.installation = machine.run("dpkg", "-i", machine.bring(package)).stdout
    machine.run("rm", "/usr/sbin/policy-rc.d")
    return machine
