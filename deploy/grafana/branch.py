"""The dashboard Branch: one cluster as its routers see it."""

from fleet import INSTANCE, JOB, NONE_IS_GOOD, OUTCOMES, ROUTES, SOME_IS_WORTH_A_LOOK
from panels import (BLUE, GREEN, ORANGE, RED, YELLOW, by_name, dashboard, event_marks, graph, heatmap, in_range, mappings, of, per_minute, per_second,
                    quantile, rate, row, stat, states, table, target, thresholds, variable)

BRANCH = 'branch="$branch"'
SECOND_WRITER = 'reason=~"second_writer|old_timeline|not_named"'
BRANCH_VARIABLE = variable("branch", "Branch", 'label_values(pointsman_branch_info{job=~"$job", instance=~"$instance"}, branch)')

_SAME_MEMBER = "on (job, instance, branch, member)"
DASHED = {"fill": "dash", "dash": [8, 8]}
MEMBER_STATES = mappings(v0=("down", RED), v1=("up, gets no sessions", ORANGE), v2=("replica in use", GREEN), v3=("primary", BLUE))
YES_IS_WORTH_A_LOOK = mappings(v0=("no", GREEN), v1=("yes", YELLOW))

MARKS = [
    event_marks("Failovers", RED, f"max by (branch) (changes({of('pointsman_failovers_total', BRANCH)}[1m])) > 0", "failover"),
    event_marks("Holds", YELLOW, f"max by (branch) ({of('pointsman_branch_on_hold', BRANCH)}) > 0", "on hold"),
]


def of_branch(metric, *matchers):
    return of(metric, BRANCH, *matchers)


def now():
    replicas = of_branch("pointsman_replica_lag_limit_seconds")
    eligible = f"({of_branch('pointsman_member_eligible')} == 1) and {_SAME_MEMBER} {replicas}"
    return [
        stat("Primary", "The verified primary. Nothing here: there is none, or nobody uses the branch. Two names: routers disagree.",
             [target(f"max by (member) ({of_branch('pointsman_member_is_primary')} == 1)", "{{member}}")], names=True, width=4,
             color={"mode": "fixed", "fixedColor": BLUE}),
        stat("Replicas in use", "Replicas that new sessions are sent to, as the router that sees fewest has it.",
             [target(f"min(sum by (instance) (({eligible}) or {replicas} * 0))")], steps=thresholds((None, RED), (1, GREEN))),
        stat("Replicas", "Members that are replicas now.", [target(f"count(count by (member) ({replicas}))")],
             color={"mode": "fixed", "fixedColor": BLUE}),
        stat("Worst lag against its limit", "100 %: from here on the replica gets no new sessions.",
             [target(f"max({of_branch('pointsman_replica_lag_seconds')} / {_SAME_MEMBER} {replicas})")], unit="percentunit",
             steps=thresholds((None, GREEN), (0.6, YELLOW), (1, RED))),
        stat("Sessions", "Sessions relayed now.", [target(f"sum({of_branch('pointsman_connections_active')})")],
             color={"mode": "fixed", "fixedColor": BLUE}, sparkline=True),
        stat("Held now", "Logins that wait for a place.", [target(f"sum({of_branch('pointsman_held_connections')})")], steps=SOME_IS_WORTH_A_LOOK),
        stat("On hold", "Whether a planned switch is under way.", [target(f"max({of_branch('pointsman_branch_on_hold')})")],
             maps=YES_IS_WORTH_A_LOOK, width=2),
        stat("Second writers", "Members that take writes and are not the primary. Anything but 0: two servers take writes.",
             [target(f"count(count by (member) ({of_branch('pointsman_member_rejected', SECOND_WRITER)} > 0)) or vector(0)")], steps=NONE_IS_GOOD),
    ]


def routing():
    def decisions(labels):
        return per_second(labels, "pointsman_routing_decisions_total", BRANCH)

    return [
        row("Where connections go, and why"),
        graph("Logins by reason", "Why sessions were sent where they were. fallback_…: no replica qualified; held: they waited first.",
              [target(decisions("route, reason"), "{{route}}: {{reason}}")], unit="cps", stacked=True,
              overrides=[by_name("fallback_|held$", colour=ORANGE)]),
        graph("Logins by member", "Which server gets new sessions. A replica that gets none is out, or has been added a moment ago.",
              [target(decisions("member"), "{{member}}")], unit="cps", stacked=True),
        graph("Sessions per member", "Sessions on each server now, by the way they took. On pool routes the member is pool/endpoint.",
              [target(f"sum by (route, member) ({of_branch('pointsman_connections_active')})", "{{route}}: {{member}}")], stacked=True, table=True),
        graph("Refusals by reason", "Why logins of this branch were told no, per minute. The words: docs/operations.md.",
              [target(per_minute("reason", "pointsman_routing_refusals_total", BRANCH), "{{reason}}")], unit="cpm", bars=True),
        graph("How logins end", "By outcome, per minute. failed: gone without an answer, mostly by the client.",
              [target(per_minute("outcome", "pointsman_connections_total", BRANCH), "{{outcome}}")], unit="cpm", stacked=True, overrides=OUTCOMES),
        table("Refusals in the shown time", "Counted over the time that the dashboard shows.",
              [target(in_range("listener, reason", "pointsman_routing_refusals_total", BRANCH) + " > 0")], width=8, sort="Refusals", decimals=0,
              columns={"listener": "Listener", "reason": "Reason", "Value": "Refusals"}),
    ]


