#!/usr/bin/env python3
"""Writes metrics.md, the reference of all metrics, from metrics/names.h. Standard library only.

    generate_metrics.py            writes it
    generate_metrics.py --check    writes nothing; exit status 1 when the file is not what would be written
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "deploy", "prometheus"))

from metric_names import read_specs  # noqa: E402

PAGE = os.path.join(HERE, "metrics.md")
HEAD = """\
# Metrics

Made from `metrics/names.h` by `docs/generate_metrics.py`. `GET /metrics` on the admin endpoint, and on the endpoint of `metrics` alone; text format 0.0.4.

Label values come from the configuration only, never from what a client typed. A value that is not known is an absent series, not 0. An empty label is a label that is not there. Counters of a branch
appear with their first event and begin again when its members or pools change. `metrics.detail` chooses the branches that have series: those in use, all, or none. What to watch: [observability](observability.md).

| metric | type | labels | |
| --- | --- | --- | --- |
"""


def page():
    rows = []
    for kind, name, labels, text in read_specs():
        words = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {kind.lower()} | {words} | {text} |\n")
    return HEAD + "".join(rows)


def main():
    wanted = page()
    if sys.argv[1:] == ["--check"]:
        with open(PAGE, encoding="utf-8") as text:
            if text.read() != wanted:
                sys.exit("docs/metrics.md is not what metrics/names.h says: run docs/generate_metrics.py")
        return
    if sys.argv[1:]:
        sys.exit(__doc__)
    with open(PAGE, "w", encoding="utf-8") as text:
        text.write(wanted)


if __name__ == "__main__":
    main()
