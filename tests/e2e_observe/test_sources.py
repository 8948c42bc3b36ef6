"""What lies in deploy/grafana and deploy/prometheus: made from its sources, accepted by promtool, naming only what exists. No server runs."""

import importlib.util
import json
import os
import re
import shutil
import sys

import pytest
import yaml
from harness.system import run, which

import metric_names
import panels

ROOT = metric_names.ROOT
GRAFANA = os.path.join(ROOT, "deploy", "grafana")
PROMETHEUS = os.path.join(ROOT, "deploy", "prometheus")
GENERATORS = {"grafana": os.path.join(GRAFANA, "generate.py"), "prometheus": os.path.join(PROMETHEUS, "generate.py"),
              "metrics": os.path.join(ROOT, "docs", "generate_metrics.py")}


def load(name):
    """A generator as a module; two files are called generate.py."""
    spec = importlib.util.spec_from_file_location(f"generate_{name}", GENERATORS[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as text:
        return text.read()


@pytest.fixture(scope="module")
def rules():
    groups = yaml.safe_load(read(PROMETHEUS, "pointsman.rules.yml"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def boards():
    return [json.loads(read(GRAFANA, "dashboards", name)) for name in sorted(os.listdir(os.path.join(GRAFANA, "dashboards")))]


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_what_is_generated_is_up_to_date(name):
    run([sys.executable, "-B", GENERATORS[name], "--check"])


@pytest.mark.parametrize("name, generated", [("grafana", "dashboards/pointsman-fleet.json"), ("grafana", "configmap.yaml"), ("prometheus", "prometheusrule.yaml")])
def test_a_change_by_hand_is_noticed(tmp_path, name, generated):
    shutil.copytree(os.path.join(ROOT, "deploy"), tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(os.path.join(ROOT, "docs"), tmp_path / "docs")
    (tmp_path / "metrics").mkdir()
    shutil.copy(metric_names.NAMES_H, tmp_path / "metrics")
    command = [sys.executable, "-B", tmp_path / "deploy" / name / "generate.py", "--check"]
    run(command)
    changed = tmp_path / "deploy" / name / generated
    changed.write_text(changed.read_text() + "\n")
    failed = run(command, check=False)
    assert failed.returncode == 1 and os.path.basename(generated) in failed.stderr
    # A metric that goes takes the check with it.
    header = tmp_path / "metrics" / "names.h"
    header.write_text(header.read_text().replace("pointsman_branch_on_hold", "pointsman_branch_held"))
    failed = run(command, check=False)
    assert failed.returncode == 1 and "pointsman_branch_on_hold is no metric of metrics/names.h" in failed.stderr


@pytest.mark.parametrize("text, complaint", [
    ("sum(pointsman_no_such_metric)", "is no metric"),
    ('pointsman_member_up{member="a", pool="b"}', "has no label pool"),
    ("sum by (listener) (pointsman_member_up)", "has the label listener"),
    ("pointsman_login_seconds", "is no metric"),  # a histogram has no series of its own name
    ("frobnicate(pointsman_member_up)", "is no function")])
def test_an_expression_that_names_nothing_is_refused(text, complaint):
    with pytest.raises(metric_names.Unknown, match=complaint):
        metric_names.Expression(text).check(metric_names.read_metrics())


def test_an_expression_is_read_to_its_end():
    expression = metric_names.Expression(
        'label_replace(sum by (branch, le) (rate(pointsman_hold_seconds_bucket{branch=~"a}b", job="$job"}[$__rate_interval] offset 5m)) > 1e3, '
        '"problem", "x", "", "") or on (branch) group_left () up')
    assert expression.metrics == {"pointsman_hold_seconds_bucket": {"branch", "job"}, "up": set()}
    assert (expression.grouped, expression.made) == ({"branch", "le"}, {"problem"})
    assert expression.functions == {"label_replace", "sum", "rate"}


def test_every_metric_of_the_header_is_read():
    header = read(metric_names.NAMES_H)
    names = set(re.findall(r'"((?:pointsman|process)_\w+)"', header))
    series = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metric_names.read_metrics()}
    assert series == names and len(names) > 40


def test_promtool_accepts_rules_and_configuration():
    run([which("promtool"), "check", "rules", "--lint=all", "--lint-fatal", os.path.join(PROMETHEUS, "pointsman.rules.yml")])
    run([which("promtool"), "check", "config", os.path.join(PROMETHEUS, "prometheus.example.yml")])
    job = yaml.safe_load(read(PROMETHEUS, "prometheus-kubernetes.example.yml"))["scrape_configs"][0]  # Debian's build knows no Kubernetes
    assert "pointsman" in job["job_name"] and job["kubernetes_sd_configs"] == [{"role": "endpoints"}]


def test_alerts_fire_and_do_not_fire_as_their_tests_say():
    run([which("promtool"), "test", "rules", os.path.join(PROMETHEUS, "pointsman.rules.test.yml")])


def test_every_alert_is_tested_both_ways(rules):
    tested = {True: set(), False: set()}
    for group in yaml.safe_load(read(PROMETHEUS, "pointsman.rules.test.yml"))["tests"]:
        for test in group["alert_rule_test"]:
            tested[bool(test["exp_alerts"])].add(test["alertname"])
            tested[True] |= {(test["alertname"], alert["exp_labels"]["severity"]) for alert in test["exp_alerts"]}
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert alerts <= tested[True] and alerts <= tested[False]
    assert {(rule["alert"], rule["labels"]["severity"]) for rule in rules if "alert" in rule} <= tested[True]


def test_alerts_and_runbooks_belong_together(rules):
    pages = {rule["annotations"]["runbook"]: rule["alert"] for rule in rules if "alert" in rule}
    assert set(pages) == {f"docs/runbooks/{name}" for name in os.listdir(os.path.join(ROOT, "docs", "runbooks"))}
    for path, alert in pages.items():
        text = read(ROOT, path)
        assert text.startswith(f"# {alert}\n")
        for heading in ("**What clients feel.**", "\n## Check\n", "\n## Do\n", "\n## Do not\n"):
            assert heading in text, f"{path} does not say {heading.strip()}"
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert os.path.exists(os.path.join(ROOT, "docs", "runbooks", link)), f"{path}: {link}"
        for name in re.findall(r"pointsman_[a-z_]+", text):
            assert {name, f"{name}_count"} & set(metric_names.read_metrics()), f"{path}: {name}"


def test_the_rule_reader_sees_what_yaml_sees(rules):
    """The generator reads the file without a YAML library."""
    read_by_us = load("prometheus").read_rules()
    assert [(rule.kind, rule.name) for rule in read_by_us] == [(kind, rule[kind]) for rule in rules for kind in ("record", "alert") if kind in rule]
    for ours, theirs in zip(read_by_us, rules):
        assert ours.expression.split() == theirs["expr"].split()
        assert ours.annotations == theirs.get("annotations", {})


def test_the_manifest_holds_the_rules():
    manifest = yaml.safe_load(read(PROMETHEUS, "prometheusrule.yaml"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert manifest["spec"] == yaml.safe_load(read(PROMETHEUS, "pointsman.rules.yml"))


def test_the_config_map_holds_the_dashboards(boards):
    maps = list(yaml.safe_load_all(read(GRAFANA, "configmap.yaml")))
    found = {}
    for entry in maps:
        assert (entry["kind"], entry["metadata"]["labels"]["grafana_dashboard"]) == ("ConfigMap", "1")
        assert len(json.dumps(entry)) < 250_000  # what `kubectl apply` can keep in its annotation
        found.update({name: json.loads(text) for name, text in entry["data"].items()})
    assert found == {board["uid"] + ".json": board for board in boards}


def test_what_is_provisioned_points_to_where_files_go():
    provider = yaml.safe_load(read(GRAFANA, "provisioning", "dashboards", "pointsman.yml"))["providers"][0]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/var/lib/grafana/dashboards/pointsman")
    assert yaml.safe_load(read(GRAFANA, "provisioning", "datasources", "prometheus.yml"))["datasources"][0]["type"] == "prometheus"


def test_dashboards_are_whole(boards):
    assert [board["uid"] for board in boards] == ["pointsman-branch", "pointsman-fleet", "pointsman-pools"]
    for board in boards:
        variables = {entry["name"] for entry in board["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps([entry for _, entry, _ in panels.queries(board)]))) | {"datasource"}
        assert variables - {"branch"} == used - {"branch"} and used <= variables
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            assert not cells & taken and place["x"] + place["w"] <= panels.WIDTH, panel["title"]
            taken |= cells
            if panel["type"] == "row":
                continue
            assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert [target["refId"] for target in panel["targets"]] == [chr(65 + index) for index in range(len(panel["targets"]))]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_panels_ask_within_the_chosen_fleet(boards):
    """Every selector of ours is narrowed to the chosen routers: another fleet in the same Prometheus is not shown."""
    for board in boards:
        for where, text, _ in panels.queries(board):
            for name, matched in metric_names.Expression(text).metrics.items():
                assert matched >= {"job", "instance"}, f"{where}: {name}"
