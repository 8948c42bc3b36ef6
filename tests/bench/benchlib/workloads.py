"""What is measured. Every workload leaves samples in a Results object: one row of numbers for a peer and a round."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

from .client import Load
from .counters import Callgrind, Strace
from .meter import Meter
from .peers import Peer, Running
from .postgres import Postgres, Workdir
from .process import BenchError, pin

MB, GB = 1e6, 1e9
ROW = 1000  # bytes of a COPY row, newline included
NARROW_ROW = 100  # a table of a few numbers: ten times the messages to look at


@dataclass
class Effort:
    """How much of everything; see run.py for the two presets."""

    rounds: int
    seconds: float  # of one slice of transactions
    bulk_rounds: int
    bulk_bytes: int
    login_seconds: float
    idle_sessions: int
    still_seconds: float  # memory counts as settled after so long without a change
    counted: int  # transactions under strace
    two_cores: bool
    long_list: bool  # all workloads, not only those the targets need


@dataclass
class Results:
    """samples[workload][peer] is the list of rounds; a missing round is None, so rounds stay comparable."""

    samples: dict = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    notes: list[str] = field(default_factory=list)
    tls: dict[str, str] = field(default_factory=dict)

    def add(self, workload: str, peer: str, row: dict | None):
        self.samples[workload][peer].append(row)


class Bench:
    def __init__(self, work: Workdir, postgres: Postgres, peers: list[Peer], effort: Effort, core: int,
                 all_cores: set[int], say):
        self.work, self.postgres, self.peers, self.effort = work, postgres, peers, effort
        self.one, self.two, self.say = {core}, all_cores, say
        self.results = Results()
        self.broken: set[tuple[str, str]] = set()

    # -- helpers -----------------------------------------------------------------------------------------------------

    def attempt(self, workload: str, peer: Peer, measure, target: Running | None = None):
        """A peer that fails a workload is noted and left out of it; the others go on."""
        row = None
        if (workload, peer.name) not in self.broken:
            try:
                row = measure()
            except (BenchError, OSError) as error:
                self.broken.add((workload, peer.name))
                why = f"{workload}: {peer.name} failed: {error}"
                if target is not None and target.server is not None and target.server.process.poll() is not None:
                    why += f"\nits process ended with {target.server.process.returncode}:\n{target.server.tail()}"
                self.results.notes.append(why)
                self.say("  " + why)
        self.results.add(workload, peer.name, row)

    def started(self, peers: list[Peer], cores: set[int]) -> dict[str, Running]:
        """One fresh process of each peer, with as many threads as it gets cores."""
        running = {}
        for peer in peers:
            try:
                running[peer.name] = peer.start(len(cores))
            except BenchError as error:
                self.results.notes.append(f"{peer.name} did not start: {error}")
                self.say(f"  {peer.name} did not start: {error}")
        return running

    def interleaved(self, rounds: int, slices: list, running: dict[str, Running], cores: set[int]):
        """Round by round, slice by slice, all peers in turn; who begins moves on by one each time, so that no peer
        always follows the same neighbour or always has the quiet moment."""
        for number in range(rounds):
            for workload, peers, measure in slices:
                present = [peer for peer in peers if peer.name in running]
                for step in range(len(present)):
                    peer = present[(step + number) % len(present)]
                    target = running[peer.name]

                    def pinned():
                        self.pin(target, cores)
                        return measure(peer, target)

                    self.attempt(workload, peer, pinned, target)
            self.say(f"  round {number + 1} of {rounds}")

    def pin(self, target: Running, cores: set[int]):
        self.postgres.server.pin(cores)
        if target.server is not None:
            target.server.pin(cores)

    def tls_peers(self, tls: bool) -> list[Peer]:
        return [peer for peer in self.peers if (peer.has_tls or not tls)]

    def proxies(self, tls: bool) -> list[Peer]:
        return [peer for peer in self.tls_peers(tls) if peer.name != "direct" and not peer.bulk_only]

    def counted_peers(self, tls: bool) -> list[Peer]:
        """For figures that do not change from run to run: a quick look at Pointsman needs no other proxy's again."""
        proxies = self.proxies(tls)
        if self.effort.long_list or all(peer.name != "pointsman" for peer in proxies):
            return proxies
        return [peer for peer in proxies if peer.name in ("relay-uv", "pointsman")]

    def open(self, peer: Peer, load: Load, tls: bool, count: int):
        answer = load.ask(f"open {count}")
        if tls:
            self.results.tls[peer.name] = answer["tls"]

    def meter(self, target: Running, load: Load, cores: set[int]) -> Meter:
        return Meter(target.server, self.postgres.server, load.process.pid, cores)

    def cpu(self, target: Running) -> float:
        return target.server.cpu_seconds() if target.server is not None else 0.0

    # -- transactions ------------------------------------------------------------------------------------------------

    def transactions(self):
        """CPU of the proxy per 100,000 transactions; tps and latency beside it."""
        one = [(False, 1, "simple"), (True, 1, "simple")]
        if self.effort.long_list:
            one += [(False, 16, "simple"), (True, 16, "simple"), (False, 1, "prepared")]
        self.transactions_on("1core", self.one, one)
        if self.effort.long_list and self.effort.two_cores:
            two = [(False, 16, "simple"), (True, 16, "simple"), (True, 16, "prepared")]
            self.transactions_on("2cores", self.two, two)

    def transactions_on(self, label: str, cores: set[int], kinds: list):
        def slice_of(tls, clients, protocol):
            def measure(peer, target):
                with Load(target, tls, cores) as load:
                    self.open(peer, load, tls, clients)
                    load.ask(f"{protocol} count 50")  # warm: plans, caches, PgBouncer's server connections
                    meter = self.meter(target, load, cores)
                    row = load.ask(f"{protocol} seconds {self.effort.seconds}")
                    used = meter.finish(row)
                row["tps"] = row["transactions"] / row["seconds"]
                row["cpu_per_100k"] = used / row["transactions"] * 1e5
                return row

            name = f"tx/{'tls' if tls else 'plain'}/c{clients}/{protocol}/{label}"
            return name, [peer for peer in self.tls_peers(tls) if not peer.bulk_only], measure

        running = self.started([peer for peer in self.peers if not peer.bulk_only], cores)
        self.interleaved(self.effort.rounds, [slice_of(*kind) for kind in kinds], running, cores)
        self.stop(running)

    # -- bulk --------------------------------------------------------------------------------------------------------

    def bulk(self):
        """CPU of the proxy per GB on one core; MB/s on all cores, where the proxy has a core to run on."""
        self.bulk_on("1core", self.one)
        if self.effort.two_cores:
            self.bulk_on("2cores", self.two)

    def bulk_on(self, label: str, cores: set[int]):
        def slice_of(tls, direction, row_bytes):
            def measure(peer, target):
                with Load(target, tls, cores) as load:
                    self.open(peer, load, tls, 1)
                    load.ask(f"{direction} {8 * MB:.0f} {row_bytes}")
                    meter = self.meter(target, load, cores)
                    row = load.ask(f"{direction} {self.effort.bulk_bytes} {row_bytes}")
                    used = meter.finish(row)
                row["mb_per_s"] = row["bytes"] / row["seconds"] / MB
                row["cpu_per_gb"] = used / row["bytes"] * GB
                return row

            narrow = "-narrow" if row_bytes == NARROW_ROW else ""
            return f"bulk/{'tls' if tls else 'plain'}/{direction}{narrow}/{label}", self.tls_peers(tls), measure

        kinds = [(tls, direction, ROW) for tls in (False, True) for direction in ("out", "in")]
        if self.effort.long_list and cores == self.one:
            kinds.append((False, "out", NARROW_ROW))
        running = self.started(self.peers, cores)
        self.interleaved(self.effort.bulk_rounds, [slice_of(*kind) for kind in kinds], running, cores)
        self.stop(running)

    # -- logins ------------------------------------------------------------------------------------------------------

    def logins(self):
        """Log in, log out, again: the proxy's CPU per login, and logins per second."""
        def slice_of(tls):
            def measure(peer, target):
                with Load(target, tls, self.one) as load:
                    load.ask("login count 3")
                    before = self.cpu(target)
                    row = load.ask(f"login seconds {self.effort.login_seconds}")
                    used = self.cpu(target) - before
                row["logins_per_s"] = row["logins"] / row["seconds"]
                row["cpu_ms"] = used / row["logins"] * 1e3
                return row

            return (f"login/{'tls' if tls else 'plain'}/1core",
                    [peer for peer in self.tls_peers(tls) if not peer.bulk_only], measure)

        running = self.started([peer for peer in self.peers if not peer.bulk_only], self.one)
        self.interleaved(self.effort.rounds, [slice_of(False), slice_of(True)], running, self.one)
        self.stop(running)

    # -- exact counts ------------------------------------------------------------------------------------------------

    def syscalls(self):
        """System calls per transaction, on one core."""
        running = self.started(self.proxies(False), self.one)
        for tls, clients, protocol in ((False, 1, "simple"), (True, 1, "simple"), (False, 16, "simple"),
                                       (True, 16, "simple"), (False, 1, "prepared")):
            if protocol == "prepared" and not self.effort.long_list:
                continue
            name = f"syscalls/{'tls' if tls else 'plain'}/c{clients}/{protocol}"
            for peer in self.proxies(tls):
                target = running.get(peer.name)
                if target is None:
                    continue
                self.attempt(name, peer, lambda: self.count_syscalls(peer, target, tls, clients, protocol), target)
        self.stop(running)

    def count_syscalls(self, peer: Peer, target: Running, tls: bool, clients: int, protocol: str) -> dict:
        self.pin(target, self.one)
        with Load(target, tls, self.one) as load:
            self.open(peer, load, tls, clients)
            load.ask(f"{protocol} count 50")
            with Strace(target.server, self.work.path) as strace:
                pin(strace.process.pid, self.one)
                done = load.ask(f"{protocol} count {max(1, self.effort.counted // clients)}")["transactions"]
        return {"per_transaction": strace.total() / done,
                "calls": {call: round(count / done, 3) for call, count in strace.calls.most_common(6)}}

    def instructions(self):
        """User instructions per transaction and per login: two runs of different length under callgrind, and the
        difference of their totals, so that start-up, login and shutdown cancel out."""
        for name, short, long, unit in (
                ("instructions/tx/plain", "simple count 500", "simple count 2500", 2000),
                ("instructions/tx/tls", "simple count 500", "simple count 2500", 2000),
                ("instructions/login/plain", "login count 3", "login count 13", 10)):
            tls = name.endswith("tls")
            if tls and not self.effort.long_list:
                continue
            for peer in self.counted_peers(tls):
                def measure(p=peer):
                    first, second = self.counted_run(p, tls, short), self.counted_run(p, tls, long)
                    return {"instructions": (second[0] - first[0]) / unit, "pbkdf2": (second[1] - first[1]) / unit}

                self.attempt(name, peer, measure)

    def counted_run(self, peer: Peer, tls: bool, command: str) -> tuple[int, int]:
        out = self.work.folder(f"callgrind-{time.monotonic_ns()}") / "out"
        callgrind = Callgrind(out)
        target = peer.start(1, callgrind.tool())
        try:
            with Load(target, tls, self.two) as load:
                if not command.startswith("login"):
                    load.ask("open 1")
                load.ask(command)
        finally:
            target.server.stop(60)
        return callgrind.result()

    # -- memory ------------------------------------------------------------------------------------------------------

    def idle(self):
        """RSS of a fresh process, then with many sessions that have logged in and do nothing."""
        for tls in (False, True):
            name = f"idle/{'tls' if tls else 'plain'}/{self.effort.idle_sessions}"
            for peer in self.counted_peers(tls):
                self.attempt(name, peer, lambda p=peer: self.idle_memory(p, tls))

    def idle_memory(self, peer: Peer, tls: bool) -> dict:
        target = peer.start(1)
        try:
            self.pin(target, self.two)
            with Load(target, tls, self.two) as load:
                load.ask("login count 2")  # what is loaded once, at the first login, belongs to the base
            base = settled_rss(target, 1.5)
            with Load(target, tls, self.two) as first, Load(target, tls, self.two) as second:
                for load in (first, second):
                    load.send(f"open {self.effort.idle_sessions // 2}")
                for load in (first, second):
                    load.answer()
                full = settled_rss(target, self.effort.still_seconds)
        finally:
            target.stop()
        return {"base_mib": base / 1024, "kib_per_session": (full - base) / self.effort.idle_sessions}

    def stop(self, running: dict[str, Running]):
        for target in running.values():
            target.stop()


def settled_rss(target: Running, still_seconds: float) -> int:
    """RSS once it has not moved for a while (a proxy may give buffers back when a session has been quiet)."""
    last, still_since = -1, time.monotonic()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and time.monotonic() - still_since < still_seconds:
        now = target.server.rss_kib()
        if now != last:
            last, still_since = now, time.monotonic()
        time.sleep(0.25)
    return last
