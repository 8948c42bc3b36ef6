"""Commands and servers: how they start, under whose name, and how they end."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

LOOPBACK = "127.0.0.1"
SERVER_USER = "postgres"  # PostgreSQL refuses to run as root
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_given_ports: set[int] = set()


class RegressError(Exception):
    """Something that is told in a few lines, without a stack trace."""


def free_port() -> int:
    """A free port below the ephemeral range, so that no outgoing connection can take it before its server does."""
    for _ in range(1000):
        port = random.randrange(10_000, 32_000)
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _given_ports.add(port)
        return port
    raise RegressError("no free port between 10000 and 32000")


def as_server_user() -> dict:
    """Popen options that drop root's rights; nothing to drop for anybody else."""
    if os.geteuid() != 0:
        return {}
    return {"user": SERVER_USER, "group": SERVER_USER, "extra_groups": []}


def give_to_server_user(path: Path):
    if os.geteuid() == 0:
        shutil.chown(path, SERVER_USER, SERVER_USER)


def clean_environment(**extra: str) -> dict:
    """The caller's environment without anything that would steer libpq, in a fixed locale."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return environment | {"LC_ALL": "C.UTF-8", "HOME": "/nonexistent"} | extra


def _in_own_session(death_signal: int) -> dict:
    """Popen options: Ctrl-C reaches only the runner, and the end of the runner reaches the process."""
    return {"stdin": subprocess.DEVNULL, "start_new_session": True,
            "preexec_fn": lambda: _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))}


def run(command: list, *, seconds: float = 600, check: bool = True, log: Path | None = None,
        **options) -> subprocess.CompletedProcess:
    """Runs a command to its end; its whole process group dies with the deadline, an error or Ctrl-C.
    `log` receives a copy of what it said. With `check`, a failure is an error that shows the last lines."""
    process = subprocess.Popen([str(part) for part in command], text=True, errors="backslashreplace",
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               **_in_own_session(signal.SIGTERM), **options)
    try:
        output, _ = process.communicate(timeout=seconds)
    except BaseException as reason:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if isinstance(reason, subprocess.TimeoutExpired):
            raise RegressError(f"{command[0]} did not end within {seconds:.0f} s:\n{_tail(output)}") from None
        raise
    if log:
        log.write_text(output)
    if check and process.returncode != 0:
        raise RegressError(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{_tail(output)}")
    return subprocess.CompletedProcess(command, process.returncode, output)


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.splitlines()[-lines:])


class Server:
    """A server in the foreground, its output in a file, ended by signal and deadline."""

    def __init__(self, name: str, command: list, log: Path, stop_signal: int, **options):
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as out:
            self._process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out, cwd=log.parent,
                                             **_in_own_session(stop_signal), **options)

    def wait_until(self, ready, what: str, seconds: float = 60):
        """Asks `ready` until it says yes; a server that has ended, ends the wait with its last words."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None:
                raise RegressError(f"{self.name} ended with {self._process.returncode} before {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise RegressError(f"{self.name}: no {what} within {seconds:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        return _tail(self.log.read_text(errors="backslashreplace"))

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self, seconds: float = 60) -> int:
        """The exit code; a server that does not listen is killed, and its code is then negative."""
        if self.running():
            self._process.send_signal(self._stop_signal)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
