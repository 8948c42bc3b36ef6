"""Targets, ratios of the same round, and the tables."""

from dataclasses import dataclass
from statistics import median

from .workloads import Results

OURS = "pointsman"

# workload prefix -> columns (key of the sample, heading, format); the first is the one whose ratios are shown
COLUMNS = {
    "tx/": [("cpu_per_100k", "CPU s/100k", "{:.2f}"), ("tps", "tps", "{:.0f}"), ("p50_us", "p50 us", "{:.0f}"),
            ("p99_us", "p99 us", "{:.0f}")],
    "bulk/": [("cpu_per_gb", "CPU s/GB", "{:.2f}"), ("mb_per_s", "MB/s", "{:.0f}")],
    "login/": [("cpu_ms", "CPU ms/login", "{:.2f}"), ("logins_per_s", "logins/s", "{:.1f}")],
    "syscalls/": [("per_transaction", "calls/tx", "{:.2f}")],
    "instructions/": [("instructions", "instructions", "{:,.0f}"), ("pbkdf2", "PBKDF2", "{:.1f}")],
    "idle/": [("kib_per_session", "KiB/session", "{:.2f}"), ("base_mib", "base MiB", "{:.1f}")],
}


@dataclass(frozen=True)
class Target:
    """`against` None: an absolute limit. Otherwise the limit is on the median ratio to that peer."""

    title: str
    workload: str  # the sessions of idle/... are filled in
    key: str
    limit: float
    against: str | None = None
    at_least: bool = False
    extra: bool = False  # a goal of ours beyond what was asked


def ratio(kind: str, workload: str, key: str, peer: str, limit: float, at_least=False, extra=False) -> Target:
    return Target(f"{kind}, against {peer}", workload, key, limit, peer, at_least, extra)


TARGETS = [
    Target("system calls per transaction, plain, 1 client", "syscalls/plain/c1/simple", "per_transaction", 6.1),
    Target("system calls per transaction, TLS, 1 client", "syscalls/tls/c1/simple", "per_transaction", 6.1),
    Target("system calls per transaction, plain, 16 clients", "syscalls/plain/c16/simple", "per_transaction", 4.3),
    Target("user instructions per plain transaction", "instructions/tx/plain", "instructions", 2000),
    ratio("CPU per plain transaction", "tx/plain/c1/simple/1core", "cpu_per_100k", "haproxy", 0.86),
    ratio("CPU per plain transaction", "tx/plain/c1/simple/1core", "cpu_per_100k", "pgbouncer", 0.92),
    ratio("CPU per plain transaction", "tx/plain/c1/simple/1core", "cpu_per_100k", "relay-uv", 1.08, extra=True),
    ratio("CPU per TLS transaction", "tx/tls/c1/simple/1core", "cpu_per_100k", "haproxy", 0.80),
    ratio("CPU per TLS transaction", "tx/tls/c1/simple/1core", "cpu_per_100k", "pgbouncer", 0.92),
    *[ratio(f"CPU per {kind} transaction, 16 clients", f"tx/{kind.lower()}/c16/simple/2cores", "cpu_per_100k", peer,
            limit, extra=True)
      for kind, peer, limit in (("plain", "haproxy", 0.85), ("plain", "pgbouncer", 1.0), ("TLS", "haproxy", 0.80),
                                ("TLS", "pgbouncer", 0.92))],
    ratio("CPU per TLS transaction, prepared, 16 clients", "tx/tls/c16/prepared/2cores", "cpu_per_100k", "haproxy",
          0.95, extra=True),
    *[ratio(f"bulk {direction}, {kind}: CPU per GB", f"bulk/{kind.lower()}/{direction}/1core", "cpu_per_gb", "haproxy",
            limit)
      for kind, limit in (("plain", 0.90), ("TLS", 0.95)) for direction in ("out", "in")],
    *[ratio(f"bulk {direction}, {kind}: MB/s", f"bulk/{kind.lower()}/{direction}/2cores", "mb_per_s", "direct", limit,
            at_least=True)
      for kind, limit in (("plain", 0.95), ("TLS", 1.0)) for direction in ("out", "in")],
    ratio("CPU per TLS login, SCRAM on both sides", "login/tls/1core", "cpu_ms", "haproxy", 1.0),
    ratio("logins per second, plain", "login/plain/1core", "logins_per_s", "direct", 0.95, at_least=True),
    ratio("logins per second, TLS", "login/tls/1core", "logins_per_s", "direct", 0.95, at_least=True),
    Target("PBKDF2 runs per login", "instructions/login/plain", "pbkdf2", 0),
    Target("RSS per idle session, plain, KiB", "idle/plain/", "kib_per_session", 1.5),
    Target("RSS per idle session, TLS, KiB", "idle/tls/", "kib_per_session", 16),
    Target("RSS of the process without sessions, MiB", "idle/plain/", "base_mib", 12),
]


def values(results: Results, workload: str, peer: str, key: str) -> list:
    """One value a round, None where the round failed."""
    return [None if row is None else row.get(key) for row in results.samples.get(workload, {}).get(peer, [])]


def present(column: list) -> list[float]:
    return [value for value in column if value is not None]


