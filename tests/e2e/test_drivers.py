"""Unmodified clients: drivers and PostgreSQL's own tools, each doing what it usually does."""

import asyncio
import json
import os
import ssl
import subprocess
import urllib.parse

import asyncpg
import psycopg
import psycopg2
import pytest
from harness.cluster import BINARIES_15
from harness.router import conninfo
from harness.system import clean_environment, run, run_as_server, wait_until
from harness.world import BRANCH, PASSWORDS

HERE = os.path.dirname(os.path.abspath(__file__))
USER = f"app.{BRANCH}"
ROUTES = [(USER, "direct", False), (f"{USER}|replica", "direct", True), (USER, "pooled", False), (f"{USER}|reads", "pooled", True)]


@pytest.fixture(scope="module")
def target(router):
    """(environment, connection string) for PostgreSQL's tools."""
    def make(user=USER, listener="direct", database="app", **more):
        parameters = router.libpq(user, listener=listener, database=database, **more)
        return clean_environment(PGPASSWORD=parameters.pop("password")), conninfo(parameters)

    return make


# --- psycopg ---

@pytest.mark.parametrize("user, listener, recovering", ROUTES)
def test_psycopg(router, user, listener, recovering):
    with psycopg.connect(conninfo(router.libpq(user, listener=listener, database="app"))) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (recovering,)
        assert connection.execute("SELECT %s, %s::jsonb, %b::bytea", ("ü", '{"a": 1}', b"\0\xff")).fetchone() == ("ü", {"a": 1}, b"\0\xff")
        with connection.cursor(name="portal") as cursor:
            cursor.itersize = 100
            assert sum(row[0] for row in cursor.execute("SELECT generate_series(1, 1000)")) == 500500
        with connection.cursor().copy("COPY (SELECT generate_series(1, 1000)) TO STDOUT") as copy:
            assert sum(int(row[0]) for row in copy.rows()) == 500500
        if listener == "direct":
            for number in range(10):
                assert connection.execute("SELECT %s::int + 1", (number,), prepare=True).fetchone() == (number + 1,)
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_psycopg_asynchronously_and_many_at_once(router):
    async def one(number):
        connection = await psycopg.AsyncConnection.connect(conninfo(router.libpq(USER, database="app")))
        async with connection:
            cursor = await connection.execute("SELECT %s::int", (number,))
            return (await cursor.fetchone())[0]

    async def all_of_them():
        return await asyncio.gather(*(one(number) for number in range(40)))

    assert asyncio.run(all_of_them()) == list(range(40))


@pytest.mark.parametrize("user, listener, recovering", ROUTES)
def test_psycopg2(router, user, listener, recovering):
    connection = psycopg2.connect(conninfo(router.libpq(user, listener=listener, database="app")))
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery(), %s", ("ü",))
        assert cursor.fetchone() == (recovering, "ü")
    connection.close()


# --- asyncpg ---

@pytest.mark.parametrize("user, listener, recovering", ROUTES)
def test_asyncpg(router, user, listener, recovering):
    context = ssl.create_default_context(cafile=router.world.authority.certificate)

    async def value(connection, query, *arguments):
        """asyncpg prepares and executes in two steps; only a transaction keeps both on one connection of a transaction pool."""
        async with connection.transaction():
            return await connection.fetchval(query, *arguments)

    async def exercise():
        options = dict(host="localhost", port=router.port(listener), user=user, password=PASSWORDS["app"], database="app", ssl=context,
                       timeout=20, statement_cache_size=0 if listener == "pooled" else 100)
        connection = await asyncpg.connect(**options)
        assert await value(connection, "SELECT pg_is_in_recovery()") is recovering
        assert await value(connection, "SELECT $1::int + $2::int", 1, 2) == 3
        if listener == "direct":
            statement = await connection.prepare("SELECT $1::int * 2")
            assert [await statement.fetchval(number) for number in range(5)] == [0, 2, 4, 6, 8]
        async with connection.transaction():
            assert len([row async for row in connection.cursor("SELECT generate_series(1, 300)")]) == 300
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1/0")
        with pytest.raises(asyncio.TimeoutError):  # asyncpg cancels over a connection of its own
            await connection.execute("SELECT pg_sleep(30)", timeout=0.3)
        assert await value(connection, "SELECT 1") == 1
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(**dict(options, password="wrong"))
        async with asyncpg.create_pool(**options, min_size=2, max_size=5) as pool:
            async def one(number):
                async with pool.acquire() as lent:
                    return await value(lent, "SELECT $1::int", number)

            assert sum(await asyncio.gather(*(one(number) for number in range(50)))) == 1225

    asyncio.run(exercise())


# --- node ---

