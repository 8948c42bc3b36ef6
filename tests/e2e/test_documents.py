"""The pages: every example of docs/ is run as it stands there, every link leads somewhere, every page is found from the index."""

import contextlib
import json
import os
import re
import shutil
import signal

import pytest
from harness import documents
from harness.bouncer import Bouncer
from harness.certs import Authority
from harness.cluster import make_server_folder
from harness.router import Router, router_binary
from harness.system import Daemon, clean_environment, free_port, run

CONNECTING, QUICKSTART, MIGRATING = "docs/connecting.md", "docs/quickstart.md", "docs/migrating.md"
PAGES = documents.pages()
CHECKED = [example for page in (CONNECTING, QUICKSTART, MIGRATING) for example in documents.examples(page) if example.kind == "check"]
CONNECTIONS = [example for example in documents.examples(CONNECTING) if example.kind == "run"]

_JAVA = "import java.sql.*;\nimport java.util.*;\n\npublic class Example {{\n  public static void main(String[] arguments) throws Exception {{\n{}  }}\n}}\n"
_VERIFIER = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


# --- the pages' world: role alice, database and branch orders, pool reads ---

@pytest.fixture(scope="module")
def alice(world):
    """What the pages call the operator's work, beside what the other tests have. Gone again at the end."""
    primary = world.cluster.primary
    primary.sql("CREATE ROLE alice LOGIN PASSWORD 'secret'")
    primary.sql("CREATE DATABASE orders OWNER alice")
    world.cluster.catch_up()
    folder = make_server_folder(os.path.join(world.folder, "documents"))
    key = os.path.join(os.path.dirname(world.server_certificate), "backend.key")
    verifiers = dict(primary.sql("SELECT rolname, rolpassword FROM pg_authid WHERE rolname = 'alice'"))
    with contextlib.ExitStack() as stack:
        bouncers = {}
        for name, node in (("local-pg-0", "pg-0"), ("reads", "pg-1")):
            bouncers[name] = Bouncer(name, world.cluster.named(node), folder, verifiers, world.server_certificate, key,
                                     world.authority.certificate).start()
            stack.callback(bouncers[name].stop)
        yield bouncers
    primary.sql("DROP DATABASE orders WITH (FORCE)")
    primary.sql("DROP ROLE alice")


@pytest.fixture(scope="module")
def stand(world, alice, secrets, router_certificate, dependencies):
    """A router with the branch `orders`, and a folder with what the pages' programs find in theirs."""
    certificate, key = router_certificate
    members = [{"name": name, "host": "127.0.0.1", "port": world.cluster.named(name).port} for name in ("pg-0", "pg-1", "pg-2")]
    members[0]["pgbouncer_port"] = alice["local-pg-0"].port
    ports = {name: free_port() for name in ("direct", "pooled")}
    config = {
        "listeners": [{"name": name, "address": "127.0.0.1", "port": port, "mode": name} for name, port in ports.items()],
        "tls": {"certificate": certificate, "key": key},
        "admin": {"address": "127.0.0.1", "port": free_port()},
        "branches": {"orders": {
            "members": members, "probe": world.probe(secrets), "backend_tls": world.backend_tls(),
            "pools": {"reads": {"target": "replica", "endpoints": [{"host": "127.0.0.1", "port": alice["reads"].port}]}},
        }},
    }
    router = Router(router_binary(), os.path.join(world.folder, "documents-router"), config, world)
    work = os.path.join(world.folder, "documents-work")
    os.makedirs(work)
    shutil.copy(world.authority.certificate, os.path.join(work, "ca.crt"))
    os.symlink(dependencies, os.path.join(work, "node_modules"))
    try:
        router.start()
        for example in documents.examples(CONNECTING):
            if example.kind == "file":
                put(work, example.name, documents.substituted(example.text, ports["direct"], ports["pooled"]))
        yield router, work
    finally:
        router.finish()


