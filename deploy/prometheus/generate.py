#!/usr/bin/env python3
"""Writes prometheusrule.yaml, the rules for the Prometheus operator, from pointsman.rules.yml. Standard library only.

    generate.py            writes it
    generate.py --check    writes nothing; exit status 1 when the file is not what would be written

Either way the rules are read first. Refused are: an expression that names a metric or label which metrics/names.h does not have, an alert without
severity, summary, description or runbook, a runbook without page, and a page in docs/runbooks without alert.
"""

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)

from metric_names import ROOT, Expression, Unknown, read_metrics  # noqa: E402

RULES = os.path.join(HERE, "pointsman.rules.yml")
MANIFEST = os.path.join(HERE, "prometheusrule.yaml")
RUNBOOKS = os.path.join(ROOT, "docs", "runbooks")

HEAD = """\
# Made by generate.py from pointsman.rules.yml. The operator takes rules by label: see ruleSelector of your Prometheus.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pointsman
  labels:
    app.kubernetes.io/name: pointsman
    prometheus: k8s
    role: alert-rules
spec:
"""

_START = re.compile(r"^ {6}- (record|alert): (\S+)$")
_FIELD = re.compile(r"^ {8}(\w+):(?: (.*))?$")
_ANNOTATION = re.compile(r'^ {10}(\w+): "?(.*?)"?$')


class Rule:
    """One rule of the file: `kind` (record or alert), `name`, `expression`, `fields`, `annotations`."""

    def __init__(self, kind, name):
        self.kind, self.name = kind, name
        self.expression, self.fields, self.annotations = "", {}, {}


def read_rules(path=RULES):
    """The rules, by the layout that the file keeps (two blanks a level, expressions as blocks or on one line)."""
    rules, inside = [], None
    with open(path, encoding="utf-8") as text:
        lines = text.read().splitlines()
    for line in lines:
        start, field, annotation = _START.match(line), _FIELD.match(line), _ANNOTATION.match(line)
        if start:
            rules.append(Rule(*start.groups()))
            inside = None
        elif not rules or not line.strip() or line.lstrip().startswith("#"):
            continue
        elif not line.startswith(" " * 8):  # the next group's head
            inside = None
        elif field:
            inside = field.group(1)
            rules[-1].fields[inside] = field.group(2) or ""
            if inside == "expr" and field.group(2) != "|":
                rules[-1].expression = field.group(2)
        elif inside == "expr":
            rules[-1].expression += line.strip() + "\n"
        elif inside == "annotations" and annotation:
            rules[-1].annotations[annotation.group(1)] = annotation.group(2)
    return rules


def check_alert(rule, known):
    if "severity:" not in rule.fields.get("labels", ""):
        raise Unknown(f"{rule.name} has no severity")
    for wanted in ("summary", "description", "runbook"):
        if not rule.annotations.get(wanted):
            raise Unknown(f"{rule.name} has no {wanted}")
    if not os.path.exists(os.path.join(ROOT, rule.annotations["runbook"])):
        raise Unknown(f"{rule.name}: there is no {rule.annotations['runbook']}")
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", rule.name.removeprefix("Pointsman")).lower()
    if rule.annotations["runbook"] != f"docs/runbooks/{words}.md":
        raise Unknown(f"{rule.name}: its page is called docs/runbooks/{words}.md")
    for label in re.findall(r"\$labels\.(\w+)", " ".join(rule.annotations.values())):
        if label not in known:
            raise Unknown(f"{rule.name} shows the label {label}, which no metric of it has")


def check(rules):
    series = read_metrics()
    recorded = {}
    for rule in rules:  # a recorded series has the labels that it is grouped by
        if rule.kind == "record":
            expression = Expression(rule.expression)
            recorded[rule.name] = expression.grouped
    series.update(recorded)
    for rule in rules:
        expression = Expression(rule.expression)
        expression.check(series)
        if not expression.metrics:
            raise Unknown(f"{rule.name} asks for nothing")
        if rule.kind == "alert":
            check_alert(rule, expression.labels(series))
    pages = {rule.annotations["runbook"] for rule in rules if rule.kind == "alert"}
    for name in sorted(os.listdir(RUNBOOKS)):
        if name != "README.md" and f"docs/runbooks/{name}" not in pages:
            raise Unknown(f"docs/runbooks/{name} belongs to no alert")


def manifest():
    with open(RULES, encoding="utf-8") as text:
        body = text.read()
    body = body[body.index("groups:\n"):]
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        check(read_rules())
    except Unknown as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    made = manifest()
    if not arguments:
        with open(MANIFEST, "w", encoding="utf-8") as text:
            text.write(made)
    elif not os.path.exists(MANIFEST) or open(MANIFEST, encoding="utf-8").read() != made:
        print(f"error: {os.path.relpath(MANIFEST)} is not what generate.py writes: run it and commit the result", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