@pytest.mark.parametrize("user, listener, recovering", ROUTES)
def test_node_postgres(router, dependencies, user, listener, recovering):
    given = {"connection": {"host": "127.0.0.1", "port": router.port(listener), "user": user, "password": PASSWORDS["app"], "database": "app"},
             "ca": router.world.authority.certificate, "named_statements": listener == "direct"}
    result = run(["node", os.path.join(HERE, "node", "driver.js"), json.dumps(given)], env=clean_environment(NODE_PATH=dependencies))
    answers = json.loads(result.stdout)
    assert (answers["where"]["recovering"], answers["where"]["who"]) == (recovering, "app")
    assert answers["typed"] == {"n": 42, "t": "ünïcode", "j": {"a": [1]}, "b": "00ff"}
    assert answers.get("twice", [2, 4]) == [2, 4]
    assert answers["error"] == {"code": "22012", "message": "division by zero"}
    assert answers["afterwards"] == 1 and answers["pool"] == 1275
    assert answers["refused"] == {"code": "28P01", "routine": "auth_failed"}


def test_node_postgres_with_the_pipe_encoded_in_its_url(router, dependencies):
    url = f"postgresql://{urllib.parse.quote(USER + '|replica')}:{urllib.parse.quote(PASSWORDS['app'])}@127.0.0.1:{router.port()}/app"
    program = ("const {Client} = require('pg'); const c = new Client({connectionString: process.argv[1], ssl: {rejectUnauthorized: false}});"
               "c.connect().then(() => c.query('SELECT pg_is_in_recovery() AS r')).then(r => {console.log(r.rows[0].r); return c.end()})"
               ".catch(e => {console.error(e); process.exit(1)})")
    assert run(["node", "-e", program, url], env=clean_environment(NODE_PATH=dependencies)).stdout.strip() == "true"


# --- JDBC ---

def test_jdbc(router, folder):
    classes = os.path.join(folder, "classes")
    jar = "/usr/share/java/postgresql.jar"
    run(["javac", "-d", classes, os.path.join(HERE, "java", "Driver.java")], timeout=100)
    arguments, expected = [], []

    def case(user, listener, answer, password=PASSWORDS["app"], **more):
        parameters = {"sslmode": "verify-full", "sslrootcert": router.world.authority.certificate, "connectTimeout": "20", **more}
        if listener == "pooled":
            parameters["prepareThreshold"] = "0"  # PgBouncer 1.18 keeps no named statements in transaction mode
        arguments.extend([f"jdbc:postgresql://localhost:{router.port(listener)}/app?{urllib.parse.urlencode(parameters)}", user, password])
        expected.append(answer)

    primary, reads = router.world.cluster.primary.port, router.world.cluster.named("pg-1").port
    case(USER, "direct", f"{primary},false,app 210 1000 57014")
    case(f"{USER}|app", "pooled", f"{primary},false,app 210 1000 57014")
    case(f"{USER}|reads", "pooled", f"{reads},true,app 210 1000 57014")
    case(f"{USER}%7Creads", "pooled", f"{reads},true,app 210 1000 57014")
    case(USER, "direct", "refused 28P01", password="wrong")
    case("app.nosuchbranch", "direct", "refused 28000")
    result = run(["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{classes}:{jar}", "Driver", *arguments], timeout=100)
    assert result.stdout.splitlines() == expected


# --- pgbench ---

@pytest.fixture(scope="module")
def bench_tables(target, world):
    environment, connection = target()
    run(["pgbench", "-i", "-q", "-s", "2", connection], env=environment)
    world.cluster.catch_up()
    yield
    world.cluster.primary.sql("DROP TABLE pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers", database="app")


def _pgbench(target, arguments, transactions, **where):
    environment, connection = target(**where)
    result = run(["pgbench", "-n", *arguments, connection], env=environment, timeout=100)
    assert "number of failed transactions: 0 " in result.stdout, result.stdout
    assert f"number of transactions actually processed: {transactions}/{transactions}" in result.stdout, result.stdout


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench_on_the_direct_port(target, bench_tables, mode):
    _pgbench(target, ["-M", mode, "-c", "8", "-j", "2", "-t", "100"], 800)


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench_reads_from_a_replica(target, bench_tables, mode):
    _pgbench(target, ["-S", "-M", mode, "-c", "8", "-j", "2", "-t", "200"], 1600, user=f"{USER}|replica")


@pytest.mark.parametrize("mode", ["simple", "extended"])
def test_pgbench_on_the_pooled_port(target, bench_tables, mode):
    _pgbench(target, ["-M", mode, "-c", "20", "-j", "2", "-t", "50"], 1000, listener="pooled")


@pytest.mark.parametrize("listener", ["direct", "pooled"])
def test_pgbench_with_a_connection_for_every_transaction(target, bench_tables, listener):
    _pgbench(target, ["-S", "-C", "-c", "4", "-j", "2", "-t", "50"], 200, listener=listener)


def test_pgbench_sums_agree_with_what_the_server_has(target, bench_tables, world):
    accounts, history = world.cluster.primary.sql(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(delta) FROM pgbench_history)", database="app")[0]
    assert accounts == (history or 0)


# --- PostgreSQL's tools ---

