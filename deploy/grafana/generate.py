#!/usr/bin/env python3
"""Writes the dashboards and the ConfigMap from fleet.py, branch.py and pools.py. Standard library only.

    generate.py            writes dashboards/*.json and configmap.yaml
    generate.py --check    writes nothing; exit status 1 when a file is not what would be written

Either way every query is read first: one that names a metric or label which metrics/names.h does not have is refused.
"""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "prometheus")]

import branch  # noqa: E402
import fleet  # noqa: E402
import pools  # noqa: E402
from metric_names import Expression, Unknown, read_metrics  # noqa: E402
from panels import queries, variable_queries  # noqa: E402

CONFIG_MAP = """\
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {uid}-dashboard
  labels:
    app.kubernetes.io/name: pointsman
    grafana_dashboard: "1"
data:
  {uid}.json: |-
    {text}
"""


def check_queries(board, series):
    for where, text, legend in queries(board):
        expression = Expression(text)
        expression.check(series)
        for label in legend - expression.labels(series):
            raise Unknown(f"{where}: the legend shows {label}, which no metric of it has")
        if not expression.metrics:
            raise Unknown(f"{where}: asks for nothing")
    for name, selector, label in variable_queries(board):
        expression = Expression(selector)
        expression.check(series)
        if label not in expression.labels(series):
            raise Unknown(f"{board['uid']}: variable {name} asks for the label {label}, which no metric of it has")
    for panel in board["panels"]:
        if panel["type"] != "row" and not panel["description"]:
            raise Unknown(f"{board['uid']}: {panel['title']} does not say what it answers")


def files():
    """{path: content} of everything that is generated."""
    series = read_metrics()
    made, maps = {}, []
    for board in (fleet.board(), branch.board(), pools.board()):
        check_queries(board, series)
        made[os.path.join(HERE, "dashboards", board["uid"] + ".json")] = json.dumps(board, indent=1, ensure_ascii=False) + "\n"
        maps.append(CONFIG_MAP.format(uid=board["uid"], text=json.dumps(board, ensure_ascii=False, separators=(",", ":"))))
    made[os.path.join(HERE, "configmap.yaml")] = "# Made by generate.py. For Grafana's sidecar, which looks for the label.\n" + "".join(maps)
    return made


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        made = files()
    except Unknown as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    status = 0
    for path, content in made.items():
        if not arguments:
            with open(path, "w", encoding="utf-8") as text:
                text.write(content)
        elif not os.path.exists(path) or open(path, encoding="utf-8").read() != content:
            print(f"error: {os.path.relpath(path)} is not what {os.path.basename(__file__)} writes: run it and commit the result", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
