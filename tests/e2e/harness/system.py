"""Processes, ports and waiting: everything here is about this machine and nothing about PostgreSQL."""

import contextlib
import ctypes
import functools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time

SERVER_USER = "postgres"
DEADLINE = 20.0  # seconds; what an event that is sure to come may take on a busy machine


class NotYet(AssertionError):
    """An awaited event did not come before its deadline."""


def wait_until(probe, what, deadline=DEADLINE, every=0.02):
    """Asks `probe` until it answers something true, and returns that. Exceptions count as "not yet"."""
    end = time.monotonic() + deadline
    last = None
    while True:
        try:
            last = probe()
            if last:
                return last
        except Exception as error:  # the last one is shown when time is up
            last = error
        if time.monotonic() >= end:
            raise NotYet(f"waited {deadline} s for {what}; last answer: {last!r}")
        time.sleep(every)


# --- ports -----------------------------------------------------------------

_PORTS = range(10000, 32000)
_SLICES = 4


@functools.cache
def _own_ports():
    """This process's part of the ports, in any order: runs side by side take none from each other, not even one whose server is down
    just now. The claim is a name that ends with the process. More runs than parts share them all."""
    size = len(_PORTS) // _SLICES
    for first in range(_PORTS.start, _PORTS.stop, size):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0pointsman-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        return random.SystemRandom().sample(range(first, first + size), size), claim
    return random.SystemRandom().sample(_PORTS, len(_PORTS)), None


def free_port():
    """A free loopback port below the ephemeral range, so that no outgoing connection of a test can take it
    between here and the server's bind. Never handed out twice in one run."""
    ports, _ = _own_ports()
    while ports:
        port = ports.pop()
        with contextlib.closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("this run's ports are used up")


def is_listening(port, host="127.0.0.1"):
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


@contextlib.contextmanager
def black_hole():
    """A port that accepts the TCP handshake and then never says a word."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


# --- processes -------------------------------------------------------------

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent(signal_number):
    def before_exec():
        _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)

    return before_exec


def as_server_user():
    """Keyword arguments for subprocess: PostgreSQL and PgBouncer refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(SERVER_USER)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def server_user_name():
    return SERVER_USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def give_to_server_user(path):
    if os.geteuid() == 0:
        account = pwd.getpwnam(SERVER_USER)
        os.chown(path, account.pw_uid, account.pw_gid)
    return path


def clean_environment(**extra):
    """The caller's environment without anything that would steer libpq, in a fixed locale."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    environment["LC_ALL"] = "C.UTF-8"
    environment["LC_MESSAGES"] = "C"
    environment["HOME"] = "/nonexistent"  # no ~/.pgpass, no ~/.postgresql/root.crt
    environment.update({key: str(value) for key, value in extra.items()})
    return environment


def run(command, *, timeout=60, check=True, env=None, cwd="/", **more):
    """subprocess.run with text output captured, a deadline, and an error that shows what the program said."""
    result = subprocess.run(
        [str(part) for part in command], env=env or clean_environment(), cwd=cwd, timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="backslashreplace",
        stdin=more.pop("stdin", subprocess.DEVNULL) if "input" not in more else None, **more)
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))}\nexit code {result.returncode}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}")
    return result


def run_as_server(command, **more):
    return run(command, **as_server_user(), **more)


class Daemon:
    """A foreground server of ours: its output in a file, its end by signal and deadline. It dies with the tests."""

    def __init__(self, name, command, log_path, *, stop_signal, as_server=False, env=None, **more):
        self.name = name
        self.log_path = log_path
        self.stop_signal = stop_signal
        self._log = open(log_path, "ab")
        if as_server:
            more.update(as_server_user())
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env=env or clean_environment(), cwd="/", start_new_session=True,
            preexec_fn=_die_with_parent(stop_signal), **more)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="backslashreplace") as text:
            return text.read()

    def wait_until(self, probe, what, deadline=DEADLINE):
        """Like the function, but a dead process ends the wait at once and shows its last words."""
        def alive_and():
            return "dead" if not self.running() else probe()

        try:
            answer = wait_until(alive_and, what, deadline)
        except NotYet as late:
            raise NotYet(f"{late}\n{self.name} said:\n{self.log()[-4000:]}") from None
        if answer == "dead":
            raise AssertionError(f"{self.name} ended with {self.process.returncode} while waiting for {what}:\n{self.log()[-4000:]}")
        return answer

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, deadline=DEADLINE):
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise NotYet(f"{self.name} did not end within {deadline} s:\n{self.log()[-4000:]}") from None

    def stop(self, deadline=DEADLINE):
        """Asks it to end; whatever does not listen is killed and reported."""
        try:
            if self.running():
                self.signal(self.stop_signal)
            return self.wait(deadline)
        except NotYet:
            self.kill()
            raise
        finally:
            self._log.close()

    def kill(self):
        if self.running():
            self.signal(signal.SIGKILL)
        self.process.wait()
        self._log.close()


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def which(name, *, extra=("/usr/sbin", "/usr/lib/postgresql/15/bin")):
    found = shutil.which(name) or next(
        (path for folder in extra if os.access(path := os.path.join(folder, name), os.X_OK)), None)
    if not found:
        raise AssertionError(f"{name} is not installed")
    return found
