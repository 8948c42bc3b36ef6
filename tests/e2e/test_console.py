"""The admin console: psql and other clients on a listener of mode `console`."""

import itertools
import os
import re
import socket
import subprocess
import time

import psycopg
import pytest
from harness.disposable import disposable_cluster
from harness.router import conninfo
from harness.scram import verifier
from harness.system import clean_environment, free_port, run, wait_until
from harness.wire import Closed, Refused, error_fields, message, open_tls
from harness.world import BRANCH, BRANCH_18, PASSWORDS

USER = f"app.{BRANCH}"
ADMIN = ("admin", "the administrator's")
READER = ("looker", "only looks")
SHOWS = {
    "BRANCHES": "branch active primary timeline members pools sessions holding on_hold failovers",
    "MEMBERS": "branch member host port zone role state lag_seconds lag_bytes sample_age timeline sessions probe_failures",
    "POOLS": "branch pool target member address state draining sessions",
    "SESSIONS": "id phase client listener user branch target destination reason database application tls idle backend_pid "
                "age_seconds bytes_from_client bytes_to_client",
    "ROUTES": "branch route destination reason count",
    "STATS": "branch route active ended refused failed decisions bytes_from_client bytes_to_client",
    "CONFIG": "key value default reload",
    "VERSION": "version",
    "HELP": "statement role what",
    f"ROUTE FOR '{USER}'": "what value",
}


def add_console(config, secrets, **more):
    """A console with an administrator and one who may only look."""
    config["listeners"].append({"name": "console", "mode": "console", "port": free_port()})
    config["console"] = {"users": {ADMIN[0]: {"verifier": verifier(ADMIN[1]), "role": "admin"},
                                   READER[0]: {"verifier_file": secrets.file("looker.verifier", verifier(READER[1]) + "\n"), "role": "read"}},
                         **more}


@pytest.fixture(scope="module")
def console(world, folder, secrets, router_certificate):
    """A router with a console, for all tests that leave it as it was."""
    from harness.router import Router, router_binary, standard_config
    config = standard_config(world, folder, secrets, *router_certificate)
    add_console(config, secrets)
    made = Router(router_binary(), os.path.join(folder, "router-console"), config, world)
    try:
        yield made.start()
    finally:
        made.finish()


def parameters(router, who=ADMIN, **more):
    return {**router.libpq(who[0], listener="console", password=who[1], database="pointsman"), **more}


def psql(router, sql, who=ADMIN, *, arguments=(), check=True, feed=None, **more):
    """psql as people use it, aligned; `sql` is one -c, `feed` comes on its standard input."""
    given = parameters(router, who, **more)
    password = given.pop("password")
    commands = [] if sql is None else ["-c", sql]
    return run(["psql", "-X", "-P", "pager=off", "-d", conninfo(given), *arguments, *commands], check=check,
               env=dict(clean_environment(), PGPASSWORD=password), **({"input": feed} if feed is not None else {}))


def connect(router, who=ADMIN, **more):
    return psycopg.connect(**parameters(router, who, **more), autocommit=True, cursor_factory=psycopg.ClientCursor)


def rows(router, sql, who=ADMIN):
    """As dictionaries; psycopg converts by the columns' types."""
    with connect(router, who) as connection:
        cursor = connection.execute(sql)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def refused(router, sql, who=ADMIN):
    with connect(router, who) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(sql)
    return caught.value


# --- logging in -------------------------------------------------------------------------------------------------------


def test_psql_logs_in_over_tls_and_is_told_who_it_talks_to(console):
    result = psql(console, r"\conninfo", arguments=("-c", r"\echo :SERVER_VERSION_NAME"))
    assert 'user "admin"' in result.stdout and 'database "pointsman"' in result.stdout and "TLSv1.3" in result.stdout
    assert "Pointsman" in result.stdout and result.stderr == ""
    interactive = psql(console, None, feed="SHOW VERSION;\n")
    assert "WARNING" not in interactive.stdout + interactive.stderr
    console.wait_log(r"console login .*user=admin .*tls=TLSv1.3")


