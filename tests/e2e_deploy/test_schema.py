"""The schema for editors: it is what the binary prints, it takes every configuration that is shipped, and it never objects to what check accepts."""

import copy
import glob
import json
import os
import random
import re
import sys

import pytest
from jsonschema import Draft7Validator

from harness.router import router_binary
from harness.system import run
from image import ROOT
from test_examples import EXAMPLES, FILES, check, examples, write_secret  # noqa: F401  (a fixture)

SCHEMAS = {"pointsman.schema.json": [], "branch.schema.json": ["--branch"]}
KUBERNETES = os.path.join(ROOT, "deploy", "kubernetes")
SHIPPED = sorted([*FILES, os.path.join(ROOT, "deploy", "package", "pointsman.json"),
                  *glob.glob(os.path.join(KUBERNETES, "**", "pointsman.json"), recursive=True)])
BRANCH_FILES = sorted([*glob.glob(os.path.join(EXAMPLES, "**", "branches.d", "*.json"), recursive=True),
                       *glob.glob(os.path.join(KUBERNETES, "**", "branches.d", "*.json"), recursive=True)])
# Nearly every key there is.
EVERYTHING = """{
  "$schema": "./pointsman.schema.json",
  "listeners": [
    {"name": "direct", "address": "0.0.0.0", "port": 5432, "mode": "direct"},
    {"name": "pooled", "address": "0.0.0.0", "port": 6432, "mode": "pooled"},
    {"name": "orders-rw", "address": "127.0.0.1", "port": 7432, "mode": "direct", "branch": "x7k2m9q4w1ab", "target": "primary", "tls": "optional"},
    {"name": "behind", "port": 7433, "proxy_protocol": "required", "trusted_proxies": ["10.0.0.0/8", "fd00::/8"]},
    {"name": "by-name", "port": 7434, "branch_from_sni": "pg.example.com"},
    {"name": "console", "port": 7531, "mode": "console"}
  ],
  "tls": {"certificate": "server.crt", "key": "server.key", "min_version": "1.2"},
  "admin": {"address": "127.0.0.1", "port": 9432, "token_file": "admin.token"},
  "metrics": {"address": "0.0.0.0", "port": 9433, "detail": "active"},
  "console": {"users": {"admin": {"verifier_file": "admin.verifier", "role": "admin"}}, "max_connections": 4, "idle_timeout": "10m"},
  "workers": 2,
  "zone": "a",
  "log": {"level": "info", "format": "text"},
  "tcp": {"keepalive": "30s", "user_timeout": "30s"},
  "limits": {"startup_timeout": "15s", "max_connections": 100, "max_connections_per_branch": 50, "max_held_per_branch": 20},
  "hide_unknown_branches": false,
  "cancel": {"secret_file": "fleet.key", "peers": {"dns": "pointsman-peers:7532", "address": "0.0.0.0", "port": 7533}},
  "shutdown_delay": "0s", "drain_timeout": "30s", "drain_pace": "0",
  "x-ours": ["any", {"thing": null}],
  "defaults": {"probe": {"password_file": "probe.pw"}, "pools": {"old": {"endpoints": [{"host": "10.0.0.30"}], "drain_timeout": "1m"}}},
  "branches_dir": "branches.d",
  "branches": {
    // The names of files and hosts are those of the test.
    "x7k2m9q4w1ab": {
      "labels": {"app": "orders"},
      "members": [
        {"name": "pg-0", "host": "10.0.0.10", "port": 5432, "pgbouncer_port": 6432, "zone": "a"},
        {"name": "pg-1", "host": "pg-1.${branch}.example", "port": 5432, "pgbouncer_port": 6432, "zone": "b"}
      ],
      "pools": {
        "reads": {"target": "replica", "endpoints": [{"host": "10.0.0.20", "port": 6432, "zone": "a", "draining": true}]},
        "app": {"target": "primary", "endpoints": [{"host": "10.0.0.21", "port": 6432}], "backend_tls": {"mode": "require"}, "insecure_backend": true},
        "old": null
      },
      "default_pool": "app",
      "roundtrip_metric": true,
      "probe": {"user": "pointsman", "database": "postgres", "interval": "1s", "timeout": "2s", "idle_after": "5m"},
      "pgbouncer_admin": {"user": "admin", "password_file": "probe.pw"},
      "backend_tls": {"mode": "verify-full", "ca": "ca.crt", "server_name": "${branch}-rw", "certificate": "client.crt", "key": "client.key"},
      "auth": {"method": "scram", "verifiers": "lookup", "lookup": {"user": "auth", "password_file": "auth.pw", "query": "SELECT $1"}},
      "replicas": {"max_lag": "10s", "max_lag_bytes": null, "fallback": "least_lagged", "lag_hard_cap": "60s", "samples_out": 2, "samples_in": 3,
                   "on_promotion": "keep"},
      "failover": {"hold_timeout": "10s", "dead_after": 3, "grace": "30s"},
      "access": {"allow": ["0.0.0.0/0", "::/0"], "private_endpoints": []}
    },
    "dns": {"discover": {"dns": {"name": "pg.example", "family": "ipv4", "interval": "5s", "zone": "a"}}},
    "patroni": {"discover": {"patroni": ["http://pg-0.example:8008", "https://pg-1.example"]}},
    "patroni-too": {"discover": {"patroni": {"urls": ["http://${branch}:8008"], "interval": "2s", "pgbouncer_port": 6432}}},
    "kubernetes": {"discover": {"kubernetes": {"namespace": "db", "service": "pg-r", "leader_service": "pg-rw", "port_name": "postgres",
                                               "api": "https://10.0.0.1:6443", "ca": "ca.crt", "token_file": "probe.pw"}}},
    "x-notes": "yours"
  }
}"""