def test_pg_dump_into_pg_restore(target, world):
    primary = world.cluster.primary
    primary.sql("CREATE DATABASE dumped OWNER app")
    primary.sql("CREATE DATABASE restored OWNER app")
    try:
        environment, source = target(database="dumped")
        run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", source, "-c", """
            CREATE TABLE things (id int PRIMARY KEY, text text, made timestamptz DEFAULT now());
            INSERT INTO things SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) AS n;
            CREATE INDEX ON things (text); CREATE VIEW few AS SELECT * FROM things WHERE id < 100;
            CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'"""], env=environment)
        _, sink = target(database="restored")
        dump = subprocess.Popen([f"{BINARIES_15}/pg_dump", "-Fc", "-d", source], stdout=subprocess.PIPE, env=environment)
        restore = subprocess.run([f"{BINARIES_15}/pg_restore", "-d", sink, "-e"], stdin=dump.stdout, env=environment, timeout=60,
                                 stderr=subprocess.PIPE)
        assert (dump.wait(60), restore.returncode, restore.stderr) == (0, 0, b"")
        sums = [primary.sql("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM things AS t", database=database)
                for database in ("dumped", "restored")]
        assert sums[0] == sums[1] and sums[0][0][0] == 20000
    finally:
        primary.sql("DROP DATABASE restored")
        primary.sql("DROP DATABASE dumped")


def _replication_target(router):
    parameters = router.libpq(f"repl.{BRANCH}")
    return clean_environment(PGPASSWORD=parameters.pop("password")), conninfo(parameters)


@pytest.mark.parametrize("wal", ["stream", "fetch"])
def test_pg_basebackup(router, world, wal):
    environment, connection = _replication_target(router)
    backup = os.path.join(world.cluster.folder, f"backup-{wal}")
    run_as_server([f"{BINARIES_15}/pg_basebackup", "-D", backup, "-X", wal, "-c", "fast", "--no-sync", "-d", connection], env=environment)
    assert "successfully verified" in run_as_server([f"{BINARIES_15}/pg_verifybackup", backup]).stdout
    run_as_server(["rm", "-rf", backup])


def test_pg_recvlogical(router, world, folder):
    environment, connection = _replication_target(router)
    connection += " dbname='app'"
    tool = [f"{BINARIES_15}/pg_recvlogical", "-d", connection, "--slot=through_router"]
    primary = world.cluster.primary
    run([*tool, "--create-slot", "--plugin=test_decoding"], env=environment)
    try:
        primary.sql("CREATE TABLE decoded (n int)", database="app")
        primary.sql("INSERT INTO decoded SELECT generate_series(1, 3)", database="app")
        end = primary.value("SELECT pg_current_wal_lsn()")
        primary.sql("SELECT pg_logical_emit_message(true, 'pointsman', 'the end')", database="app")
        out = os.path.join(folder, "decoded.txt")
        run([*tool, "--start", "-f", out, "--no-loop", f"--endpos={end}", "-o", "include-xids=0"], env=environment)
        with open(out, encoding="utf-8") as text:
            lines = [line.strip() for line in text if "decoded" in line]
        assert lines == [f"table public.decoded: INSERT: n[integer]:{number}" for number in (1, 2, 3)]
    finally:
        run([*tool, "--drop-slot"], env=environment)
        primary.sql("DROP TABLE IF EXISTS decoded", database="app")


def test_a_subscription_of_postgresql_18_follows_through_the_router(router, world):
    publisher, subscriber = world.cluster.primary, world.node_18
    for node in (publisher, subscriber):
        node.sql("CREATE TABLE followed (n int PRIMARY KEY, text text)", database="app")
    publisher.sql("GRANT SELECT ON followed TO repl", database="app")
    publisher.sql("INSERT INTO followed SELECT n, 'before' FROM generate_series(1, 1000) AS n", database="app")
    publisher.sql("CREATE PUBLICATION through_router FOR TABLE followed", database="app")
    where = conninfo(router.libpq(f"repl.{BRANCH}", database="app"))
    try:
        subscriber.sql("CREATE SUBSCRIPTION through_router CONNECTION '{}' PUBLICATION through_router".format(where.replace("'", "''")),
                       database="app")
        publisher.sql("INSERT INTO followed SELECT n, 'after' FROM generate_series(1001, 2000) AS n", database="app")
        wait_until(lambda: subscriber.sql("SELECT text, count(*) FROM followed GROUP BY 1 ORDER BY 1", database="app")
                   == [("after", 1000), ("before", 1000)], "both halves to arrive")
        ours = [entry for entry in router.sessions() if "repl" in json.dumps(entry)]
        assert ours, "the walsender's connection is a session of the router's"
    finally:
        subscriber.sql("DROP SUBSCRIPTION IF EXISTS through_router", database="app")
        publisher.sql("DROP PUBLICATION through_router", database="app")
        for node in (publisher, subscriber):
            node.sql("DROP TABLE followed", database="app")


def test_pg_isready(target, router):
    assert "accepting connections" in run([f"{BINARIES_15}/pg_isready", "-h", "127.0.0.1", "-p", str(router.port()), "-U", USER,
                                           "-d", "app"]).stdout