@pytest.mark.parametrize("who, log", [
    (("admin", "guessed"), "wrong password"),
    (("nobody", "guessed"), "no such user"),
    (("app", PASSWORDS["app"]), "no such user"),
], ids=["wrong password", "unknown user", "a tenant's role"])
def test_who_is_not_known_looks_like_a_wrong_password(console, who, log):
    result = psql(console, "SHOW VERSION", who, check=False)
    assert result.returncode == 2
    assert f'FATAL:  password authentication failed for user "{who[0]}"' in result.stderr
    console.wait_log(rf"console connection ended .*user={who[0]} .*{log}")


def test_salt_and_iterations_of_an_unknown_user_are_stable(console):
    def first_message(user):
        with console.open("console") as wire:
            with pytest.raises(Refused) as caught:
                wire.login(user, "guessed", database="pointsman")
            assert caught.value.sqlstate == "28P01"
            return caught.value.fields

    assert first_message("ghost") == first_message("ghost")


def test_tls_is_required_and_channel_binding_works(console):
    plain = psql(console, "SHOW VERSION", check=False, sslmode="disable")
    assert plain.returncode == 2 and "sslmode=require" in plain.stderr
    assert "Pointsman" in psql(console, "SHOW VERSION", channel_binding="require").stdout


def test_the_only_database_is_pointsman(console):
    wrong = psql(console, "SHOW VERSION", check=False, dbname="postgres")
    assert wrong.returncode == 2
    assert 'database "postgres" does not exist' in wrong.stderr and "dbname=pointsman" in wrong.stderr


