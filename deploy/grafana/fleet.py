"""The dashboard Fleet: every router and every branch. Where do connections go, what is failing, which branch needs a look."""

from panels import (BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, by_name, dashboard, event_marks, graph, heatmap, in_range, of,
                    per_minute, per_second, quantile, rate, row, stat, table, target, thresholds, variable)

ROUTES = (by_name("^primary$", colour=BLUE), by_name("^replica$", colour=GREEN), by_name("^local_pool$", colour=PURPLE),
          by_name("^pool$", colour=ORANGE))
OUTCOMES = (by_name("^ok$", colour=GREEN), by_name("^refused$", colour=ORANGE), by_name("^failed$", colour=RED))
NONE_IS_GOOD = thresholds((None, GREEN), (1, RED))
SOME_IS_WORTH_A_LOOK = thresholds((None, GREEN), (1, YELLOW))

JOB = variable("job", "Fleet", "label_values(pointsman_build_info, job)", several=True)
INSTANCE = variable("instance", "Router", 'label_values(pointsman_build_info{job=~"$job"}, instance)', several=True)

FAILOVERS = event_marks("Failovers", RED, f"max by (branch) (changes({of('pointsman_failovers_total')}[1m])) > 0",
                        "failover of {{branch}}")

# The links of a branch's name, to its own dashboard with the same fleet and time.
TO_BRANCH = [{"title": "Branch ${__value.text}", "targetBlank": False,
              "url": "/d/pointsman-branch?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&var-branch=${__value.text}&${__url_time_range}"}]

_MEMBER = "job, branch, member"
_SAME_MEMBER = "on (job, instance, branch, member)"


def problem(words, expression):
    return f'label_replace({expression}, "problem", "{words}", "", "")'


def needs_a_look():
    lag_share = f"{of('pointsman_replica_lag_seconds')} / {_SAME_MEMBER} {of('pointsman_replica_lag_limit_seconds')}"
    is_primary, on_hold = of("pointsman_member_is_primary"), of("pointsman_branch_on_hold")
    return " or ".join((
        problem("no primary (routers that see none)",
                f"count by (job, branch) ((sum by (job, instance, branch) ({is_primary}) or sum by (job, instance, branch) ({on_hold} * 0)) == 0)"),
        problem("routers disagree on the primary (primaries)",
                f"count by (job, branch) (max by ({_MEMBER}) ({is_primary}) == 1) > 1"),
        problem("takes writes and is not the primary, or another cluster",
                f"max by ({_MEMBER}) ({of('pointsman_member_rejected')}) > 0"),
        problem("down (routers that get no answer)", f"count by ({_MEMBER}) ({of('pointsman_member_up')} == 0)"),
        problem("replica behind its limit (times the limit)", f"max by ({_MEMBER}) ({lag_share}) > 1"),
        problem("on hold", f"max by (job, branch) ({on_hold}) > 0"),
        problem("members cannot be discovered (routers)", f"count by (job, branch) ({of('pointsman_discovery_up')} == 0)"),
        problem("pool endpoint does not answer (routers)",
                f"count by (job, branch, pool, endpoint) ({of('pointsman_pool_endpoint_up')} == 0)"),
    ))