def replicas():
    standing = (f"max by (member) ({of_branch('pointsman_member_is_primary')} == 1) * 3 or max by (member) ({of_branch('pointsman_member_eligible')} == 1) * 2"
                f" or max by (member) ({of_branch('pointsman_member_up')})")
    return [
        row("Members: who is what, and how far behind"),
        graph("Lag against its limit", "How long ago the primary was where the replica is. Above the dashed limit it gets no new sessions. A gap: the lag is not known.",
              [target(f"max by (member) ({of_branch('pointsman_replica_lag_seconds')})", "{{member}}"),
               target(f"max by (member) ({of_branch('pointsman_replica_lag_limit_seconds')})", "limit of {{member}}")], unit="s", table=True,
              overrides=[by_name("^limit of ", colour=RED, dash=DASHED, fill=0)]),
        states("Members", "What each server is to the routers. A change of colour here explains most others. No bar: its role is not known.",
               [target(standing, "{{member}}")], MEMBER_STATES),
        graph("Lag in bytes", "Write-ahead log that the replica has not replayed. Also there when the lag in seconds is beyond what the router remembers.",
              [target(f"max by (member) ({of_branch('pointsman_replica_lag_bytes')})", "{{member}}")], unit="bytes", table=True),
        graph("Age of what is known", "Time since the replica answered a probe: the lag is as old as this.",
              [target(f"max by (member) ({of_branch('pointsman_lag_sample_age_seconds')})", "{{member}}")], unit="s"),
        graph("What fails with a server", "Failed probes, and sessions that could not be connected, per minute. All members at once: look at the router or its login.",
              [target(f"sum by (member) ({rate('pointsman_probe_failures_total', BRANCH)}) * 60", "{{member}} probes"),
               target(per_minute("member", "pointsman_dial_failures_total", BRANCH), "{{member}} sessions")], unit="cpm"),
        graph("Source of members", "1 while the source of the branch's members answers, by router; nothing where the members are listed in the configuration.",
              [target(f"min by (instance) ({of_branch('pointsman_discovery_up')})", "{{instance}}"),
               target(f"sum by (instance) ({rate('pointsman_discovery_failures_total', BRANCH)}) * 60", "{{instance}} failures per minute")],
              decimals=0),
    ]


def latency():
    trip = "pointsman_roundtrip_seconds"
    others = 'branch=""'
    return [
        row("Time"),
        graph("Login by phase (95 %), all branches", "Logins are timed per listener and not per branch. hold is this branch's only if nobody else is held.",
              [target(quantile(0.95, "phase", "pointsman_login_seconds"), "{{phase}}")], unit="s"),
        graph("Time on hold", "How long held logins of this branch were held: half of them, and nearly all.",
              [target(quantile(0.5, "", "pointsman_hold_seconds", BRANCH), "median"),
               target(quantile(0.99, "", "pointsman_hold_seconds", BRANCH), "99 %")], unit="s"),
        graph("Round trip by route, this branch", "From a request's first byte to ReadyForQuery. Only for branches with roundtrip_metric in the configuration: the others share the next panel.",
              [target(quantile(0.5, "route", trip, BRANCH), "{{route}} median"), target(quantile(0.99, "route", trip, BRANCH), "{{route}} 99 %")],
              unit="s"),
        graph("Round trip by route, branches without figures of their own", "The same for all branches without roundtrip_metric, together.",
              [target(quantile(0.5, "route", trip, others), "{{route}} median"), target(quantile(0.99, "route", trip, others), "{{route}} 99 %")],
              unit="s"),
        heatmap("Round trips by their time, this branch", "Two bands: two kinds of queries, or a server that is slow at times.",
                [target(f"sum by (le) (increase({of(trip + '_bucket', BRANCH)}[$__rate_interval]))")]),
        graph("Held logins, and the bound", "Logins that wait now, and limits.max_held_per_branch of one router, beyond which they are refused at once.",
              [target(f"sum by (instance) ({of_branch('pointsman_held_connections')})", "{{instance}}"),
               target(f"max({of('pointsman_limit', 'name=' + chr(34) + 'max_held_per_branch' + chr(34))})", "bound")],
              overrides=[by_name("^bound$", colour=RED, dash=DASHED, fill=0)]),
    ]


def volume():
    return [
        row("Volume"),
        graph("From clients", "Bytes of requests, by route.",
              [target(f"sum by (route) ({rate('pointsman_bytes_total', BRANCH, 'direction=' + chr(34) + 'from_client' + chr(34))})", "{{route}}")],
              unit="Bps", stacked=True, overrides=ROUTES),
        graph("To clients", "Bytes of answers, by route.",
              [target(f"sum by (route) ({rate('pointsman_bytes_total', BRANCH, 'direction=' + chr(34) + 'to_client' + chr(34))})", "{{route}}")],
              unit="Bps", stacked=True, overrides=ROUTES),
        graph("Failovers and logins without proof", "Times that another member became the primary; failed authentication per minute, by reason.",
              [target(f"max(changes({of_branch('pointsman_failovers_total')}[$__rate_interval]))", "failovers"),
               target(per_minute("reason", "pointsman_auth_failures_total", BRANCH), "{{reason}}")], unit="short", bars=True),
    ]


def board():
    return dashboard("pointsman-branch", "Pointsman / Branch",
                     "One branch: who is primary, how far behind each replica is, where its connections go and why, and what it refuses.",
                     [JOB, INSTANCE, BRANCH_VARIABLE], [*now(), *routing(), *replicas(), *latency(), *volume()], MARKS)