def parse(text):
    """JSON with // comments; they stand in no text of ours."""
    return json.loads(re.sub(r'("(?:[^"\\]|\\.)*")|//[^\n]*', lambda match: match[1] or "", text))


def read(path):
    with open(path, encoding="utf-8") as text:
        return text.read()


def load_schema(name):
    return json.loads(read(os.path.join(ROOT, "deploy", "schema", name)))


@pytest.fixture(scope="module")
def schema():
    return Draft7Validator(load_schema("pointsman.schema.json"))


def complaints(validator, document):
    def every(errors):
        for error in errors:
            yield error
            yield from every(error.context)  # of what is null or something: why it is not that

    return [f"/{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in every(validator.iter_errors(document))]


@pytest.fixture
def folder(examples):  # noqa: F811
    """Where EVERYTHING can stand."""
    (examples / "branches.d").mkdir()
    write_secret(examples / "fleet.key", "0123456789abcdef0123456789abcdef\n")
    return examples


def demo_configuration():
    """What deploy/demo writes, with names and numbers for the shell's variables."""
    text = re.search(r"<<JSON\n(.*?)\nJSON\n", read(os.path.join(ROOT, "deploy", "demo", "router.sh")), re.DOTALL)[1]
    text = re.sub(r"\$[a-z]+_port", "5432", text)
    return parse(re.sub(r"\$\{address\[[a-z0-9-]+\]\}", "127.0.0.2", text).replace("$branch", "orders"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_lies_in_deploy_is_what_the_binary_prints(name):
    printed = run([router_binary(), "schema", *SCHEMAS[name]]).stdout
    assert read(os.path.join(ROOT, "deploy", "schema", name)) == printed, "pointsman schema [--branch] >deploy/schema/…"
    Draft7Validator.check_schema(json.loads(printed))


def test_the_reference_is_made_from_it():
    run([sys.executable, "-B", os.path.join(ROOT, "docs", "generate_configuration.py"), "--check"])
    page = read(os.path.join(ROOT, "docs", "configuration-reference.md"))
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^## (.*)$", page, re.MULTILINE)}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert set(links) <= anchors and len(links) > 25
    assert "| `startup_timeout` | duration from 100ms to 10m | `\"15s\"` |" in page


@pytest.mark.parametrize("path", [os.path.relpath(path, ROOT) for path in SHIPPED])
def test_every_configuration_that_is_shipped_is_valid(schema, path):
    assert complaints(schema, parse(read(os.path.join(ROOT, path)))) == []


@pytest.mark.parametrize("path", [os.path.relpath(path, ROOT) for path in BRANCH_FILES])
def test_every_branch_file_that_is_shipped_is_valid(path):
    assert complaints(Draft7Validator(load_schema("branch.schema.json")), parse(read(os.path.join(ROOT, path)))) == []


def test_the_demo_and_a_file_with_every_key_are_valid(schema, folder):
    assert complaints(schema, demo_configuration()) == []
    assert complaints(schema, parse(EVERYTHING)) == []
    path = folder / "everything.json"
    path.write_text(EVERYTHING, encoding="utf-8")
    accepted = check(path)
    assert accepted.returncode == 0, accepted.stderr


def test_a_default_is_one_of_the_values_allowed(schema):
    seen = []

    def visit(node):
        if isinstance(node, dict):
            if "default" in node and "title" in node:
                seen.append(node["title"])
                assert Draft7Validator(node).is_valid(node["default"]), node
            node = list(node.values())
        if isinstance(node, list):
            for entry in node:
                visit(entry)

    visit(schema.schema)
    assert len(seen) > 40


BAD = [
    ("/workers", "2", "wrong type"), ("/workers", 0, "below"), ("/workers", 257, "above"), ("/workers", 2.5, "not whole"),
    ("/hide_unknown_branches", "yes", "wrong type"), ("/log/level", "verbose", "no such word"), ("/drain_timeout", 30, "wrong type"),
    ("/drain_timeout", "30", "no unit"), ("/shutdown_delay", "soon", "no duration"), ("/lisseners", [], "unknown key"), ("/zone", "a b", "no label"),
    ("/listeners", [], "empty"), ("/listeners", {}, "wrong type"), ("/listeners/0/port", 65536, "above"), ("/listeners/0/mode", "both", "no such word"),
    ("/listeners/0/verifier", "x", "unknown key"), ("/listeners/5/branch", "x7k2m9q4w1ab", "not for a console"), ("/listeners/0/address", "localhost", "no address"),
    ("/listeners/3/trusted_proxies/0", "ten", "no range"), ("/listeners/4/branch_from_sni", 1, "wrong type"), ("/tls/min_version", "1.1", "no such word"),
    ("/console/users/admin/role", "owner", "no such word"), ("/console/users", {}, "nobody"), ("/cancel/secret", "s", "unknown key"),
    ("/cancel/peers/dns", "pointsman-peers", "no port"), ("/cancel/peers/port", 0, "below"),
    ("/branches/UPPER", {"members": [{"name": "a", "host": "b"}]}, "no name"), ("/branches/x7k2m9q4w1ab", 1, "wrong type"),
    ("/branches/x7k2m9q4w1ab/memmbers", [], "unknown key"), ("/branches/x7k2m9q4w1ab/members/0/port", 0, "below"),
    ("/branches/x7k2m9q4w1ab/members/0/host", "pg 0", "no host"), ("/branches/x7k2m9q4w1ab/members/0/host", None, "missing"),
    ("/branches/x7k2m9q4w1ab/pools/replica", {"endpoints": [{"host": "10.0.0.9"}]}, "reserved"),
    ("/branches/x7k2m9q4w1ab/pools/app/endpoints", [], "empty"), ("/branches/x7k2m9q4w1ab/labels/2nd", "x", "no name"),
    ("/branches/x7k2m9q4w1ab/backend_tls/mode", "prefer", "no such word"), ("/branches/x7k2m9q4w1ab/backend_tls/sslmode", "require", "unknown key"),
    ("/branches/x7k2m9q4w1ab/replicas/samples_in", 101, "above"), ("/branches/x7k2m9q4w1ab/access/allow", [], "nobody"),
    ("/branches/kubernetes/discover/kubernetes/api", "http://10.0.0.1", "not https"), ("/branches/dns/discover/consul", {}, "unknown key"),
    ("/branches/patroni/discover/patroni", [], "empty"), ("/branches/patroni/discover/patroni", "http://a", "wrong type"),
    ("/defaults/probe/interval", 5, "wrong type"),
]


@pytest.mark.parametrize("pointer, value, why", BAD)
def test_a_mistake_is_one_for_both_and_in_the_same_place(schema, folder, pointer, value, why):
    document = parse(EVERYTHING)
    *steps, last = [int(step) if step.isdigit() else step for step in pointer[1:].split("/")]
    holder = document
    for step in steps:
        holder = holder[step]
    holder[last] = value
    assert any(re.sub("/[^/]+$", "", pointer) in text for text in complaints(schema, document)), why
    path = folder / "bad.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    checked = check(path)
    assert checked.returncode == 1 and f"{path}: {pointer}" in checked.stderr, checked.stderr


def containers(node, inside=()):
    """(path, object or array) of everything that can be changed from outside; what is the operator's is left alone."""
    if isinstance(node, (dict, list)):
        yield inside, node
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if not str(key).startswith("x-"):
                yield from containers(value, (*inside, key))


VALUES = [None, True, False, 0, 1, -1, 2, 3.0, 0.5, 7, 65535, 65536, 10**9, 2**50 + 1, "", "a", "A", "10s", "1500ms", "25h", "0", "-1s", "${branch}", "x${branch}", "::1",
          "127.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "http://a:1", "https://a", "primary", "replica", "console", "pooled", "app", "off", "required", "error", "a b", "ä",
          "tab\there", "a.b_c-d", "-a", "x" * 63, "x" * 64, "x" * 254, "x" * 1025, [], {}, [{}], [""], ["a"], {"a": {}}, {"a": None}, {"x-a": 1}]


def mutate(document, chance):
    """One change somewhere: a value, a key, an entry more or less, a part put elsewhere."""
    places = list(containers(document))
    _, holder = chance.choice(places)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    kind = chance.random()
    if kind < 0.15 or not keys:
        if isinstance(holder, dict):
            holder[chance.choice(["a", "x-a", "name", "port", "mode", "tls", "", "Ä", "$schema"])] = copy.deepcopy(chance.choice(VALUES))
        else:
            holder.append(copy.deepcopy(chance.choice(VALUES)))
        return
    key = chance.choice(keys)
    if kind < 0.25:
        del holder[key]
    elif kind < 0.35:
        _, other = chance.choice(places)
        holder[key] = copy.deepcopy(other)
    elif kind < 0.45 and isinstance(holder[key], int):
        holder[key] += chance.choice([-10**6, -1, 1, 10**6])
    elif kind < 0.55 and isinstance(holder[key], str):
        holder[key] += chance.choice([" ", "a", "$", "${branch}", "/", "ä"])
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))


def starting_points():
    """Documents that check accepts in the folder."""
    texts = [EVERYTHING, *(read(path) for path in FILES if os.path.dirname(path) == EXAMPLES), read(os.path.join(ROOT, "deploy", "package", "pointsman.json"))]
    return [parse(text) for text in texts]


def with_plain_branch(document):
    """With a branch that takes over what stands in `defaults`: check says nothing of what none does."""
    defaults, branches = document.get("defaults"), document.get("branches")
    if isinstance(defaults, dict) and (branches is None or isinstance(branches, dict)):
        has_members = defaults.get("discover") is not None or defaults.get("members") is not None
        plain = {} if has_members else {"members": [{"name": "pg-0", "host": "pg-0.example"}]}
        document["branches"] = {**(branches or {}), "plain": plain}
    return document


def test_what_check_accepts_is_never_rejected_by_the_schema(schema, folder):
    """Documents with up to three changes; only those that the schema rejects are shown to check, which must reject them too."""
    chance = random.Random(20270214)
    path = folder / "mutated.json"
    rejected = 0
    for document in starting_points():
        path.write_text(json.dumps(with_plain_branch(copy.deepcopy(document))), encoding="utf-8")
        assert check(path).returncode == 0, check(path).stderr
        for _ in range(60):
            mutated = copy.deepcopy(document)
            for _ in range(chance.choice([1, 1, 2, 3])):
                mutate(mutated, chance)
            said = complaints(schema, with_plain_branch(mutated))
            if not said:
                continue
            rejected += 1
            path.write_text(json.dumps(mutated), encoding="utf-8")
            assert check(path).returncode == 1, f"{said}\n{json.dumps(mutated, indent=1)}"
    assert rejected > 300