def test_tenants_do_not_reach_the_console_and_its_users_do_not_reach_tenants(console):
    with pytest.raises(psycopg.OperationalError, match="invalid user name"):
        psycopg.connect(**console.libpq("admin", password=ADMIN[1], database="pointsman"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**console.libpq(USER, listener="console", database="pointsman"))


# --- SHOW ---------------------------------------------------------------------------------------------------------------


def parse_aligned(text):
    """psql's aligned output: column names, and for each cell its text and whether it stands at the right edge."""
    lines = text.splitlines()
    widths = [len(part) for part in lines[1].split("+")]
    assert set(lines[1]) <= set("-+"), text
    assert re.fullmatch(r"\(\d+ rows?\)", lines[-1] or lines[-2]), text
    names = [name.strip() for name in lines[0].split("|")]
    body = [line for line in lines[2:] if line and not re.fullmatch(r"\(\d+ rows?\)", line)]
    cells = []
    for line in body:
        assert "+" not in line[-1:], "no cell breaks its line"
        start, row = 0, []
        for width in widths:
            row.append(line[start:start + width].ljust(width))
            start += width + 1
        cells.append(row)
    return names, cells


@pytest.mark.parametrize("what", SHOWS)
def test_every_show_is_an_aligned_table(console, what):
    with psycopg.connect(**console.libpq(USER, database="app")):
        names, cells = parse_aligned(psql(console, f"SHOW {what}").stdout)
    assert names == SHOWS[what].split()
    assert cells
    with connect(console) as connection:
        types = {column.name: column.type_code for column in connection.execute(f"SHOW {what}").description}
    for row in cells:
        for name, cell in zip(names, row):
            if cell.strip() and types[name] in (20, 701):
                assert re.fullmatch(r" *-?\d+(\.\d{3})? ", cell), f"{name}: {cell!r} is a number at the right edge"
            if cell.strip() and types[name] == 16:
                assert cell.strip() in ("t", "f")


def test_the_tables_say_what_the_admin_endpoint_says(console):
    with psycopg.connect(**console.libpq(USER, database="app", application_name="watch me")) as session:
        session.execute("SELECT 1")
        for name in ("pg-0", "pg-1", "pg-2"):
            console.wait_member(name)
        branches = {row["branch"]: row for row in rows(console, "SHOW BRANCHES")}
        assert set(branches) == {BRANCH, BRANCH_18}
        assert branches[BRANCH]["active"] is True and branches[BRANCH]["primary"] == "pg-0" and branches[BRANCH]["members"] == 3
        members = {row["member"]: row for row in rows(console, f"SHOW MEMBERS FOR {BRANCH}")}
        assert {name: row["role"] for name, row in members.items()} == {"pg-0": "primary", "pg-1": "replica", "pg-2": "replica"}
        assert members["pg-1"]["state"] == "ok" and members["pg-1"]["lag_seconds"] < 5 and members["pg-0"]["lag_seconds"] is None
        pools = rows(console, f"SHOW POOLS FOR '{BRANCH}'")
        assert {row["pool"] for row in pools} == {"reads", "app", None} and {row["member"] for row in pools if not row["pool"]} == set(members)
        mine = [row for row in rows(console, "SHOW SESSIONS") if row["application"] == "watch me"]
        assert len(mine) == 1 and mine[0]["backend_pid"] == session.info.backend_pid and mine[0]["user"] == USER
        known = next(entry for entry in console.sessions() if entry["application"] == "watch me")
        assert mine[0]["id"] == f"{known['worker']}-{known['id']}" and mine[0]["destination"] == "pg-0"
        assert rows(console, f"SHOW SESSIONS FOR {BRANCH_18}") == []
    routes = {(row["route"], row["destination"], row["reason"]): row["count"] for row in rows(console, "SHOW ROUTES")}
    assert routes["primary", "pg-0", "primary"] >= 1
    stats = next(row for row in rows(console, f"SHOW STATS FOR {BRANCH}") if row["route"] == "primary")
    assert stats["ended"] >= 1 and stats["decisions"] >= 1 and stats["bytes_to_client"] > 0
    assert rows(console, "SHOW VERSION")[0]["version"].startswith("Pointsman ")


def test_a_route_is_explained_as_the_command_line_does(console):
    answer = rows(console, f"SHOW ROUTE FOR '{USER}|replica'")
    known = {row["what"]: row["value"] for row in answer}
    assert known["ok"] == "yes" and known["role"] == "app" and known["target"] == "replica" and known["destination"] in ("pg-1", "pg-2")
    assert len([row for row in answer if row["what"] == "candidate"]) == 3
    pooled = {row["what"]: row["value"] for row in rows(console, f"SHOW ROUTE FOR '{USER}' ON pooled")}
    assert pooled["reason"] == "local_pool"
    lost = {row["what"]: row["value"] for row in rows(console, "SHOW ROUTE FOR 'app.nosuch'")}
    assert lost["ok"] == "no" and lost["reason"] == "unknown_branch" and lost["sqlstate"] == "28000"
    assert refused(console, f"SHOW ROUTE FOR '{USER}' ON nowhere").sqlstate == "22023"


def test_the_configuration_is_shown_without_a_secret(console):
    shown = {row["key"]: row for row in rows(console, "SHOW CONFIG", READER)}
    assert shown["limits.startup_timeout"] == {"key": "limits.startup_timeout", "value": "10s", "default": "15s", "reload": True}
    assert shown["listeners.console.mode"]["value"] == "console" and shown["listeners.direct.port"]["reload"] is False
    assert shown["console.users.admin"]["value"] == "admin" and shown["admin.token_file"]["value"] == "(set)"
    text = str(shown)
    assert "SCRAM" not in text and "an-admin-token" not in text


def test_an_unknown_branch_is_told(console):
    for sql in ("SHOW MEMBERS FOR nosuch", "SHOW SESSIONS FOR nosuch"):
        error = refused(console, sql)
        assert error.sqlstate == "22023" and "SHOW BRANCHES" in error.diag.message_hint


# --- statements -----------------------------------------------------------------------------------------------------------


def test_what_is_unknown_gets_the_list_and_psql_shows_where(console):
    result = psql(console, "SELECT 1 FROM pg_class", check=False)
    assert 'ERROR:  syntax error at or near "SELECT"' in result.stderr and "LINE 1: SELECT 1 FROM pg_class\n        ^" in result.stderr
    error = refused(console, "  UPDATE x SET y = 1")
    assert error.sqlstate == "42601" and error.diag.statement_position == "3"
    for known in ("BRANCHES", "SESSIONS", "SHOW ROUTE FOR", "HOLD", "RELEASE", "KILL", "RELOAD", "SHOW HELP"):
        assert known in error.diag.message_hint


def test_tab_completion_and_backslash_d_do_not_break_the_session(console):
    result = psql(console, None, feed="\\d\n\\dt\n\\l\n\\du\nSHOW VERSION;\n")
    assert "Pointsman 0" in result.stdout and result.stderr.count("syntax error") >= 3


def test_tab_completion_in_a_terminal(console):
    """psql with readline on a terminal of its own: two tabs ask the server, and the statement still works."""
    given = parameters(console)
    password = given.pop("password")
    main, side = os.openpty()
    psql_process = subprocess.Popen(["psql", "-X", "-P", "pager=off", "-d", conninfo(given)], stdin=side, stdout=side, stderr=side,
                                    env=dict(clean_environment(), PGPASSWORD=password, TERM="xterm"), start_new_session=True)
    os.close(side)
    seen = ""

    def read_until(pattern):
        nonlocal seen
        os.set_blocking(main, False)

        def look():
            nonlocal seen
            try:
                seen += os.read(main, 65536).decode("utf-8", "replace")
            except BlockingIOError:
                pass
            return re.search(pattern, seen)

        wait_until(look, f"psql to print {pattern!r}")

    try:
        read_until(r"pointsman=# ")
        os.write(main, b"SHOW BRAN\t\t\x15SHOW VER\t\tSION;\n")
        read_until(r"Pointsman \d")
        read_until(r"\(1 row\)(?s:.*)pointsman=# ")
        os.write(main, b"\\q\n")
        assert psql_process.wait(20) == 0
    finally:
        if psql_process.poll() is None:
            psql_process.kill()
            psql_process.wait()
        os.close(main)


def test_several_statements_in_one_query(console):
    result = psql(console, "SHOW VERSION; SHOW HELP; /* done */", arguments=("-A", "-t"))
    assert "Pointsman 0" in result.stdout and "SHOW BRANCHES" in result.stdout
    spoilt = psql(console, "SHOW VERSION; NONSENSE", arguments=("-A", "-t"), check=False)
    assert "Pointsman" not in spoilt.stdout and "NONSENSE" in spoilt.stderr
    stopped = psql(console, "SHOW MEMBERS FOR nosuch; SHOW VERSION", arguments=("-A", "-t"), check=False)
    assert "Pointsman" not in stopped.stdout and "nosuch" in stopped.stderr


def test_an_empty_query_is_answered(console):
    with connect(console) as connection:
        assert connection.execute(" ; -- nothing").statusmessage is None
        assert connection.execute("SHOW VERSION").statusmessage == "SHOW"


def test_the_extended_protocol_is_refused_and_recovers_at_sync(console):
    with psycopg.connect(**parameters(console), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
            connection.execute("SHOW VERSION", prepare=True)
        assert "simple" in caught.value.diag.message_primary
        assert connection.execute("SHOW VERSION").fetchone()[0].startswith("Pointsman")


def test_a_reader_looks_and_changes_nothing(console):
    assert rows(console, "SHOW BRANCHES", READER)
    for sql in (f"HOLD {BRANCH}", f"RELEASE {BRANCH}", "KILL 0-1", "RELOAD"):
        error = refused(console, sql, READER)
        assert error.sqlstate == "42501" and "admin" in error.diag.message_primary
    assert psql(console, "SHOW VERSION; RELOAD", READER, check=False).returncode == 1


# --- actions ----------------------------------------------------------------------------------------------------------


def session_id(router, pid):
    return wait_until(lambda: next((row["id"] for row in rows(router, "SHOW SESSIONS") if row["backend_pid"] == pid), None), "the session to be shown")


def test_kill_ends_an_idle_session_at_once(console):
    session = psycopg.connect(**console.libpq(USER, database="app"))
    pid = session.info.backend_pid
    name = session_id(console, pid)
    result = psql(console, f"KILL {name}")
    assert result.stdout.strip() == "KILL"
    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        session.execute("SELECT 1")
    console.wait_log(rf"session ended session={name} .*end=killed .*backend_pid={pid}")
    console.wait_log(rf'console action ended user=admin client=127\.0\.0\.1:\d+ statement="KILL {name}" outcome=ok')
    again = refused(console, f"KILL '{name}'")
    assert again.sqlstate == "22023" and "there is no session" in again.diag.message_primary
    assert refused(console, "KILL 99-1").sqlstate == "22023"
    assert refused(console, "KILL everybody").sqlstate == "22023"


def test_kill_ends_a_session_in_the_middle_of_a_query_and_its_query(console, cluster):
    with console.open() as wire:
        pid = console.login(USER, wire=wire, database="app").pid
        wire.send(message("Q", b"SELECT pg_sleep(60)\0"))
        running = lambda: cluster.primary.sql(  # noqa: E731
            "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE '%%pg_sleep%%'", (pid,))[0][0]
        wait_until(running, "the query to run")
        begun = time.monotonic()
        psql(console, f"KILL {session_id(console, pid)}")
        answer = wire.read_message()
        assert answer.type == "E" and error_fields(answer.body)["C"] == "57P01"
        assert error_fields(answer.body)["R"] == "killed"
        wire.expect_end()
        assert time.monotonic() - begun < 10
        wait_until(lambda: not running(), "the query to be cancelled")


def test_kill_ends_a_login_that_is_held(start_router, secrets, fresh_port):
    def change(config):
        add_console(config, secrets)
        branch = config["branches"][BRANCH]
        branch["members"] = [{"name": "gone", "host": "127.0.0.1", "port": fresh_port()}]
        branch["pools"] = {}
        branch["failover"] = {"hold_timeout": "60s"}
        branch["auth"] = {"method": "scram", "verifiers": "userlist", "userlist": secrets.userlist("held.txt", {"app": verifier(PASSWORDS["app"])})}
        config["listeners"] = [entry for entry in config["listeners"] if entry["name"] in ("direct", "console")]

    router = start_router(change)
    waiting = subprocess.Popen(["psql", "-X", "-d", conninfo({key: value for key, value in router.libpq(USER, database="app").items() if key != "password"}),
                                "-c", "SELECT 1"], env=dict(clean_environment(), PGPASSWORD=PASSWORDS["app"]), stderr=subprocess.PIPE, text=True)
    try:
        held = wait_until(lambda: [row for row in rows(router, "SHOW SESSIONS") if row["phase"] == "holding"], "the login to be held")
        psql(router, f"KILL {held[0]['id']}")
        assert waiting.wait(10) == 2
        assert "terminating connection due to administrator command" in waiting.stderr.read()
    finally:
        waiting.stderr.close()
        if waiting.poll() is None:
            waiting.kill()
            waiting.wait()
    assert router.status()["holding"] == 0


def test_hold_is_refused_with_the_reason(console):
    error = refused(console, "HOLD nosuch")
    assert error.sqlstate == "22023" and "no branch" in error.diag.message_primary
    error = refused(console, f"RELEASE {BRANCH}")
    assert error.sqlstate == "55000" and "not on hold" in error.diag.message_primary
    assert refused(console, f"HOLD {BRANCH} TIMEOUT '10m'").sqlstate == "22023"
    console.wait_log(rf'console action ended user=admin .*statement="RELEASE {BRANCH}" outcome=error')


def test_hold_and_release_of_a_real_branch(world, folder, secrets, router_certificate, start_router):
    with disposable_cluster(world, folder) as disposable:
        config = disposable.config(world, folder, secrets, *router_certificate, failover={"hold_timeout": "5s"})
        add_console(config, secrets)
        router = start_router(config=config)
        psycopg.connect(**router.libpq(USER, database="app")).close()
        router.wait_member("pg-0", role="primary")
        held = psql(router, f"HOLD {BRANCH} TIMEOUT '60s'")
        assert held.stdout.strip() == "HOLD" and "NOTICE:" in held.stderr
        assert rows(router, "SHOW BRANCHES")[0]["on_hold"] is True
        # Others go on meanwhile, and a second hold is refused.
        assert refused(router, f"HOLD {BRANCH}").sqlstate == "55000"
        released = psql(router, f"RELEASE {BRANCH}")
        assert released.stdout.strip() == "RELEASE" and "pg-0" in released.stderr
        assert rows(router, "SHOW BRANCHES")[0]["on_hold"] is False


def test_reload_applies_a_good_file_and_tells_what_is_wrong_with_a_bad_one(start_router, make_config, secrets):
    config = make_config()
    add_console(config, secrets)
    router = start_router(config=config)
    assert psql(router, "RELOAD").stdout.strip() == "RELOAD"
    config["limits"]["startup_timeout"] = "soon"
    router.write_config(config)
    error = refused(router, "RELOAD")
    assert error.sqlstate == "F0000" and "/limits/startup_timeout" in error.diag.message_detail
    config["limits"]["startup_timeout"] = "7s"
    config["branches"][BRANCH_18]["nonsense"] = 1
    router.write_config(config)
    partly = psql(router, "RELOAD")
    assert "WARNING" in partly.stderr and "nonsense" in partly.stderr and partly.stdout.strip() == "RELOAD"
    shown = {row["key"]: row["value"] for row in rows(router, "SHOW CONFIG")}
    assert shown["limits.startup_timeout"] == "7s"
    # A user who was taken out does nothing more, whoever is still connected.
    del config["branches"][BRANCH_18]["nonsense"]
    with connect(router, READER) as reader:
        reader.execute("SHOW VERSION")
        del config["console"]["users"][READER[0]]
        router.write_config(config)
        psql(router, "RELOAD")
        with pytest.raises(psycopg.OperationalError, match="not in console.users any more"):
            reader.execute("SHOW VERSION")


# --- limits -------------------------------------------------------------------------------------------------------------


def test_only_so_many_consoles(start_router, secrets):
    router = start_router(lambda config: add_console(config, secrets, max_connections=2))
    with connect(router), connect(router, READER):
        with pytest.raises(psycopg.OperationalError, match="too many connections to the admin console"):
            connect(router)
    wait_until(lambda: rows(router, "SHOW VERSION"), "a place to be free again")


def test_strangers_that_do_not_log_in_take_no_place_from_administrators(console):
    strangers = [socket.create_connection(("127.0.0.1", console.port("console"))) for _ in range(40)]
    try:
        assert "Pointsman" in psql(console, "SHOW VERSION").stdout
        # The oldest went; the others wait for their deadline.
        strangers[0].settimeout(10)
        assert strangers[0].recv(1) == b""
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_statement_that_is_too_long_is_refused_and_the_session_lives(console):
    with connect(console) as connection:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            connection.execute("SHOW VERSION --" + "x" * 100_000)
        at_the_limit = "SHOW VERSION --"
        assert connection.execute(at_the_limit + "x" * (8192 - len(at_the_limit))).fetchone()
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            connection.execute(at_the_limit + "x" * (8193 - len(at_the_limit)))
        assert connection.execute("SHOW VERSION").fetchone()


def test_slow_logins_and_idle_consoles_end(start_router, secrets):
    def change(config):
        add_console(config, secrets, idle_timeout="1s")
        config["limits"]["startup_timeout"] = "1s"

    router = start_router(change)
    port = router.port("console")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        assert silent.recv(1) == b""
    with open_tls(port, router.tls()) as slow:
        slow.send(slow_startup())
        kinds = []
        with pytest.raises(Closed):
            while True:
                answer = slow.read_message()
                kinds.append((answer.type, error_fields(answer.body).get("C") if answer.type == "E" else None))
        assert kinds == [("R", None), ("E", "57P03")]
    with connect(router) as idle:
        idle.execute("SHOW VERSION")
        wait_until(lambda: re.search(r"console connection ended .*user=admin .*end=idle", router.log()), "the idle console to end")
        with pytest.raises(psycopg.OperationalError, match="idle-session timeout"):
            idle.execute("SHOW VERSION")


def slow_startup():
    from harness.wire import startup_packet
    return startup_packet({"user": "admin", "database": "pointsman"})


def test_an_answer_that_nobody_reads_is_not_kept_in_memory(console):
    """Help pages asked for a thousand times, none of them read: the router stops reading, and serves others."""
    wire = open_tls(console.port("console"), console.tls(), receive_buffer=4096)
    with wire:
        wire.login(ADMIN[0], ADMIN[1], database="pointsman")
        wire.socket.settimeout(2)
        query = message("Q", b"SHOW HELP;" * 60 + b"\0")
        sent = 0
        with pytest.raises((TimeoutError, socket.timeout)):
            while sent < 64 << 20:
                wire.send(query)
                sent += len(query)
        # What the kernel's buffers take, and no more.
        assert sent < 16 << 20, "the router goes on reading from a client that reads nothing"
        assert "Pointsman" in psql(console, "SHOW VERSION").stdout


def test_metrics_count_what_happens_on_the_console(console):
    before = console.metrics()
    rows(console, "SHOW VERSION")
    refused(console, "NONSENSE")
    refused(console, "RELOAD", READER)
    after = console.metrics()
    for outcome in ("ok", "error", "denied"):
        name = "pointsman_console_statements_total"
        assert after.sum(name, outcome=outcome) >= before.sum(name, outcome=outcome) + 1
    with connect(console):
        assert console.metrics().sum("pointsman_console_connections") >= 1


def test_sigterm_tells_consoles(start_router, secrets):
    router = start_router(lambda config: add_console(config, secrets))
    connection = connect(router)
    router.stop()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SHOW VERSION")


# --- the configuration ------------------------------------------------------------------------------------------------


_numbers = itertools.count()
BAD = {
    "a console without users": (lambda c: c.pop("console"), "/console", "is missing"),
    "no users": (lambda c: c["console"].update(users={}), "/console/users", "nobody could log in"),
    "a verifier that is none": (lambda c: c["console"]["users"]["admin"].update(verifier="md5abc"), "/console/users/admin/verifier", "SCRAM-SHA-256"),
    "two verifiers": (lambda c: c["console"]["users"]["admin"].update(verifier_file="x"), "/console/users/admin/verifier", "one of them"),
    "a file that is not there": (lambda c: c["console"]["users"]["looker"].update(verifier_file="nowhere"), "/console/users/looker/verifier_file", "nowhere"),
    "no role": (lambda c: c["console"]["users"]["admin"].pop("role"), "/console/users/admin/role", "admin"),
    "a role that is none": (lambda c: c["console"]["users"]["admin"].update(role="root"), "/console/users/admin/role", "read"),
    "an unknown key": (lambda c: c["console"].update(colour=1), "/console/colour", ""),
    "a branch": (lambda c: c["listeners"][-1].update(branch=BRANCH), "/listeners/7/branch", "console"),
    "the port of a tenants' listener": (lambda c: c["listeners"][-1].update(port=c["listeners"][0]["port"]), "/listeners/7/port", "listener direct"),
    "the admin endpoint's port": (lambda c: c["listeners"][-1].update(port=c["admin"]["port"]), "/listeners/7/port", "admin endpoint"),
    "a name twice": (lambda c: c["listeners"][-1].update(name="direct"), "/listeners/7/name", "another listener"),
    "no listener for clients": (lambda c: c.update(listeners=c["listeners"][-1:]), "/listeners", "for clients"),
}


@pytest.mark.parametrize("what", BAD)
def test_check_refuses(world, folder, make_config, secrets, what):
    from harness.router import Router, router_binary
    config = make_config()
    add_console(config, secrets)
    change, path, words = BAD[what]
    change(config)
    router = Router(router_binary(), os.path.join(folder, f"check-console-{next(_numbers)}"), config, world)
    result = router.command("check", "--config", router.path)
    assert result.returncode == 1
    assert any(line.startswith(f"{router.path}: {path}: ") and words in line for line in result.stderr.splitlines()), result.stderr
