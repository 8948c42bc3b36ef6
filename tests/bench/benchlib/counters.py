"""Exact counts: system calls by strace, user instructions by callgrind."""

import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from .process import BenchError, Server, need

PBKDF2 = "PKCS5_PBKDF2_HMAC"


class Strace:
    """Counts the system calls of a running process between `with` and its end. The sessions are open before and stay
    open after, so neither start-up nor logins are in the count."""

    def __init__(self, server: Server, folder: Path):
        self.out = folder / f"strace-{server.pid}"
        self.process = subprocess.Popen(
            [need("strace", "strace"), "-c", "-f", "-o", str(self.out), "-p", str(server.pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True)
        self.calls: Counter[str] = Counter()

    def __enter__(self):
        line = self.process.stderr.readline()  # "strace: Process N attached"
        if "attached" not in line:
            self.process.wait()
            raise BenchError(line.strip() or "strace could not attach")
        time.sleep(0.1)  # with several threads it attaches to the others just after
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        # "% time  seconds  usecs/call  calls  errors  syscall"; the errors column may be empty
        for line in self.out.read_text().splitlines():
            words = line.split()
            if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
                self.calls[words[-1]] += int(words[3])
        self.out.unlink()

    def total(self) -> int:
        return sum(self.calls.values())


class Callgrind:
    """A server under callgrind writes what each function executed when it ends."""

    def __init__(self, out: Path):
        self.out = out

    def tool(self) -> list[str]:
        return [need("valgrind", "valgrind"), "--tool=callgrind", f"--callgrind-out-file={self.out}", "-q"]

    def result(self) -> tuple[int, int]:
        """User instructions in total, and calls of PBKDF2."""
        text = self.out.read_text()
        found = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
        if found is None:
            raise BenchError(f"{self.out.name} has no totals")
        # A function is named once, "(id) name", and by its id alone afterwards; "calls=" belongs to the cfn before it.
        names = dict(re.findall(r"^c?fn=\((\d+)\) (\S+)", text, re.MULTILINE))
        calls = 0
        for callee, count in re.findall(r"^cfn=\((\d+)\).*\ncalls=(\d+)", text, re.MULTILINE):
            if names.get(callee, "").split("@")[0] == PBKDF2:
                calls += int(count)
        return int(found.group(1)), calls
