"""The load program (load.cc), driven by commands over a pipe."""

import json
import os
import select
import subprocess

from .peers import Running
from .process import BenchError

ANSWER_SECONDS = 180


class Load:
    """One client process. It is silent between commands, so that counters can be taken while nothing moves."""

    binary = ""
    openssl_conf = ""  # "": the system's

    def __init__(self, peer: Running, tls: bool, cores: set[int]):
        options = ["--direct-tls"] if tls and peer.direct_tls else []
        environment = {**os.environ, **({"OPENSSL_CONF": self.openssl_conf} if self.openssl_conf else {})}
        self.process = subprocess.Popen(
            [self.binary, *options, peer.conninfo(tls)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            try:
                self.process.communicate("quit\n", timeout=20)
            except (subprocess.TimeoutExpired, BrokenPipeError, ValueError):
                self.process.kill()
        self.process.wait()

    def send(self, command: str):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the reason stands on its standard error, which answer() reads

    def answer(self) -> dict:
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            if not ready:
                self.process.kill()
            raise BenchError(self.process.stderr.read().strip() or "the load program gave no answer")
        return json.loads(line)

    def ask(self, command: str) -> dict:
        self.send(command)
        return self.answer()