def at_a_glance():
    is_primary, on_hold = of("pointsman_member_is_primary"), of("pointsman_branch_on_hold")
    refused = in_range("job", "pointsman_connections_total", 'outcome!="ok"')
    logins = in_range("job", "pointsman_connections_total")
    return [
        stat("Routers", "How many routers answer Prometheus now.", [target(f"count({of('up')} == 1) or vector(0)")],
             steps=thresholds((None, RED), (1, GREEN))),
        stat("Routers down", "Targets of these jobs that do not answer.", [target(f"count({of('up')} == 0) or vector(0)")],
             steps=NONE_IS_GOOD),
        stat("Branches in use", "Branches that at least one router probes, because somebody uses them.",
             [target(f"count(count by (job, branch) ({on_hold}))")], color={"mode": "fixed", "fixedColor": BLUE}),
        stat("Sessions", "Sessions relayed now, over all branches.", [target(f"sum({of('pointsman_connections_active')})")],
             color={"mode": "fixed", "fixedColor": BLUE}, sparkline=True),
        stat("Without primary", "Branches of which some router sees no verified primary.",
             [target(f"count(count by (job, branch) ((sum by (job, instance, branch) ({is_primary}) or "
                     f"sum by (job, instance, branch) ({on_hold} * 0)) == 0)) or vector(0)")], steps=NONE_IS_GOOD),
        stat("Replicas out", "Replicas that some router sends no new sessions to: down, behind, or of unknown lag.",
             [target(f"count(count by ({_MEMBER}) (({of('pointsman_member_eligible')} == 0) and {_SAME_MEMBER} "
                     f"{of('pointsman_replica_lag_limit_seconds')})) or vector(0)")], steps=SOME_IS_WORTH_A_LOOK),
        stat("Held now", "Logins that wait for a primary, a replica or the end of a planned switch.",
             [target(f"sum({of('pointsman_held_connections')})")], steps=SOME_IS_WORTH_A_LOOK),
        stat("Not let in", "Share of the logins to a known branch that ended without a session, in the shown time.",
             [target(f"(sum({refused}) or vector(0)) / sum({logins})", instant=True)], unit="percentunit",
             steps=thresholds((None, GREEN), (0.01, YELLOW), (0.05, RED))),
        table("Needs a look", "One line for everything that is wrong now, over all branches. Empty is good. A branch's name leads to its dashboard.",
              [target(needs_a_look())], width=24, height=6, sort="Value", decimals=1,
              columns={"problem": "Problem", "branch": "Branch", "member": "Member", "pool": "Pool", "endpoint": "Endpoint", "Value": "Value"},
              overrides=[by_name("^Branch$|^branch$", links=TO_BRANCH)]),
    ]


def where_connections_go():
    def decisions(labels):
        return per_second(labels, "pointsman_routing_decisions_total")

    return [
        row("Where connections go, and why"),
        graph("Logins by route", "Where new sessions are sent: the primary, a replica, the PgBouncer beside the primary, a dedicated pool.",
              [target(decisions("route"), "{{route}}")], unit="cps", stacked=True, overrides=ROUTES),
        graph("Logins by reason", "Why they are sent there. fallback_… means that no replica qualified; held, that they waited first.",
              [target(decisions("reason"), "{{reason}}")], unit="cps", stacked=True,
              overrides=[by_name("^fallback_|^held$", colour=ORANGE)]),
        graph("Sessions by route", "Sessions relayed now, by the kind of server that they are on.",
              [target(f"sum by (route) ({of('pointsman_connections_active')})", "{{route}}")], stacked=True, overrides=ROUTES),
        graph("Busiest branches", "The ten branches with the most sessions.",
              [target(f"topk(10, sum by (branch) ({of('pointsman_connections_active')}))", "{{branch}}")], stacked=True),
        graph("Sessions by router", "Whether the load balancer spreads connections. A new router fills only with new connections: sessions do not move.",
              [target(f"sum by (instance) ({of('pointsman_connections_active')})", "{{instance}}")]),
        graph("Bytes", "What is relayed: from clients to servers, and back.",
              [target(f"sum by (direction) ({rate('pointsman_bytes_total')})", "{{direction}}")], unit="Bps"),
    ]


