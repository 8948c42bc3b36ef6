"""The dashboard Pools: the PgBouncers of a branch, dedicated ones and those beside its members."""

from branch import BRANCH, BRANCH_VARIABLE, MARKS, YES_IS_WORTH_A_LOOK, of_branch
from fleet import INSTANCE, JOB, NONE_IS_GOOD
from panels import (BLUE, GREEN, ORANGE, RED, YELLOW, by_name, dashboard, graph, in_range, mappings, per_minute, per_second, quantile, rate, row, stat, states,
                    table, target, thresholds)

POOLED = 'route=~"local_pool|pool"'
POOL_REASONS = 'reason=~"unknown_pool|no_local_pool|wrong_port|backend_unreachable|backend_fault|hold_expired|limit|bad_option|draining"'
ENDPOINT_STATES = mappings(v0=("does not answer", RED), v1=("in use", GREEN))


def now():
    active = of_branch("pointsman_connections_active", POOLED)
    decisions = in_range("branch", "pointsman_routing_decisions_total", BRANCH, POOLED)
    every = in_range("branch", "pointsman_routing_decisions_total", BRANCH)
    return [
        stat("Sessions in pools", "Sessions on PgBouncers of this branch now, by router's count.", [target(f"sum({active})")], width=4, sparkline=True,
             color={"mode": "fixed", "fixedColor": BLUE}),
        stat("Share of logins", "How much of the branch's new sessions goes to PgBouncers, in the shown time.",
             [target(f"(sum({decisions}) or vector(0)) / sum({every})", instant=True)], unit="percentunit", width=4, color={"mode": "fixed", "fixedColor": BLUE}),
        stat("Endpoints in use", "Endpoints of dedicated pools that carry sessions.",
             [target(f"count(count by (pool, endpoint) ({of_branch('pointsman_pool_endpoint_connections')} > 0)) or vector(0)")], width=4,
             color={"mode": "fixed", "fixedColor": BLUE}),
        stat("Endpoints down", "Endpoints that some router could not dial when it last tried.",
             [target(f"count(count by (pool, endpoint) ({of_branch('pointsman_pool_endpoint_up')} == 0)) or vector(0)")], width=4, steps=NONE_IS_GOOD),
        stat("Held now", "Logins that wait; on pools they wait for their primary.", [target(f"sum({of_branch('pointsman_held_connections')})")],
             width=4, steps=thresholds((None, GREEN), (1, YELLOW))),
        stat("On hold", "During a planned switch the pools of the primary are paused: clients wait and see no error.",
             [target(f"max({of_branch('pointsman_branch_on_hold')})")], maps=YES_IS_WORTH_A_LOOK, width=4),
    ]


def endpoints():
    connections = of_branch("pointsman_pool_endpoint_connections")
    return [
        row("Dedicated pools"),
        graph("Sessions per endpoint", "Sessions of these routers on each endpoint of the dedicated pools.",
              [target(f"sum by (pool, endpoint) ({connections})", "{{pool}} {{endpoint}}")], stacked=True, table=True),
        states("Endpoints", "Whether the router reached the endpoint when it last dialled. No bar: nobody has used it.",
               [target(f"min by (pool, endpoint) ({of_branch('pointsman_pool_endpoint_up')})", "{{pool}} {{endpoint}}")], ENDPOINT_STATES),
        graph("How even endpoints are used", "The busiest endpoint of a pool against the pool's mean: 1 is even. Two endpoints and 2: one carries everything.",
              [target(f"max by (pool) (sum by (pool, endpoint) ({connections})) / (avg by (pool) (sum by (pool, endpoint) ({connections})) > 0)",
                      "{{pool}}")], decimals=1),
        graph("Logins to pools by reason", "default_pool: the user named no target; named_pool: he did; local_pool: the PgBouncer beside the primary.",
              [target(per_second("reason", "pointsman_routing_decisions_total", BRANCH, POOLED), "{{reason}}")], unit="cps", stacked=True),
        graph("Logins by endpoint", "Where new sessions of the pools go.",
              [target(per_second("member", "pointsman_routing_decisions_total", BRANCH, POOLED), "{{member}}")], unit="cps", stacked=True),
        graph("How logins to pools end", "By route and outcome, per minute.",
              [target(per_minute("route, outcome", "pointsman_connections_total", BRANCH, POOLED), "{{route}} {{outcome}}")], unit="cpm", stacked=True,
              overrides=[by_name("ok$", colour=GREEN), by_name("refused$", colour=ORANGE), by_name("failed$", colour=RED)]),
    ]


def beside_members():
    return [
        row("PgBouncers beside members, and what pools refuse"),
        graph("Sessions on PgBouncers beside members", "They follow the primary: after a failover the old one's empties and the new one's fills.",
              [target(f"sum by (member) ({of_branch('pointsman_connections_active', 'route=' + chr(34) + 'local_pool' + chr(34))})", "{{member}}")],
              stacked=True),
        graph("Refusals that concern pools", "unknown_pool and wrong_port: the client's user name or port; no_local_pool: no PgBouncer beside the primary; "
              "backend_unreachable: the PgBouncer does not answer.",
              [target(per_minute("reason", "pointsman_routing_refusals_total", BRANCH, POOL_REASONS), "{{reason}}")], unit="cpm", bars=True),
        graph("Bytes through pools", "By route and direction.",
              [target(f"sum by (route, direction) ({rate('pointsman_bytes_total', BRANCH, POOLED)})", "{{route}} {{direction}}")], unit="Bps"),
        graph("Round trip through pools (95 %)", "From a request's first byte to ReadyForQuery, the wait for a server connection in PgBouncer included. "
              "This branch if it has roundtrip_metric, and all that have not.",
              [target(quantile(0.95, "route", "pointsman_roundtrip_seconds", BRANCH, POOLED), "{{route}}, this branch"),
               target(quantile(0.95, "route", "pointsman_roundtrip_seconds", 'branch=""', POOLED), "{{route}}, branches without figures of their own")],
              unit="s"),
        graph("Time to connect (95 %), all branches", "How long dialling and logging in to the destination took, by listener.",
              [target(quantile(0.95, "listener", "pointsman_login_seconds", 'phase="connect"'), "{{listener}}")], unit="s"),
        graph("Sessions that could not be connected", "Per minute, by endpoint or member: the PgBouncer did not answer, or refused the login.",
              [target(per_minute("member", "pointsman_dial_failures_total", BRANCH, POOLED), "{{member}}")], unit="cpm", bars=True),
        table("Endpoints", "Every endpoint of the branch's dedicated pools, with its sessions, and whether it answered when it was last dialled.",
              [target(f"sum by (pool, endpoint) ({of_branch('pointsman_pool_endpoint_connections')})"),
               target(f"min by (pool, endpoint) ({of_branch('pointsman_pool_endpoint_up')})")], width=24, height=6, sort="Sessions",
              columns={"pool": "Pool", "endpoint": "Endpoint", "Value #A": "Sessions", "Value #B": "Answers"},
              overrides=[by_name("^Answers$|^Value #B$", mappings=ENDPOINT_STATES, cell={"type": "color-text"})]),
    ]


def board():
    return dashboard("pointsman-pools", "Pointsman / Pools",
                     "The PgBouncers of a branch: who carries how many sessions, who answers, and what is refused there.",
                     [JOB, INSTANCE, BRANCH_VARIABLE], [*now(), *endpoints(), *beside_members()], MARKS)
