"""Planned switches: hold, release and adopt, on real clusters of the tests' own, with PgBouncers whose upstream is this router.

    psql/pgbench ──► router :pooled ──► PgBouncer 1.18 "app" ──► router :rw (branch and target fixed) ──► the primary
"""

import concurrent.futures
import configparser
import contextlib
import glob
import itertools
import os
import re
import shutil
import signal
import subprocess
import time

import psycopg
import pytest
from harness.disposable import Disposable, disposable_cluster
from harness.router import conninfo
from harness.system import Daemon, clean_environment, free_port, give_to_server_user, is_listening, wait_until, which
from harness.world import BRANCH, PASSWORDS

POOL_USER = f"app.{BRANCH}|app"
TOKEN = "an-admin-token"
EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "examples", "pgbouncer-through-pointsman.ini")

_numbers = itertools.count(400)


class ThroughBouncer:
    """PgBouncer 1.18 by the shipped example; only addresses, paths and logging are this test's."""

    def __init__(self, folder, upstream_port, verifiers, settings):
        self.port = free_port()
        self._ini = os.path.join(folder, "through.ini")
        self._log = os.path.join(folder, "through.log")
        users = os.path.join(folder, "through.users")
        with open(users, "w", encoding="utf-8") as text:
            text.writelines(f'"{role}" "{verifier}"\n' for role, verifier in verifiers.items())
        os.chmod(users, 0o600)
        give_to_server_user(users)
        shipped = configparser.ConfigParser(comment_prefixes=(";",), delimiters=("=",), interpolation=None)
        shipped.optionxform = str
        with open(EXAMPLE, encoding="utf-8") as text:
            shipped.read_file(text)
        assert shipped["databases"]["*"] == "host=127.0.0.1 port=7432"
        shipped["databases"]["*"] = f"host=127.0.0.1 port={upstream_port}"
        shipped["pgbouncer"].update({"listen_port": str(self.port), "auth_file": users, "log_connections": "1",
                                     "log_disconnections": "1", **settings})
        with open(self._ini, "w", encoding="utf-8") as text:
            shipped.write(text)
        self._daemon = None

    def start(self):
        self._daemon = Daemon("pgbouncer through", [which("pgbouncer"), self._ini], self._log, stop_signal=signal.SIGTERM, as_server=True)
        self._daemon.wait_until(lambda: is_listening(self.port), "pgbouncer to listen")
        return self

    def stop(self):
        if self._daemon and self._daemon.running():
            self._daemon.stop()

    def log(self):
        return self._daemon.log()

    def console(self, command):
        with psycopg.connect(host="127.0.0.1", port=self.port, dbname="pgbouncer", user="pointsman", password=PASSWORDS["pointsman"],
                             autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
            cursor = connection.execute(command)
            return cursor.fetchall() if cursor.description else None

    def paused(self):
        """By what it does: only a paused one lets itself be resumed."""
        return "paused" if re.findall(r"(PAUSE|RESUME) command issued", self.log())[-1:] == ["PAUSE"] else ""


class Stage:
    """A disposable cluster, the pool in front of it, and the router in front of both."""

    def __init__(self, disposable, bouncer, router):
        self.disposable, self.bouncer, self.router = disposable, bouncer, router

    @property
    def cluster(self):
        return self.disposable.cluster

    def connect(self, user=POOL_USER, listener="pooled", **more):
        return psycopg.connect(**self.router.libpq(user, listener=listener, database="app"), autocommit=True,
                               cursor_factory=psycopg.ClientCursor, **more)

    def command(self, *arguments, timeout=60):
        return self.router.command(arguments[0], "--admin", self.router.admin_url, "--token-file",
                                   self.router.config["admin"]["token_file"], *arguments[1:], timeout=timeout)

    def hold(self, *options, branch=BRANCH):
        return self.command("hold", *options, branch)

    def release(self, branch=BRANCH):
        return self.command("release", branch)

    def post(self, path, token=TOKEN):
        return self.router.http(path, method="POST", token=token)

    def on_hold(self):
        return self.router.status()["on_hold"]


@pytest.fixture
def disposable(world, folder):
    with disposable_cluster(world, folder) as made:
        yield made


@pytest.fixture
def set_up(start_router, world, folder, secrets, router_certificate, disposable):
    """The stage; `change` edits the configuration. The upstream of the pool is the listener `rw`."""
    bouncers = []

    def make(change=None, *, state_dir=True, bouncer_settings=(), bouncer_tls=None, **failover):
        upstream = free_port()
        verifiers = dict(disposable.cluster.primary.sql(
            "SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN ('app', 'pointsman')"))
        bouncer = ThroughBouncer(disposable.folder, upstream, verifiers, dict(bouncer_settings))
        config = disposable.config(
            world, folder, secrets, *router_certificate,
            pools={"app": {"target": "primary", "endpoints": [{"host": "127.0.0.1", "port": bouncer.port}], "backend_tls": bouncer_tls or {"mode": "disable"}}})
        config["listeners"].append({"name": "rw", "address": "127.0.0.1", "port": upstream, "mode": "direct", "branch": BRANCH,
                                    "target": "primary", "tls": "optional"})
        config["defaults"]["probe"].update(interval="200ms", timeout="1s")
        config["defaults"]["failover"] = {"hold_timeout": "10s", "dead_after": 3, "grace": "3s", **failover}
        if state_dir:
            config["state_dir"] = os.path.join(disposable.folder, "state")
            os.mkdir(config["state_dir"], 0o700)
        if change:
            change(config)
        router = start_router(config=config)
        bouncers.append(bouncer.start())
        stage = Stage(disposable, bouncer, router)
        with stage.connect() as session:
            session.execute("SELECT 1")
        for node in disposable.cluster.nodes:
            router.wait_member(node.name, role="primary" if node is disposable.cluster.primary else "replica")
        return stage

    yield make
    for bouncer in bouncers:
        bouncer.stop()


# --- pgbench through the pool ---

CLIENTS = 8
_SCRIPT = r"""
\set account random(1, 1000)
SELECT balance FROM accounts WHERE id = :account;
UPDATE accounts SET balance = balance + 1 WHERE id = :account;
\sleep 5 ms
"""


class Pgbench:
    """Runs in the background; every transaction of it is in a log, in order of its end."""

    def __init__(self, stage, folder, seconds, script=_SCRIPT):
        self.folder = folder
        os.makedirs(folder)
        path = os.path.join(folder, "script.sql")
        with open(path, "w", encoding="ascii") as text:
            text.write(script)
        parameters = stage.router.libpq(POOL_USER, listener="pooled", database="app")
        password = parameters.pop("password")
        self._process = subprocess.Popen(
            [which("pgbench"), "-n", "-M", "simple", "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), "-f", path, "-l",
             "--log-prefix", os.path.join(folder, "tx"), conninfo(parameters)],
            env=dict(clean_environment(), PGPASSWORD=password), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def transactions(self):
        """[(client, seconds it took, when it ended)]"""
        found = []
        for path in glob.glob(os.path.join(self.folder, "tx*")):
            with open(path, encoding="ascii") as text:
                for line in text:
                    fields = line.split()
                    if line.endswith("\n") and len(fields) >= 6:
                        found.append((int(fields[0]), int(fields[2]) / 1e6, int(fields[4]) + int(fields[5]) / 1e6))
        return found

    def wait_busy(self, since=0.0):
        wait_until(lambda: len({client for client, _, ended in self.transactions() if ended > since}) >= CLIENTS // 2,
                   "pgbench's clients to work", 30)

    def finish(self):
        out, err = self._process.communicate(timeout=90)
        self.processed = int(re.search(r"actually processed: (\d+)", out).group(1))
        return self._process.returncode, out, err

    def longest(self):
        return max(took for _, took, _ in self.transactions())


def make_accounts(node):
    node.sql("CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);"
             "INSERT INTO accounts SELECT generate_series(1, 1000); ALTER TABLE accounts OWNER TO app", database="app")


def test_pgbench_through_the_pool_notices_no_planned_switch(set_up, disposable):
    """hold, switchover, release: no error, no disconnect, no lost update."""
    stage = set_up()
    old, new = stage.cluster.primary, stage.cluster.named("pg-1")
    make_accounts(old)
    bench = Pgbench(stage, os.path.join(disposable.folder, "bench"), 15)
    bench.wait_busy()

    began = time.monotonic()
    held = stage.hold("--timeout", "40s")
    assert held.returncode == 0, held.stderr
    assert "1 PgBouncer paused" in held.stdout and stage.on_hold()
    hold_took = time.monotonic() - began
    stage.cluster.primary, stage.cluster.replicas = new, [stage.cluster.named("pg-2"), old]
    old.stop()
    new.promote()
    switched = time.monotonic()
    released = stage.release()
    assert released.returncode == 0, released.stderr
    assert "the primary is pg-1" in released.stdout
    release_took, all_took = time.monotonic() - switched, time.monotonic() - began
    old.follow(new).start()
    bench.wait_busy(since=time.time())

    code, out, err = bench.finish()
    assert code == 0 and "aborted" not in err and "ERROR" not in err and "FATAL" not in err, err
    assert re.search(r"number of failed transactions: 0 ", out), out
    assert new.value("SELECT sum(balance) FROM accounts", database="app") == bench.processed
    assert not re.findall(r"C-.*closing because: (?!client close request|client unexpected eof|pooler)", stage.bouncer.log())
    sessions = stage.router.metrics()
    assert sessions.sum("pointsman_failovers_total", branch=BRANCH) == 1
    assert sessions.sum("pointsman_branch_on_hold", branch=BRANCH) == 0
    assert bench.longest() < 20
    print(f"\nplanned: longest stall {bench.longest():.2f} s of a switch that took {all_took:.2f} s "
          f"(hold {hold_took:.2f} s, release {release_took:.2f} s), {bench.processed} transactions")


def test_new_sessions_to_the_primary_wait_during_a_hold(set_up):
    stage = set_up()
    assert stage.hold().returncode == 0
    assert stage.hold().returncode == 1  # twice is once
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(lambda u=user, l=listener: stage.connect(u, l).execute("SELECT 1").fetchone())
                   for user, listener in ((POOL_USER, "pooled"), (f"app.{BRANCH}", "direct"))]
        wait_until(lambda: stage.router.status()["holding"] == 2, "both logins to be held")
        with stage.connect(f"app.{BRANCH}|replica", "direct") as replica:
            assert replica.execute("SELECT 1").fetchone() == (1,)
        assert stage.router.metrics().sum("pointsman_branch_on_hold", branch=BRANCH) == 1
        assert "on hold" in stage.router.command("status", "--admin", stage.router.admin_url).stdout
        released = stage.release()
        assert released.returncode == 0 and "pg-0, as before" in released.stdout, released
        assert [future.result(15) for future in waiting] == [(1,), (1,)]
    again = stage.release()
    assert again.returncode == 1 and "is not on hold" in again.stderr
    assert stage.post(f"/api/release?branch={BRANCH}")[0] == 404


def test_a_pause_that_takes_too_long_is_taken_back(set_up):
    """A client stays in its transaction: no hold, and everybody goes on."""
    stage = set_up(hold_timeout="2s")
    with stage.connect() as busy, stage.connect() as other:
        busy.execute("BEGIN")
        busy.execute("SELECT 1")
        held = stage.hold()
        assert held.returncode == 1, held.stdout
        assert re.search(r"app/127\.0\.0\.1:\d+ could not be paused: PAUSE was not done in time", held.stderr), held.stderr
        assert "everything runs on as before" in held.stderr
        assert not stage.on_hold()
        assert other.execute("SELECT 2").fetchone() == (2,)
        assert busy.execute("SELECT 3").fetchone() == (3,)
        busy.execute("COMMIT")
    assert stage.bouncer.log().count("RESUME command issued") == 1
    assert stage.hold().returncode == 0 and stage.release().returncode == 0


def test_consoles_over_tls_and_a_pool_in_session_mode(set_up, world, disposable):
    """In session mode a client keeps its server connection, so that PAUSE waits for its end: with one connected there is no hold."""
    certificate, key = world.authority.issue("console", for_server_user=True, folder=disposable.folder)
    stage = set_up(hold_timeout="2s", bouncer_tls={**world.backend_tls(), "mode": "verify-full"},
                   bouncer_settings={"client_tls_sslmode": "require", "client_tls_cert_file": certificate, "client_tls_key_file": key,
                                     "pool_mode": "session"})
    assert "tls=TLSv1.3" in stage.bouncer.log()
    with stage.connect() as session:
        session.execute("SELECT 1")
        held = stage.hold()
        assert held.returncode == 1 and "could not be paused: PAUSE was not done in time" in held.stderr, held.stderr
        assert not stage.on_hold()
        assert session.execute("SELECT 2").fetchone() == (2,)
    assert stage.hold().returncode == 0
    assert stage.on_hold()
    assert stage.release().returncode == 0
    with stage.connect() as session:
        assert session.execute("SELECT 3").fetchone() == (3,)


def test_one_paused_elsewhere_is_left_to_whoever_paused_it_and_one_that_is_gone_is_named(set_up):
    stage = set_up()
    stage.bouncer.console("PAUSE")
    held = stage.hold()
    assert held.returncode == 1 and "already suspended/paused" in held.stderr, held.stderr
    assert stage.bouncer.log().count("RESUME command issued") == 0
    stage.bouncer.console("RESUME")
    stage.bouncer.stop()
    held = stage.hold()
    assert held.returncode == 1 and re.search(r"the console of app/127\.0\.0\.1:\d+ does not let us in: Connection refused", held.stderr)
    assert not stage.on_hold()


def test_a_hold_that_nobody_releases_ends_by_itself(set_up):
    stage = set_up()
    with stage.connect() as session, concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert stage.hold("--timeout", "2s").returncode == 0
        asked = time.monotonic()
        answer = threads.submit(lambda: session.execute("SELECT 7").fetchone())
        assert answer.result(15) == (7,)
        assert 1 < time.monotonic() - asked < 6
    stage.router.wait_log(r"error.*hold has ended by itself.*nobody released it within 2s")
    assert not stage.on_hold()
    assert stage.release().returncode == 1


def test_release_waits_for_a_verified_primary(set_up):
    """No primary: it says so and goes on holding; with one it is done."""
    stage = set_up(hold_timeout="2s")
    old, new = stage.cluster.primary, stage.cluster.named("pg-1")
    assert stage.hold("--timeout", "60s").returncode == 0
    old.stop()
    released = stage.release()
    assert released.returncode == 1 and "no verified primary yet and is still on hold" in released.stderr, released.stderr
    assert stage.on_hold() and stage.bouncer.paused()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        both = [threads.submit(stage.release) for _ in range(2)]
        new.promote()
        stage.cluster.primary, stage.cluster.replicas = new, [stage.cluster.named("pg-2"), old]
        assert [future.result(30).returncode for future in both] in ([0, 0], [0, 1], [1, 0])
    assert not stage.on_hold()
    with stage.connect() as session:
        assert session.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg-1",)


def test_a_router_killed_during_a_hold_resumes_when_it_starts_again(set_up):
    stage = set_up()
    direct = psycopg.connect(host="127.0.0.1", port=stage.bouncer.port, dbname="app", user="app", password=PASSWORDS["app"],
                             autocommit=True, cursor_factory=psycopg.ClientCursor)
    with direct, concurrent.futures.ThreadPoolExecutor(1) as threads:
        direct.execute("SELECT 1")
        assert stage.hold("--timeout", "5m").returncode == 0
        marker = os.path.join(stage.router.config["state_dir"], f"{BRANCH}.hold.json")
        assert os.path.exists(marker)
        stage.router.signal(signal.SIGKILL)
        stage.router.wait()
        answer = threads.submit(lambda: direct.execute("SELECT 8").fetchone())
        time.sleep(0.5)
        assert not answer.done()
        stage.router.start()
        assert answer.result(20) == (8,)
        wait_until(lambda: not os.path.exists(marker), "the marker to go")
    stage.router.wait_log("what a hold had left paused is resumed")


def test_a_router_that_drains_lets_go_first(set_up):
    stage = set_up()
    direct = psycopg.connect(host="127.0.0.1", port=stage.bouncer.port, dbname="app", user="app", password=PASSWORDS["app"],
                             autocommit=True, cursor_factory=psycopg.ClientCursor)
    with direct:
        assert stage.hold("--timeout", "5m").returncode == 0
        stage.router.stop()
        assert not stage.bouncer.paused()
        assert not glob.glob(os.path.join(stage.router.config["state_dir"], "*.hold.json"))


def test_without_a_state_dir_the_answer_warns(set_up):
    stage = set_up(state_dir=False)
    held = stage.hold()
    assert held.returncode == 0 and "warning: there is no state_dir" in held.stdout
    assert stage.release().returncode == 0


def test_a_long_transaction_stands_in_the_way_unless_forced(set_up):
    stage = set_up(hold_timeout="1s")
    with stage.connect(f"app.{BRANCH}", "direct") as busy:
        pid = busy.execute("SELECT pg_backend_pid()").fetchone()[0]
        busy.execute("BEGIN")
        busy.execute("SELECT 'not for other eyes'")
        wait_until(lambda: stage.cluster.primary.value(
            "SELECT clock_timestamp() - xact_start > '700ms' FROM pg_stat_activity WHERE pid = %s", (pid,)), "the transaction to grow old")
        held = stage.hold()
        assert held.returncode == 1, held.stdout
        assert "a transaction has been running for more than 0.5 s on pg-0" in held.stderr
        assert re.search(rf"{pid} +app +\d+\.\d s +idle in transaction", held.stderr), held.stderr
        assert "not for other eyes" not in held.stderr
        assert not stage.on_hold() and "PAUSE command" not in stage.bouncer.log()
        forced = stage.hold("--force")
        assert forced.returncode == 0, forced.stderr
        assert stage.on_hold() and str(pid) in forced.stdout
        assert stage.release().returncode == 0
        busy.execute("COMMIT")


def test_writes_need_the_token(set_up):
    stage = set_up()
    for path in (f"/api/hold?branch={BRANCH}", f"/api/release?branch={BRANCH}", f"/api/adopt?branch={BRANCH}"):
        assert stage.post(path, token=None)[0] == 401
        assert stage.post(path, token="wrong")[0] == 401
        assert stage.router.http(path)[0] == 405
    without = stage.router.command("hold", "--admin", stage.router.admin_url, BRANCH)
    assert without.returncode == 1 and "token" in without.stderr
    assert "PAUSE command" not in stage.bouncer.log()
    for wrong in ("timeout=0s", "timeout=10m", "timeout=x", "force=1", "other=1"):
        assert stage.post(f"/api/hold?branch={BRANCH}&{wrong}")[0] == 400
    assert stage.post("/api/hold?branch=nowhere")[0] == 404
    assert stage.router.command("hold").returncode == 2
    assert stage.hold("--timeout", "10m").returncode == 1


def test_a_reload_that_removes_the_branch_lets_go(set_up):
    stage = set_up()
    assert stage.hold("--timeout", "5m").returncode == 0
    config = stage.router.config
    branch = config["branches"].pop(BRANCH)
    config["branches"]["other"] = dict(branch, pools={})
    config["listeners"] = [entry for entry in config["listeners"] if not entry.get("branch")] + [
        dict(entry, branch="other") for entry in config["listeners"] if entry.get("branch")]
    stage.router.reload(config)
    wait_until(lambda: not stage.bouncer.paused(), "the pool to be resumed")
    stage.router.wait_log("hold has ended by itself.*not configured any more")


# --- adopt ---

def test_a_reinitialised_cluster_is_not_routed_to_until_adopted(start_router, world, folder, secrets, router_certificate):
    """Another system identifier at the same address: alarmed and refused, also after a restart, until a person says that it is right."""
    made = Disposable(world, folder, next(_numbers))
    node = made.cluster.primary
    made.cluster.nodes, made.cluster.replicas = [node], []

    def initialise():
        shutil.rmtree(node.data, ignore_errors=True)
        node.initialise().start()
        node.sql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORDS['app']}'")
        node.sql("CREATE DATABASE app OWNER app")
        sql = os.path.join(os.path.dirname(EXAMPLE), "..", "sql")
        node.run_script(os.path.join(sql, "01_probe_role.sql"), probe_password=PASSWORDS["pointsman"])
        node.run_script(os.path.join(sql, "02_auth_role.sql"), auth_role="pointsman")

    try:
        initialise()
        config = made.config(world, folder, secrets, *router_certificate)
        config["defaults"]["probe"].update(interval="200ms", timeout="1s")
        config["state_dir"] = os.path.join(made.folder, "state")
        router = start_router(config=config)
        stage = Stage(made, None, router)

        def log_in():
            with stage.connect(f"app.{BRANCH}", "direct") as session:
                return session.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()[0]

        first = log_in()
        nothing = stage.command("adopt", BRANCH)
        assert nothing.returncode == 1 and "nothing to adopt" in nothing.stderr, nothing.stderr
        wait_until(lambda: os.path.exists(os.path.join(config["state_dir"], f"{BRANCH}.identity.json")), "the identity to be written")
        node.stop()
        initialise()
        second = node.value("SELECT system_identifier::text FROM pg_control_system()")
        assert first != second
        router.wait_log(rf"error.*pg-0 belongs to another cluster \(system identifier {second}, not {first}\)")
        with pytest.raises(psycopg.OperationalError, match="primary"):
            log_in()
        router.stop()
        router.start()
        with pytest.raises(psycopg.OperationalError, match="primary"):
            log_in()
        adopted = stage.command("adopt", BRANCH)
        assert adopted.returncode == 0 and second in adopted.stdout, adopted.stderr
        assert log_in() == second
        router.stop()
        router.start()
        assert log_in() == second
    finally:
        made.stop()


