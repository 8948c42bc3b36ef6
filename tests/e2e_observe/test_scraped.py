"""A real Prometheus scrapes a real router through a scenario: every panel's query has data, every alert that should fire does, and no other."""

import pytest
from harness.system import run, which

import branch
import fleet
import panels
import pools
from scenario import BROKEN, FOUND, POOLS

BOARDS = {board["uid"]: board for board in (fleet.board(), branch.board(), pools.board())}
# What `$branch` is for a dashboard that has it.
BRANCHES = {"pointsman-fleet": None, "pointsman-branch": BROKEN, "pointsman-pools": POOLS}

QUERIES = [(uid, where, text) for uid, board in BOARDS.items() for where, text, _ in panels.queries(board)]
VARIABLES = [(uid, *entry) for uid, board in BOARDS.items() for entry in panels.variable_queries(board)]

# Queries that have no data after the scenario, and why.
WITHOUT_DATA = {
    "pointsman-branch: Source of members A": "the members of this branch are listed in the configuration",
    "pointsman-branch: Source of members B": "the same",
    "pointsman-pools: Round trip through pools (95 %) B": "all branches with pools have figures of their own",
    "pointsman-pools: mark Failovers": "this branch had none",
    "pointsman-pools: mark Holds": "the same",
}

MUST_FIRE = {
    ("PointsmanReplicaLagging", BROKEN), ("PointsmanNoEligibleReplica", BROKEN), ("PointsmanHoldLong", BROKEN), ("PointsmanNoPrimary", BROKEN),
    ("PointsmanHoldsExpiring", BROKEN), ("PointsmanMemberDown", BROKEN), ("PointsmanDiscoveryDown", FOUND), ("PointsmanPoolEndpointDown", POOLS),
    ("PointsmanHoldsExpiring", POOLS), ("PointsmanReloadFailed", None), ("PointsmanBranchesRejected", None),
    ("PointsmanTwoWriters", BROKEN)}
# At first sight: a replica whose primary is lost is not used; how many refusals, failed dials and slow logins (those that were held) there are
# depends on how long things take.
MAY_FIRE = {("PointsmanReplicaOut", BROKEN), ("PointsmanDialsFail", BROKEN), ("PointsmanDialsFail", POOLS), ("PointsmanRefusalsRising", BROKEN),
            ("PointsmanRefusalsRising", POOLS), ("PointsmanLoginLatency", None)}


def in_grafana(expression, uid):
    """With its variables put in, as Grafana does it."""
    values = {"$__rate_interval_ms": "2000", "$__rate_interval": "2s", "$__range": "60s", "$job": "pointsman", "$instance": "127.0.0.1:.+", "$branch": BRANCHES[uid] or ""}
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("uid, where, text", QUERIES, ids=[where for _, where, _ in QUERIES])
def test_a_panel_has_data(stage, uid, where, text):
    found = stage.prometheus.range(in_grafana(text, uid), stage.begun, stage.ended)
    assert bool(found) == (where not in WITHOUT_DATA), found[:3]


@pytest.mark.parametrize("uid, name, selector, label", VARIABLES, ids=[f"{uid}: {name}" for uid, name, *_ in VARIABLES])
def test_a_variable_has_values(stage, uid, name, selector, label):
    found = {entry[label] for entry in stage.prometheus.series(in_grafana(selector, uid), stage.begun, stage.ended)}
    assert found >= ({BROKEN, POOLS, FOUND} if name == "branch" else {"pointsman"} if name == "job" else set()) and found


def test_panels_say_what_happened(stage):
    def shown(uid, title, label, *, at_least=0.0):
        """The values of `label` in a panel's series that were above a number at any time."""
        [panel] = [panel for panel in BOARDS[uid]["panels"] if panel["title"] == title]
        return {labels.get(label) for entry in panel["targets"]
                for labels, values in stage.prometheus.range(in_grafana(entry["expr"], uid), stage.begun, stage.ended) if max(values) > at_least}

    assert shown("pointsman-fleet", "Logins by route", "route") == {"primary", "replica", "local_pool", "pool"}
    assert shown("pointsman-branch", "Logins by reason", "reason") >= {"primary", "replica_best", "fallback_least_lagged", "held"}
    assert shown("pointsman-branch", "Lag against its limit", "member", at_least=1.0) >= {"pg-1", "pg-2"}
    assert shown("pointsman-branch", "Primary", "member") == {"pg-0", "pg-1"}
    assert shown("pointsman-branch", "Refusals by reason", "reason") >= {"hold_expired"}
    assert shown("pointsman-fleet", "Refusals by reason", "reason") >= {"unknown_branch", "auth_failed", "wrong_port", "unknown_pool", "tls_required"}
    assert shown("pointsman-pools", "Refusals that concern pools", "reason") >= {"unknown_pool", "wrong_port", "hold_expired"}
    assert shown("pointsman-pools", "Sessions per endpoint", "pool") == {"reads", "app"}
    problems = shown("pointsman-fleet", "Needs a look", "problem")
    assert {words.split(" (")[0] for words in problems} >= {"no primary", "down", "replica behind its limit", "on hold", "members cannot be discovered"}


def test_a_rare_refusal_is_counted_from_the_first_one(stage):
    """Its series begins at 1, where increase() sees nothing."""
    [(_, values)] = stage.prometheus.range(f'sum(branch_reason:pointsman_routing_refusals:increase5m{{reason="unknown_pool", branch="{POOLS}"}})',
                                           stage.begun, stage.ended)
    assert max(values) >= 5


def test_rules_are_healthy(stage):
    rules = stage.prometheus.rules()
    assert len(rules) > 30
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_alerts_that_fire_are_those_of_the_scenario(stage):
    fired = stage.prometheus.range('max by (alertname, branch, member, instance) (ALERTS{alertstate="firing"})', stage.settled, stage.ended)
    found = {(labels["alertname"], labels.get("branch")) for labels, _ in fired}
    assert found >= MUST_FIRE
    assert found <= MUST_FIRE | MAY_FIRE


def test_promtool_has_nothing_to_say_about_the_page(stage):
    status, page = stage.router.http("/metrics", base=stage.router.metrics_url)
    assert status == 200
    checked = run([which("promtool"), "check", "metrics"], input=page, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_router_that_goes_is_missed(stage):
    """The last test: it stops the router."""
    assert not stage.prometheus.now('ALERTS{alertname=~"PointsmanRouterDown|PointsmanNoRouters"}')
    stage.router.stop()
    stage.prometheus.wait_firing("PointsmanRouterDown")
    stage.prometheus.wait_firing("PointsmanNoRouters")