def what_is_failing():
    return [
        row("What is failing"),
        graph("Refusals by reason", "Why connections are told no, per minute. The words are explained in docs/operations.md, one line each.",
              [target(per_minute("reason", "pointsman_routing_refusals_total"), "{{reason}}")], unit="cpm", bars=True),
        graph("Refusals by branch", "Who is told no: the ten branches with most refusals per minute. Without a name: before a known branch was named.",
              [target(f"topk(10, {per_minute('branch', 'pointsman_routing_refusals_total')})", "{{branch}}")], unit="cpm", bars=True),
        graph("How logins end", "ok: a session; refused: told no; failed: gone without an answer, mostly by the client.",
              [target(per_minute("outcome", "pointsman_connections_total"), "{{outcome}}")], unit="cpm", stacked=True, overrides=OUTCOMES),
        table("Refusals in the shown time", "Which branch refused what, counted over the time that the dashboard shows.",
              [target(in_range("branch, listener, reason", "pointsman_routing_refusals_total") + " > 0")], sort="Refusals", decimals=0,
              columns={"branch": "Branch", "listener": "Listener", "reason": "Reason", "Value": "Refusals"},
              overrides=[by_name("^Branch$|^branch$", links=TO_BRANCH)]),
        graph("Logins without proof", "Failed authentication per minute, by branch and reason: a wrong secret somewhere, or somebody who guesses.",
              [target(f"topk(10, {per_minute('branch, reason', 'pointsman_auth_failures_total')})", "{{branch}} {{reason}}")],
              unit="cpm", bars=True, width=12),
        graph("Probes that fail", "Failed probes per minute by member: the ten worst. What they mean for sessions stands under Needs a look.",
              [target(f"topk(10, sum by (branch, member) ({rate('pointsman_probe_failures_total')})) * 60", "{{branch}} {{member}}")],
              unit="cpm", width=12),
        graph("Sessions that could not be connected", "Per minute, by server or pool endpoint: the ten worst. They were given another one, held or refused.",
              [target(f"topk(10, {per_minute('branch, member', 'pointsman_dial_failures_total')})", "{{branch}} {{member}}")],
              unit="cpm", bars=True, width=12),
    ]


def how_far_behind():
    limit = of("pointsman_replica_lag_limit_seconds")
    share = f"max by (branch, member) ({of('pointsman_replica_lag_seconds')} / {_SAME_MEMBER} {limit})"
    return [
        row("Replicas, failovers, holds"),
        graph("Lag against its limit, worst replicas", "Lag as a share of the replica's limit: above 100 % it gets no new sessions. The ten worst.",
              [target(f"topk(10, {share})", "{{branch}} {{member}}")], unit="percentunit",
              steps=thresholds((None, GREEN), (0.6, YELLOW), (1, RED))),
        graph("Failovers", "When another member than before became the primary, by branch.",
              [target(f"max by (branch) (changes({of('pointsman_failovers_total')}[$__rate_interval]))", "{{branch}}")], bars=True, decimals=0),
        graph("Held logins", "Logins that wait, by branch. They go on when a primary is verified, or are refused after failover.hold_timeout.",
              [target(f"topk(10, sum by (branch) ({of('pointsman_held_connections')}))", "{{branch}}")]),
    ]


def logins():
    phases = quantile(0.95, "phase", "pointsman_login_seconds")
    return [
        row("Logins"),
        graph("Time of a login", "From accept to the first ReadyForQuery, successful logins, all listeners.",
              [target(quantile(share, "", "pointsman_login_seconds", 'phase="total"'), name)
               for share, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))], unit="s"),
        graph("Time of a login by phase (95 %)", "Where it goes: tls and startup with the client, auth with the client and verifiers, hold, connect with the server.",
              [target(phases, "{{phase}}")], unit="s"),
        heatmap("Logins by their time", "How many logins took how long: a second band shows a second population, such as logins that were held.",
                [target(f"sum by (le) (increase({of('pointsman_login_seconds_bucket', 'phase=' + chr(34) + 'total' + chr(34))}[$__rate_interval]))")]),
        graph("Connections accepted", "By listener, with cancel requests and the probes of load balancers.",
              [target(f"sum by (listener) ({rate('pointsman_connections_accepted_total')})", "{{listener}}")], unit="cps"),
        graph("Open connections", "Open ones, and those of them that have not logged in. Many of the latter: slow clients, or somebody who holds sockets.",
              [target(f"sum({of('pointsman_connections_open')})", "open"), target(f"sum({of('pointsman_connections_pre_login')})", "before login")]),
        graph("TLS handshakes", "Completed by version, and failed.",
              [target(f"sum by (version) ({rate('pointsman_tls_handshakes_total')})", "{{version}}"),
               target(f"sum({rate('pointsman_tls_handshake_failures_total')})", "failed")], unit="cps", overrides=[by_name("^failed$", colour=RED)]),
        graph("Verifier look-ups", "hit: answered from the cache. unavailable and fault: logins fail for it.",
              [target(f"sum by (outcome) ({rate('pointsman_verifier_lookups_total')})", "{{outcome}}")], unit="cps",
              overrides=[by_name("^unavailable$|^fault$", colour=RED)]),
        graph("Cancel requests", "unknown_key: it came to another router than its session, or too late.",
              [target(f"sum by (outcome) ({rate('pointsman_cancel_requests_total')}) * 60", "{{outcome}}")], unit="cpm"),
        graph("Round trip by route (95 %)", "From a request's first byte to ReadyForQuery, as the router sees it: mostly the server's time, and that of the network.",
              [target(quantile(0.95, "route", "pointsman_roundtrip_seconds"), "{{route}}")], unit="s", overrides=ROUTES),
    ]