# --- not planned ---

def test_a_killed_primary_cuts_only_queries_in_flight(set_up, disposable):
    """kill -9 of the primary under pgbench, then a promotion. PgBouncer links a client to a server connection from a query's arrival to
    its ReadyForQuery, and only the linked ones end with their server's reason: every client that was cut is one of those."""
    stage = set_up()
    old, new = stage.cluster.primary, stage.cluster.named("pg-1")
    make_accounts(old)
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(1) as threads:
        idle = [stack.enter_context(stage.connect()) for _ in range(10)]
        for session in idle:
            session.execute("SELECT 1")
        working = stack.enter_context(stage.connect())
        in_flight = threads.submit(lambda: working.execute("SELECT pg_sleep(60)"))
        wait_until(lambda: old.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active'"
                                     " AND pid <> pg_backend_pid()"), "the long query to run")
        bench = Pgbench(stage, os.path.join(disposable.folder, "bench"), 12)
        bench.wait_busy()
        killed = time.time()
        old.kill()
        new.promote()
        stage.cluster.primary, stage.cluster.replicas = new, [stage.cluster.named("pg-2")]
        for session in idle:
            assert session.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg-1",)
        idle_back = time.time() - killed
        with pytest.raises(psycopg.OperationalError):
            in_flight.result(20)
        code, out, err = bench.finish()
        cut = len(set(re.findall(r"client (\d+) (?:script \d+ )?aborted", err)))
        assert cut < CLIENTS, err
        assert code == (2 if cut else 0), err
        survivors = {client for client, _, ended in bench.transactions() if ended > killed + idle_back}
        assert len(survivors) == CLIENTS - cut
        ends = re.findall(r"C-\S+ \S+ closing because: ([^(\n]+?) \(age", stage.bouncer.log())
        by_the_client = ("client close request", "client unexpected eof")
        assert [why for why in ends if why not in by_the_client] == ["server conn crashed?"] * (cut + 1), ends
        print(f"\nunplanned: {cut} of {CLIENTS} pgbench clients and the long query cut, each in flight; longest stall of the others "
              f"{bench.longest():.2f} s; ten idle clients were back after {idle_back:.2f} s")