def put(folder, name, text, mode=0o644):
    path = os.path.join(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
    return path


# --- docs/connecting.md ---

def command_for(name, text, work):
    """How an example of this ending is run, in `work`. Skips where its client is not installed: the page says which ones are everywhere."""
    ending = name.rsplit(".", 1)[1]
    if ending == "java":
        put(work, name, _JAVA.format(text))
        return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar", name]
    put(work, name, text)
    if ending == "go":
        if not shutil.which("go") or not os.path.isdir("/usr/share/gocode/src/github.com/jackc/pgx"):
            pytest.skip("Go with pgx (golang-go, golang-github-jackc-pgx-v4-dev) is not installed")
        return ["go", "run", name]
    return {"sh": ["sh", "-eu", name], "py": ["/usr/bin/python3", "-B", name], "js": ["node", name], "rb": ["ruby", name]}[ending]


@pytest.fixture
def needed(world, dependencies):
    """What an example needs beyond its own client, as environment variables."""
    def give(what, work):
        if what == "libpq18":
            return {"LD_LIBRARY_PATH": world.postgresql_18.libraries}
        if what == "prisma":
            if not os.path.isdir(os.path.join(dependencies, "@prisma", "adapter-pg")):
                pytest.skip("Prisma (npm: prisma @prisma/client @prisma/adapter-pg) is not installed")
            # Generating needs no engine; without a path to one Prisma would fetch it.
            run(["node", os.path.join(dependencies, "prisma", "build", "index.js"), "generate", "--schema", "schema.prisma"], cwd=work,
                env=clean_environment(PRISMA_SCHEMA_ENGINE_BINARY="/bin/true", CHECKPOINT_DISABLE="1"))
        return {}

    return give


@pytest.mark.parametrize("example", CONNECTIONS, ids=lambda example: example.name)
def test_an_example_of_connecting_connects(stand, needed, example):
    router, work = stand
    text = documents.substituted(example.text, router.port("direct"), router.port("pooled"))
    # The servers listen on 127.0.0.1 alone; where localhost is ::1 too, node tries nothing else.
    environment = clean_environment(PGPASSWORD="secret", NODE_OPTIONS="--dns-result-order=ipv4first", GOPATH="/usr/share/gocode", GO111MODULE="off",
                                    GOCACHE=os.path.join(work, "go"), **needed(example.needs, work))
    said = run(command_for(example.name, text, work), cwd=work, env=environment).stdout
    assert any(example.prints in line for line in said.splitlines()), said


def test_a_set_after_the_login_is_taken_and_does_nothing(stand):
    """What connecting.md warns of."""
    router, _ = stand
    said = router.psql("SET pointsman.max_lag = 'nonsense'; SELECT current_setting('pointsman.max_lag')", "alice.orders", password="secret", database="orders")
    assert said.stdout == "nonsense"


def test_connecting_shows_every_client_with_a_pool_and_with_a_replica(stand):
    names = {example.name.rsplit(".", 1)[1] for example in CONNECTIONS}
    assert names == {"sh", "py", "java", "js", "rb", "go"}
    text = documents.read(CONNECTING)
    for client in ("psql", "psycopg", "asyncpg", "SQLAlchemy", "Django", "JDBC", "node-postgres", "postgres.js", "Rails", "Prisma", "pgx"):
        assert re.search(rf"^## .*{re.escape(client)}", text, re.MULTILINE), f"{client} has no section"


# --- docs/quickstart.md: the walk ---

@contextlib.contextmanager
def serving(command, log, work, environment):
    daemon = Daemon("pointsman", command, log, stop_signal=signal.SIGTERM, env=environment)
    try:
        yield daemon
    finally:
        assert daemon.stop() == 0, daemon.log()


def test_the_quickstart_is_walked_to_its_end(world, alice, secrets, tmp_path):
    """Its commands in their order, with the servers' places put into its configuration. What it has done by hand (the password file) is given."""
    work = str(tmp_path)
    direct, pooled, admin = free_port(), free_port(), free_port()
    primary = world.cluster.primary
    with open(secrets.password("pointsman"), encoding="utf-8") as password:
        put(work, "probe.pw", password.read(), 0o600)
    shutil.copy(world.authority.certificate, os.path.join(work, "cluster-ca.crt"))
    os.symlink(os.path.join(documents.ROOT, "deploy"), os.path.join(work, "deploy"))
    os.makedirs(os.path.join(work, "bin"))
    # The admin endpoint is at its usual port in the page, and at a free one here.
    put(work, "bin/pointsman", f"#!/bin/sh\ncase $1 in route|status) set -- \"$@\" --admin http://127.0.0.1:{admin} ;; esac\nexec {router_binary()} \"$@\"\n", 0o755)
    environment = clean_environment(PATH=f"{work}/bin:{os.environ['PATH']}", PGPASSWORD="secret")
    as_superuser = {**environment, "PGHOST": primary.sockets, "PGPORT": str(primary.port), "PGUSER": "postgres"}

    with contextlib.ExitStack() as stack:
        for example in documents.examples(QUICKSTART):
            text = documents.substituted(example.text, direct, pooled)
            if example.kind == "file":
                config = documents.without_comments(example.text)
                for listener in config["listeners"]:
                    listener.update(address="127.0.0.1", port={"direct": direct, "pooled": pooled}[listener["mode"]])
                config["admin"]["port"] = admin
                for member in config["branches"]["orders"]["members"]:
                    member.update(host="127.0.0.1", port=world.cluster.named(member["name"]).port)
                put(work, example.name, json.dumps(config))
                continue
            if example.name == "serve.sh":
                daemon = stack.enter_context(serving(["sh", "-c", f"cd {work} && exec {text}"], os.path.join(work, "log"), work, environment))
                daemon.wait_until(lambda: example.prints in daemon.log(), "it to say that it listens")
                continue
            said = run(["sh", "-eu", "-c", text], cwd=work, env=as_superuser if example.needs == "superuser" else environment)
            everything = said.stdout + said.stderr
            assert any(example.prints in line for line in everything.splitlines()), f"{example.name}: {everything}"


# --- configurations ---

@pytest.fixture(scope="module")
def named_files(tmp_path_factory):
    """A folder with every file that the configurations of the pages name."""
    folder = str(tmp_path_factory.mktemp("configurations"))
    authority = Authority(folder)
    authority.issue("server")
    for name in ("cluster-ca.crt", "pools-ca.crt"):
        shutil.copy(authority.certificate, os.path.join(folder, name))
    put(folder, "probe.pw", "a-secret\n", 0o600)
    put(folder, "admin.token", "a-token\n", 0o600)
    put(folder, "admin.verifier", _VERIFIER + "\n", 0o600)
    put(folder, "userlist.txt", f'"alice" "{_VERIFIER}"\n', 0o600)
    return folder


@pytest.mark.parametrize("example", [*CHECKED, *(e for e in documents.examples(QUICKSTART) if e.kind == "file")],
                         ids=lambda example: f"{os.path.basename(example.page)}:{example.name}")
def test_a_configuration_of_a_page_passes_check(named_files, example):
    path = put(named_files, example.name, example.text)
    said = run([router_binary(), "check", "--config", path], check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("page", [CONNECTING, QUICKSTART, MIGRATING])
def test_no_block_of_a_page_goes_untried(page):
    assert documents.unmarked_blocks(page) == []


def test_every_migration_has_a_checked_configuration():
    assert {example.name for example in CHECKED if example.page == MIGRATING} == {
        "from-pgbouncer.json", "from-haproxy.json", "from-pgdog.json", "from-odyssey.json"}


# --- links ---

@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    assert documents.broken_links(page) == []


def test_the_link_checker_finds_what_is_broken(monkeypatch):
    texts = {"docs/one.md": "# One & `two`\n[a](one.md#one--two) [b](none.md)\n\n    [code](no.md)\n\n```\n[code](no.md)\n```\n`[code](no.md)` [c](#three) "
                            "[`d`](../README.md) ![e](no.svg)\n"}
    monkeypatch.setattr(documents, "read", lambda page: texts[page])
    monkeypatch.setattr(os.path, "exists", lambda path: os.path.basename(path) in ("one.md", "README.md"))
    assert [line.split(": ")[1] for line in documents.broken_links("docs/one.md")] == ["none.md", "#three", "no.svg"]


def test_the_index_names_every_page_of_docs():
    named = {os.path.normpath(os.path.join("docs", target.partition("#")[0])) for _, target in documents.links("docs/README.md")}
    pages = {page for page in PAGES if os.path.dirname(page) == "docs"} - {"docs/README.md"}
    assert pages - named == set()
