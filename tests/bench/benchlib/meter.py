"""What one slice cost: the proxy's CPU time, and the share of the cores that strangers took meanwhile."""

import os
from pathlib import Path

from .process import Server, cpu_seconds

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def busy_seconds(cores: set[int]) -> float:
    """Time in which the cores were not idle, the hypervisor's theft included."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total / TICKS_PER_SECOND


class Meter:
    """Starts when it is made. The sessions are open by then, so every backend that will work is already there."""

    def __init__(self, proxy: Server | None, postgres: Server, load_pid: int, cores: set[int]):
        self.proxy, self.cores = proxy, cores
        self.others = [load_pid, *postgres.pids()]
        self.before = self.read()

    def read(self) -> tuple[float, float, float]:
        proxy = self.proxy.cpu_seconds() if self.proxy is not None else 0.0
        return proxy, proxy + sum(map(cpu_seconds, self.others)), busy_seconds(self.cores)

    def finish(self, row: dict) -> float:
        """The proxy's CPU seconds; adds `strangers`, their share of the cores during the slice, to the row."""
        used, ours, busy = (after - before for after, before in zip(self.read(), self.before))
        row["strangers"] = round(max(0.0, busy - ours) / row["seconds"] / len(self.cores), 3)
        return used