def test_what_pgbouncer_1_18_does_when_a_server_login_is_refused(set_up):
    """The hold is over before there is a primary, so the pool's server login gets 57P03: queries that wait in the pool go on
    waiting, a query that is sent from then on is refused by the PgBouncer itself until a server login succeeds."""
    stage = set_up(hold_timeout="1s")
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(2) as threads:
        waiting, too_late, silent = (stack.enter_context(stage.connect()) for _ in range(3))
        for session in (waiting, too_late, silent):
            session.execute("SELECT 1")
        stage.cluster.primary.kill()
        # A query that PgBouncer gives to the dead connection, in the instant before it hears of it, is cut.
        wait_until(lambda: re.search(r"S-.* closing because: server conn crashed", stage.bouncer.log()), "PgBouncer to hear of it")
        answer = threads.submit(lambda: waiting.execute("SELECT current_setting('cluster_name')").fetchone())
        wait_until(lambda: stage.bouncer.log().count("login failed: FATAL: no primary available") >= 2, "two server logins to fail")
        assert not answer.done()
        with pytest.raises(psycopg.OperationalError, match="server login has been failing"):
            too_late.execute("SELECT 1")
        new = stage.cluster.named("pg-1").promote()
        stage.cluster.primary, stage.cluster.replicas = new, [stage.cluster.named("pg-2")]
        assert answer.result(20) == ("pg-1",)
        assert silent.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg-1",)
