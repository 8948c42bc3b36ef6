"""sd_notify: what the service manager hears from the installed router, which runs as its own user."""

import os
import signal
import socket
import time

import pytest

from harness.system import Daemon, clean_environment

CONFIG = """{
  "listeners": [{"name": "direct", "address": "127.0.0.1", "port": %d, "mode": "direct", "tls": "off"}],
  "shutdown_delay": "300ms", "drain_timeout": "2s",
  "branches_dir": "branches.d"
}
"""
DEADLINE = 20


class Manager:
    """The socket of a service manager, in the abstract namespace or by path."""

    def __init__(self, address):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(DEADLINE)

    def hear(self):
        lines = self._socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def close(self):
        self._socket.close()


@pytest.fixture
def manager():
    name = f"pointsman-test-{os.getpid()}-{time.monotonic_ns()}"
    made = Manager("\0" + name)
    made.variable = "@" + name
    yield made
    made.close()


@pytest.fixture
def serve(installed, folder, fresh_port):
    """Starts the installed router as its user; `socket_name` is what NOTIFY_SOCKET says."""
    started = []

    def start(socket_name):
        installed.write("/etc/pointsman/pointsman.json", CONFIG % fresh_port)
        daemon = Daemon("pointsman", installed.command("pointsman", "serve", "--config", "/etc/pointsman/pointsman.json", user="pointsman"),
                        os.path.join(folder, f"notify-{len(os.listdir(folder))}.log"), stop_signal=signal.SIGKILL,
                        env=clean_environment(NOTIFY_SOCKET=socket_name))
        started.append(daemon)
        daemon.wait_until(lambda: " ready " in daemon.log(), "the router to be ready")
        # runuser stands between: the router is its child.
        with open(f"/proc/{daemon.pid}/task/{daemon.pid}/children", encoding="ascii") as children:
            daemon.router = int(children.read().split()[0])
        return daemon

    yield start
    for daemon in started:
        if daemon.running():
            os.kill(daemon.router, signal.SIGKILL)
            daemon.wait()


@pytest.fixture
def fresh_port():
    from harness.system import free_port

    return free_port()


def test_ready_reloading_and_stopping_are_told(serve, manager, installed):
    router = serve(manager.variable)
    assert manager.hear() == {"READY": "1", "STATUS": "serving 0 branches on 1 listeners"}
    with open(f"/proc/{router.router}/status", encoding="ascii") as status:
        uid = next(line.split()[1] for line in status if line.startswith("Uid:"))
    assert uid == installed.run("id", "-u", "pointsman").stdout.strip() != "0"

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    os.kill(router.router, signal.SIGHUP)
    reloading = manager.hear()
    assert list(reloading) == ["RELOADING", "MONOTONIC_USEC"] and reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert manager.hear() == {"READY": "1", "STATUS": "serving 0 branches on 1 listeners"}

    os.kill(router.router, signal.SIGTERM)
    # 0.3 s of shutdown_delay, 2 s of drain_timeout and 30 s for the rest.
    assert manager.hear() == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "32300000", "STATUS": "draining"}
    assert router.wait() == 0


def test_a_reload_that_fails_is_told_and_over(serve, manager, installed):
    router = serve(manager.variable)
    manager.hear()
    installed.write("/etc/pointsman/pointsman.json", "{")
    heard = manager.hear()  # the changed file is noticed without a signal
    assert heard["RELOADING"] == "1"
    assert manager.hear() == {"READY": "1", "STATUS": "serving 0 branches on 1 listeners, reload failed: see the log"}
    assert router.running()


def test_a_socket_by_path_is_found(serve, installed):
    # Bound through the namespace's view of the machine: a path that both sides know.
    installed.run("install", "-d", "-m", "0755", "/run/manager")
    listener = Daemon("manager", installed.command("/usr/bin/python3", "-u", "-c", """
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/run/manager/notify")
os.chmod("/run/manager/notify", 0o777)
print("listening")
s.settimeout(20)
print(repr(s.recv(4096)))
"""), os.path.join(installed.folder + "-manager.log"), stop_signal=signal.SIGKILL)
    listener.wait_until(lambda: "listening" in listener.log(), "the manager")
    serve("/run/manager/notify")
    assert listener.wait() == 0
    assert "b'READY=1\\nSTATUS=serving 0 branches on 1 listeners\\n'" in listener.log()


@pytest.mark.parametrize("name, said", [
    ("vsock:2:1234", "NOTIFY_SOCKET cannot be used: the service manager is told nothing"),
    ("/nowhere/notify", 'the service manager could not be told message="READY=1" error="No such file or directory"'),
])
def test_a_manager_that_cannot_be_told_changes_nothing(serve, name, said):
    router = serve(name)
    router.wait_until(lambda: said.split()[0] in router.log(), "the warning")
    assert said.replace('message="READY=1"', "message=READY=1") in router.log() or said in router.log(), router.log()
    os.kill(router.router, signal.SIGTERM)
    assert router.wait() == 0
