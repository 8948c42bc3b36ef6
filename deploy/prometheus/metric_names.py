"""What Pointsman's metrics are called, and whether a PromQL expression names only such. Standard library only.

The truth is metrics/names.h: names, types and labels are read from there, so that a rule or a panel cannot outlive a metric.
This is no PromQL parser; it sees identifiers, selectors and label lists, and Prometheus itself judges the rest (tests/e2e_observe).
"""

import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMES_H = os.path.join(ROOT, "metrics", "names.h")

# Put on by Prometheus when it scrapes; `namespace` where targets are found in Kubernetes.
TARGET_LABELS = {"job", "instance", "namespace"}
# Made by Prometheus itself.
OWN_SERIES = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
# Carries whatever labels a branch is configured with.
OPEN_METRICS = {"pointsman_branch_info"}

_ENTRY = re.compile(r'\{Metric::k\w+,\s*MetricType::k(\w+),\s*"([^"]+)",\s*\{([^}]*)\},\s*((?:"(?:[^"\\]|\\.)*"\s*)+)\}')
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<variable>\$\{?\w+(?::\w+)?\}?)|(?P<number>\d[\w.]*)"""
    r"""|(?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^=<>(){}\[\],:@])|(?P<space>\s+)""")
_LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_KEYWORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_FUNCTIONS = {
    "sum", "max", "min", "avg", "count", "topk", "bottomk", "quantile", "group", "count_values", "rate", "irate", "increase", "delta",
    "changes", "resets", "histogram_quantile", "time", "timestamp", "clamp_min", "clamp_max", "absent", "label_replace", "vector", "scalar",
    "max_over_time", "min_over_time", "avg_over_time", "sum_over_time", "last_over_time", "count_over_time", "round", "sort_desc", "abs"}


class Unknown(Exception):
    """An expression names a metric, label or function that does not exist."""


def read_specs(path=NAMES_H):
    """[(type, name, labels, help text)] in the order of the file."""
    with open(path, encoding="utf-8") as text:
        source = text.read()
    entries = _ENTRY.findall(source)
    listed = source.count("{Metric::k")
    if not entries or len(entries) != listed:
        raise Unknown(f"{path}: {listed} metrics are listed, {len(entries)} could be read")
    return [(kind, name, re.findall(r'"([^"]+)"', labels), "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text)))
            for kind, name, labels, text in entries]


def read_metrics(path=NAMES_H):
    """{series name: its labels}; a histogram gives its three series."""
    series = {}
    for kind, name, labels, _ in read_specs(path):
        words = set(labels)
        if kind == "Histogram":
            series.update({f"{name}_bucket": words | {"le"}, f"{name}_sum": words, f"{name}_count": words})
        else:
            series[name] = words
    return series


def _tokens(expression):
    found, position = [], 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if not match:
            raise Unknown(f"cannot read {expression[position:position + 30]!r} in: {expression}")
        position = match.end()
        if match.lastgroup != "space":
            found.append((match.lastgroup, match.group()))
    return found


def _until(tokens, start, closing):
    end = start
    while tokens[end][1] != closing:
        end += 1
    return end


class Expression:
    """What a PromQL expression names: `metrics`, the labels it matches per metric, the labels it groups by, the labels it makes."""

    def __init__(self, text):
        self.text = text
        self.metrics = {}
        self.grouped = set()
        self.made = set()
        self.functions = set()
        self._read(_tokens(text))

    def _read(self, tokens):
        at = 0
        tokens = [*tokens, ("end", "")]
        while tokens[at][0] != "end":
            kind, word = tokens[at]
            following = tokens[at + 1][1]
            if kind == "sign" and word == "[":
                at = _until(tokens, at, "]")
            elif kind != "word" or word.lower() in _KEYWORDS:
                pass
            elif word in _LABEL_LISTS:
                if following == "(":
                    end = _until(tokens, at, ")")
                    self.grouped |= {text for sort, text in tokens[at + 2:end] if sort == "word"}
                    at = end
            elif following in ("(", "by", "without"):
                self.functions.add(word)
                if word == "label_replace":
                    self.made |= self._made_by(tokens[at:])
            else:
                matched = self.metrics.setdefault(word, set())
                if following == "{":
                    end = _until(tokens, at, "}")
                    matched |= {text for sort, text in tokens[at + 2:end] if sort == "word"}
                    at = end
            at += 1

    @staticmethod
    def _made_by(tokens):
        """The label that label_replace(vector, "label", …) makes."""
        depth = 0
        for at, (_, word) in enumerate(tokens):
            depth += (word == "(") - (word == ")")
            if word == "," and depth == 1 and tokens[at + 1][0] == "string":
                return {tokens[at + 1][1][1:-1]}
        return set()

    def labels(self, series):
        """Every label that a result may carry."""
        known = TARGET_LABELS | self.made
        for name in self.metrics:
            known |= series.get(name, OWN_SERIES.get(name, set()))
        return known

    def check(self, series):
        """Raises Unknown unless all that is named exists in `series` (of read_metrics, recorded ones added)."""
        for function in self.functions - _FUNCTIONS:
            raise Unknown(f"{function}() is no function that is used here: {self.text}")
        for name, matched in self.metrics.items():
            if name not in series and name not in OWN_SERIES:
                raise Unknown(f"{name} is no metric of metrics/names.h: {self.text}")
            known = series.get(name, OWN_SERIES.get(name, set())) | TARGET_LABELS
            for label in matched - known:
                if name not in OPEN_METRICS:
                    raise Unknown(f"{name} has no label {label}: {self.text}")
        for label in self.grouped - self.labels(series):
            raise Unknown(f"no metric of it has the label {label}: {self.text}")
