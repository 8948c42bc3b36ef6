"""Servers as child processes: how they start, where they run, what they cost, how they end."""

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
SERVER_USER = "postgres"  # PostgreSQL and PgBouncer refuse to run as root
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_given_ports: set[int] = set()
_running: list["Server"] = []


class BenchError(Exception):
    """Something that is told in one line, without a stack trace."""


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
    raise BenchError("no free port between 10000 and 32000")


def run(command: list[str], **options) -> str:
    """A command that must succeed; its standard output."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def as_server_user() -> dict:
    """Popen options that drop root's rights."""
    if os.geteuid() != 0:
        return {}
    return {"user": SERVER_USER, "group": SERVER_USER, "extra_groups": []}


def need(binary: str, package: str, extra_path: str = "/usr/sbin:/usr/bin") -> str:
    """The path of a program, or an error that names its Debian package. Nothing is installed from here."""
    found = shutil.which(binary) or shutil.which(binary, path=extra_path)
    if found is None:
        raise BenchError(f"{binary} is missing: apt-get install {package} (or leave it out with --only and --peers)")
    return found


class Server:
    """A running server: its own session (so Ctrl-C reaches only the runner), ended when the runner ends."""

    def __init__(self, name: str, command: list[str], log: Path, stop_signal=signal.SIGTERM):
        self.name = name
        self.log = log
        self.stop_signal = stop_signal

        def die_with_parent():
            _libc.prctl(PR_SET_PDEATHSIG, int(stop_signal))

        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent,
                start_new_session=True, preexec_fn=die_with_parent, **as_server_user())
        self.pid = self.process.pid
        _running.append(self)

    def wait_for_port(self, port: int, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            try:
                socket.create_connection((LOOPBACK, port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise BenchError(f"{self.name} does not listen on {port} after {seconds} s:\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def stop(self, seconds: float = 10):
        if self in _running:
            _running.remove(self)
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def pids(self) -> list[int]:
        """The process and its children (PostgreSQL's backends; the others have none)."""
        found = [self.pid]
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                found += map(int, (task / "children").read_text().split())
            except OSError:
                continue  # the thread has just ended
        return found

    def pin(self, cores: set[int]):
        for pid in self.pids():
            pin(pid, cores)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def rss_kib(self) -> int:
        """Resident memory. smaps_rollup walks the pages; VmRSS lags behind by up to 64 pages a thread."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1])
        raise BenchError(f"no Rss for {self.name}")


def pin(pid: int, cores: set[int]):
    """Moves every thread of a process."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), cores)
    except (ProcessLookupError, FileNotFoundError):
        pass  # a backend that has just ended


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads. schedstat counts nanoseconds; utime and stime of /proc/PID/stat count ticks."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        pass  # a backend that has just ended
    return total / 1e9


def stop_all():
    for server in reversed(list(_running)):
        server.stop()