def round_ratios(results: Results, workload: str, peer: str, other: str, key: str) -> list[float]:
    pairs = zip(values(results, workload, peer, key), values(results, workload, other, key))
    return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]


def judge(results: Results) -> list[dict]:
    rows = []
    for target in TARGETS:
        workload = target.workload
        if workload.endswith("/"):
            workload = next((name for name in results.samples if name.startswith(workload)), workload)
        if target.against is None:
            series = present(values(results, workload, OURS, target.key))
        else:
            series = round_ratios(results, workload, OURS, target.against, target.key)
        row = {"target": target.title, "workload": workload, "limit": target.limit,
               "sense": "at least" if target.at_least else "at most", "extra": target.extra,
               "value": None, "spread": None, "verdict": "not measured"}
        if series:
            sides = [value >= target.limit if target.at_least else value <= target.limit for value in series]
            value = median(series)
            met = value >= target.limit if target.at_least else value <= target.limit
            unsure = sides.count(met) < 0.75 * len(sides)  # more than a quarter of the rounds say the opposite
            row |= {"value": value, "spread": [min(series), max(series)],
                    "verdict": ("met" if met else "NOT met") + (", unsure" if unsure else "")}
        rows.append(row)
    return rows


def summary(results: Results) -> dict:
    """Per workload and peer: median, least and most of every number, and the median ratio to every other peer."""
    out: dict = {}
    for workload, peers in results.samples.items():
        columns = next(shown for prefix, shown in COLUMNS.items() if workload.startswith(prefix))
        for peer in peers:
            entry = out.setdefault(workload, {}).setdefault(peer, {})
            for key, _, _ in columns:
                column = present(values(results, workload, peer, key))
                if not column:
                    continue
                entry[key] = {"median": median(column), "least": min(column), "most": max(column),
                              "rounds": len(column)}
                ratios = {other: round_ratios(results, workload, peer, other, key) for other in peers if other != peer}
                entry[key]["ratio_to"] = {other: median(series) for other, series in ratios.items() if series}
    return out


def table(heading: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(len(heading))]
    lines = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
             for row in [heading, ["-" * w for w in widths], *rows]]
    return "\n".join(line.rstrip() for line in lines)


def workload_tables(results: Results) -> str:
    """One block a workload: median (least) of each number, and the median same-round ratios of the first one."""
    blocks = []
    for workload, peers in summary(results).items():
        columns = next(shown for prefix, shown in COLUMNS.items() if workload.startswith(prefix))
        key = columns[0][0]
        compared = [name for name in ("haproxy", "pgbouncer", "relay-uv") if name in peers]
        tps = "tps" if workload.startswith("tx/") else "mb_per_s" if workload.startswith("bulk/") else \
            "logins_per_s" if workload.startswith("login/") else None
        heading = [workload, *[title for _, title, _ in columns], *[f"/{name}" for name in compared]]
        if tps and "direct" in peers:
            heading.append("speed/direct")
        rows = []
        for peer, entry in peers.items():
            row = [peer]
            for column, _, pattern in columns:
                found = entry.get(column)
                if found is None or (peer == "direct" and column == key):
                    row.append("-")
                elif found["rounds"] == 1:
                    row.append(pattern.format(found["median"]))
                else:
                    row.append(f"{pattern} ({pattern})".format(found["median"], found["least"]))
            ratios = entry.get(key, {}).get("ratio_to", {})
            row += [f"{ratios[name]:.2f}" if name in ratios and peer != "direct" else "-" for name in compared]
            if tps and "direct" in peers:
                speed = entry.get(tps, {}).get("ratio_to", {}).get("direct")
                row.append("-" if speed is None else f"{speed:.2f}")
            rows.append(row)
        blocks.append(table(heading, rows))
        if workload.startswith("syscalls/"):
            blocks[-1] += "".join(f"\n  {peer}: {call_list(results, workload, peer)}" for peer in peers)
    return "\n\n".join(blocks)


def call_list(results: Results, workload: str, peer: str) -> str:
    calls = (results.samples[workload][peer][-1] or {}).get("calls", {})
    return ", ".join(f"{call} {count:g}" for call, count in calls.items() if count >= 0.01)


def strangers(results: Results) -> str:
    """How much of the cores went to processes that are none of ours: the reader's measure of trust."""
    shares = [row["strangers"] for peers in results.samples.values() for rows in peers.values() for row in rows
              if row is not None and "strangers" in row]
    if not shares:
        return ""
    return f"other processes took {median(shares):.0%} of the cores (median slice), at most {max(shares):.0%}"


def target_table(judged: list[dict]) -> str:
    rows = []
    for row in judged:
        if row["value"] is None:
            continue
        spread = "{:,.2f} .. {:,.2f}".format(*row["spread"])
        title = row["target"] + (" (extra)" if row["extra"] else "")
        rows.append([title, f"{row['sense']} {row['limit']:g}", f"{row['value']:,.2f}", spread, row["verdict"]])
    text = table(["target", "limit", "value", "over the rounds", ""], rows)
    missing = len(judged) - len(rows)
    return text + (f"\n({missing} targets were not measured in this run)" if missing else "")
