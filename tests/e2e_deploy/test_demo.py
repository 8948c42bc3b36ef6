"""deploy/demo.sh as a stranger would run it, but with a built binary and free ports: the whole tour, and nothing left behind."""

import glob
import os
import re
import signal
import subprocess
import sys

import pytest

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))
sys.path.insert(0, os.path.join(_ROOT, "tests", "e2e"))

from harness.router import router_binary  # noqa: E402
from harness.system import clean_environment, free_port, wait_until  # noqa: E402

DEMO = os.path.join(_ROOT, "deploy", "demo.sh")
DEADLINE = 180


def demo(folder, *arguments, port_pair=None):
    first, second = port_pair or (free_port(), free_port())
    return subprocess.Popen(
        [DEMO, "--binary", router_binary(), "--ports", f"{first},{second}", *arguments], env=clean_environment(TMPDIR=folder),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


@pytest.fixture
def folder(tmp_path_factory):
    """Where the demo makes its folder: short and open to the servers' user, which pytest's own is not."""
    import tempfile

    path = tempfile.mkdtemp(prefix="pm-")
    os.chmod(path, 0o777)
    yield path
    os.rmdir(path)  # fails, and the test with it, if the demo has left anything


def processes_mentioning(text):
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as command:
                if text.encode() in command.read():
                    found.append(path)
        except OSError:
            continue
    return found


def test_the_tour_reaches_every_destination_and_leaves_nothing(folder):
    process = demo(folder, "--once")
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    rows = re.findall(r"^   (alice\.shop\S*) +(\d+)  (pg-\d) +(\S+) +(yes|no) +(\w+)$", output, re.MULTILINE)
    seen = [(user, member in ("pg-1", "pg-2"), via, recovery, reason) for user, _, member, via, recovery, reason in rows]
    assert seen == [
        ("alice.shop", False, "-", "no", "primary"),
        ("alice.shop|replica", True, "-", "yes", "replica_best"),
        ("alice.shop", False, "pgbouncer-pg-0", "no", "local_pool"),
        ("alice.shop|reads", True, "reads", "yes", "named_pool"),
        ("alice.shop|app", False, "app", "no", "named_pool"),
        ("alice.shop%7Creplica", True, "-", "yes", "replica_best"),
    ], output
    assert os.listdir(folder) == []
    assert processes_mentioning(folder) == []


def test_ctrl_c_ends_everything(folder):
    process = demo(folder)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C ends everything" in line:
            break
    else:
        pytest.fail("".join(lines))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert os.listdir(folder) == []
    wait_until(lambda: processes_mentioning(folder) == [], "every process of the demo to be gone")


def test_a_taken_port_is_replaced_and_said(folder):
    import socket

    with socket.create_server(("127.0.0.1", free_port())) as squatter:
        taken = squatter.getsockname()[1]
        process = demo(folder, "--once", port_pair=(taken, free_port()))
        output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    assert f"port {taken} is taken by another program" in output


@pytest.mark.parametrize("ports", ["5432", "a,b", "0,5432", "70000,5432", "15432,15432", "80,443"])
def test_bad_ports_are_explained_before_anything_is_started(folder, ports):
    ran = subprocess.run([DEMO, "--once", "--ports", ports], env=clean_environment(TMPDIR=folder), capture_output=True, text=True, timeout=30)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: --ports"), ran.stderr
    assert ran.stdout == ""