def routers():
    def per_router(metric, *matchers):
        return f"sum by (instance) ({of(metric, *matchers)})"

    full = f"{per_router('pointsman_connections_open')} / {per_router('pointsman_limit', 'name=' + chr(34) + 'max_connections' + chr(34))}"
    return [
        row("Routers"),
        graph("Connections against limits.max_connections", "At 100 % new connections are told 57P03, on which libpq goes to its next host.",
              [target(full, "{{instance}}")], unit="percentunit", steps=thresholds((None, GREEN), (0.85, RED))),
        graph("CPU", "Cores that a router uses; it cannot use more than it has workers, and one for the rest.",
              [target(f"sum by (instance) ({rate('process_cpu_seconds_total')})", "{{instance}}")], unit="short"),
        graph("Memory", "Resident memory. It is bounded per session: growth without sessions is worth a question.",
              [target(per_router("process_resident_memory_bytes"), "{{instance}}")], unit="bytes"),
        graph("Descriptors", "Open file descriptors as a share of what the process may have; a session takes two.",
              [target(f"{per_router('process_open_fds')} / {per_router('process_max_fds')}", "{{instance}}")], unit="percentunit",
              steps=thresholds((None, GREEN), (0.85, RED))),
        graph("Configuration", "Readings of the configuration by outcome, and branches that the last one rejected.",
              [target(f"sum by (outcome) (increase({of('pointsman_config_reloads_total')}[$__rate_interval]))", "{{outcome}}"),
               target(f"max({of('pointsman_config_branches_rejected')})", "branches rejected")], decimals=0,
              overrides=[by_name("^failed$|^branches rejected$", colour=RED), by_name("^partial$", colour=ORANGE), by_name("^ok$", colour=GREEN)]),
        graph("What a router could not do", "Accepts that were paused for want of descriptors, log lines and metrics series that were dropped, per minute. All should be 0.",
              [target(f"sum({rate('pointsman_accept_pauses_total')}) * 60", "accept paused"),
               target(f"sum({rate('pointsman_log_lines_dropped_total')}) * 60", "log lines dropped"),
               target(f"sum({rate('pointsman_metrics_series_dropped_total')}) * 60", "series dropped")], unit="cpm"),
        table("Routers", "Each router: its version, since when it runs, when it read its configuration, when its certificate expires.",
              [target(f"max by (instance, version) ({of('pointsman_build_info')})"),
               target(f"max by (instance) ({of('process_start_time_seconds')}) * 1000"),
               target(f"max by (instance) ({of('pointsman_config_last_success_timestamp_seconds')}) * 1000"),
               target(f"max by (instance) ({of('pointsman_certificate_expiry_timestamp_seconds')}) - time()")],
              columns={"instance": "Router", "version": "Version", "Value #B": "Started", "Value #C": "Configuration read",
                       "Value #D": "Certificate expires in"}, width=24,
              overrides=[by_name("^Started$|^Value #B$|^Configuration read$|^Value #C$", unit="dateTimeFromNow"),
                         by_name("^Certificate expires in$|^Value #D$", unit="s",
                                 limits=thresholds((None, RED), (2 * 86400, ORANGE), (14 * 86400, GREEN)), cell={"type": "color-text"})]),
    ]


def board():
    panels = [*at_a_glance(), *where_connections_go(), *what_is_failing(), *how_far_behind(), *logins(), *routers()]
    return dashboard("pointsman-fleet", "Pointsman / Fleet",
                     "Every router and every branch: where connections go, why, what is failing, and which branch needs a look.",
                     [JOB, INSTANCE], panels, [FAILOVERS])
