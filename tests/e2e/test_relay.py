"""Between login and the end the router is a pipe: every byte, in both directions, and no more memory than two buffers."""

import hashlib
import os
import select
import signal
import socket
import struct
import subprocess
import threading

import psycopg
import pytest
from harness.forwarder import Forwarder
from harness.router import conninfo, router_binary
from harness.system import clean_environment, resident_bytes, run, wait_until
from harness.wire import Closed, Refused, error_fields, message, open_tls
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"
BULK_MEGABYTES = int(os.environ.get("POINTSMAN_TEST_BULK_MB", "200"))
ROW_BYTES = 1000
ROWS = BULK_MEGABYTES * 1_000_000 // ROW_BYTES


def _sanitized():
    with open(router_binary(), "rb") as binary:
        data = binary.read()
    return b"__asan_init" in data or b"__tsan_init" in data


@pytest.fixture(scope="module")
def memory_slack():
    """What stopped peers may cost: buffers; a sanitizer's quarantine and shadow come on top."""
    return (160 if _sanitized() else 24) * 1024 * 1024


# --- bulk ---

def _copy_out(environment, connection, sql):
    """sha256 and size of what COPY … TO STDOUT prints."""
    process = subprocess.Popen(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", sql],
                               stdout=subprocess.PIPE, env=environment, stdin=subprocess.DEVNULL)
    digest, size = hashlib.sha256(), 0
    while chunk := process.stdout.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    assert process.wait(60) == 0
    return digest.hexdigest(), size


def _psql_target(router, user=USER, listener="direct", **more):
    parameters = router.libpq(user, listener=listener, database="app", **more)
    return clean_environment(PGPASSWORD=parameters.pop("password")), conninfo(parameters)


def _direct_target(world):
    return clean_environment(PGPASSWORD=PASSWORDS["app"]), f"host=127.0.0.1 port={world.cluster.primary.port} user=app dbname=app sslmode=require"


BULK = (f"COPY (SELECT n, rpad(md5(n::text), {ROW_BYTES - 9}, md5((n * 7)::text)) "
        f"FROM generate_series(1, {ROWS}) AS n) TO STDOUT")


@pytest.fixture(scope="module")
def bulk(world, folder):
    """The same rows as the server gives them without a router: a file, its checksum, its size."""
    path = os.path.join(folder, "bulk.copy")
    environment, connection = _direct_target(world)
    with open(path, "wb") as out:
        subprocess.run(["psql", "-X", "-q", "-d", connection, "-c", BULK], stdout=out, env=environment, check=True, timeout=300)
    digest = hashlib.sha256()
    with open(path, "rb") as text:
        while chunk := text.read(1 << 20):
            digest.update(chunk)
    yield path, digest.hexdigest(), os.path.getsize(path)
    os.unlink(path)


@pytest.mark.parametrize("listener, user", [("direct", USER), ("off", USER), ("direct", f"{USER}|replica"), ("pooled", f"{USER}|app")])
def test_copy_out_arrives_byte_for_byte(router, bulk, listener, user):
    more = {"sslmode": "disable"} if listener == "off" else {}
    got = _copy_out(*_psql_target(router, user, listener, **more), BULK)
    assert got == bulk[1:]


@pytest.mark.parametrize("listener", ["direct", "off"])
def test_copy_in_arrives_byte_for_byte(router, world, bulk, listener):
    path, digest, size = bulk
    more = {"sslmode": "disable"} if listener == "off" else {}
    environment, connection = _psql_target(router, USER, listener, **more)
    world.cluster.primary.sql("CREATE UNLOGGED TABLE bulk_in (n int, filler text)", database="app")
    try:
        world.cluster.primary.sql("GRANT ALL ON bulk_in TO app", database="app")
        run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", f"\\copy bulk_in FROM '{path}'"], env=environment,
            timeout=300)
        assert _copy_out(*_direct_target(world), "COPY bulk_in TO STDOUT") == (digest, size)
    finally:
        world.cluster.primary.sql("DROP TABLE bulk_in", database="app")


@pytest.mark.parametrize("megabytes", [1, 64])
def test_a_single_message_of_any_size_passes_both_ways(router, megabytes):
    text = "0123456789abcdef" * (megabytes << 16)
    with psycopg.connect(conninfo(router.libpq(USER, database="app"))) as connection:
        [echoed] = connection.execute("SELECT %s::text", (text,)).fetchone()
    assert echoed == text


def test_many_small_messages_keep_their_order(router):
    session = router.open_plain("off").login(USER, PASSWORDS["app"])
    count = 20_000
    statements = b"".join(message("Q", b"SELECT %d\0" % number) for number in range(count))
    sender = threading.Thread(target=session.wire.send, args=(statements,))  # while this thread reads
    sender.start()
    for number in range(count):
        assert session.result() == [[str(number)]]
    sender.join()
    session.terminate()


# --- back-pressure ---

def test_readers_that_stop_reading_cost_no_more_than_buffers(start_router, world, memory_slack):
    """Ten clients ask for a gigabyte each and read nothing; the servers end up waiting for us, and we hold next to nothing."""
    router = start_router()
    warm = router.login(USER)
    before = resident_bytes(router.pid)
    sessions = []
    try:
        for number in range(10):
            wire = router.open(receive_buffer=4096) if number % 2 else router.open_plain("off", receive_buffer=4096)
            session = wire.login(USER, PASSWORDS["app"])
            session.send_query("SELECT repeat('x', 1000), generate_series(1, 1000000) AS stopped_reader")
            sessions.append(session)
        wait_until(lambda: world.cluster.primary.value(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%stopped_reader' AND wait_event = 'ClientWrite'") == 10,
            "all ten backends to wait for their client")
        assert resident_bytes(router.pid) - before < memory_slack
        assert warm.value("SELECT 'others go on'") == "others go on"
    finally:
        for session in sessions:
            session.wire.close()
    wait_until(lambda: world.cluster.primary.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%stopped_reader'") == 0,
               "the backends of the readers that left to end")
    warm.terminate()


def test_a_slow_reader_gets_everything(router):
    """Read in sips of 4 KiB with a tiny window: what is slow is not lost."""
    wire = router.open(receive_buffer=4096)
    session = wire.login(USER, PASSWORDS["app"])
    session.send_query("SELECT n, repeat('y', 500) FROM generate_series(1, 20000) AS n")
    rows = session.result()
    assert [row[0] for row in rows] == [str(number) for number in range(1, 20001)]
    assert all(row[1] == "y" * 500 for row in rows)
    session.terminate()


def test_a_writer_is_slowed_down_when_its_backend_does_not_read(start_router, world, memory_slack):
    """The backend waits for a lock and reads nothing: the client must feel it, and nothing it sent may be lost afterwards."""
    router = start_router()
    primary = world.cluster.primary
    primary.sql("CREATE UNLOGGED TABLE slow_sink (line text)", database="app")
    primary.sql("GRANT ALL ON slow_sink TO app", database="app")
    locker = primary.connect("app")
    locker.autocommit = False
    locker.execute("LOCK TABLE slow_sink IN ACCESS EXCLUSIVE MODE")
    wire = router.open_plain("off")
    session = wire.login(USER, PASSWORDS["app"])
    before = resident_bytes(router.pid)
    line = b"z" * 999 + b"\n"
    rows = 100_000
    stream = memoryview(message("Q", b"COPY slow_sink FROM STDIN\0") + message("d", line) * rows + message("c"))
    sent = 0
    wire.socket.setblocking(False)
    while select.select([], [wire.socket], [], 1.0)[1]:
        sent += wire.socket.send(stream[sent:sent + (1 << 20)])
        assert sent < len(stream), "100 MB were taken from the client while the backend read nothing"
    assert resident_bytes(router.pid) - before < memory_slack
    locker.rollback()
    locker.close()
    wire.socket.setblocking(True)
    wire.socket.sendall(stream[sent:])
    wire.socket.settimeout(60)
    kinds = [kind for kind, _ in wire.read_until("Z")]
    assert kinds == ["G", "C", "Z"]
    assert session.value("SELECT count(*) FROM slow_sink") == str(rows)
    session.terminate()
    primary.sql("DROP TABLE slow_sink", database="app")


# --- nothing is added, nothing is taken away ---

SCRIPT = [
    "SELECT 1, NULL, 'ü', ''",
    "SET application_name = 'seen in ParameterStatus'",
    "DO $$ BEGIN RAISE NOTICE 'a notice' USING DETAIL = 'its detail', HINT = 'its hint', ERRCODE = 'PM001'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'an error' USING DETAIL = 'd', HINT = 'h', ERRCODE = 'PM002', COLUMN = 'c', CONSTRAINT = 'k', "
    "DATATYPE = 't', TABLE = 'tab', SCHEMA = 's'; END $$",
    "SELECT 1/0",
    "SELEKT",
    "BEGIN; SELECT 1; SELECT 2; COMMIT",
    "BEGIN; SELECT 1/0; COMMIT",
    "ROLLBACK",
    "",
    "COPY (SELECT 1) TO STDOUT",
    "SELECT repeat('x', 70000)",
    "SET client_encoding = 'LATIN1'",
    "SELECT chr(252)",
    "DO $$ BEGIN RAISE WARNING 'line one\nline two'; END $$",
]


@pytest.mark.parametrize("chunk", [0, 1, 3, 64])
def test_answers_errors_and_notices_arrive_as_the_server_sent_them(router, cluster, chunk):
    def transcript(session):
        session.wire.transcript.clear()
        for sql in SCRIPT:
            session.send_query(sql)
            try:
                session.result()
            except Refused:
                pass
            except UnicodeDecodeError:  # the LATIN1 row: raised by the row parser, the rest of the answer is still to come
                session.wire.read_until("Z")
        return list(session.wire.transcript)

    def start(wire, user):
        return wire.login(user, PASSWORDS["app"])

    straight = transcript(start(open_tls(cluster.primary.port, router.tls()), "app"))
    routed = transcript(start(router.open(chunk=chunk), USER))
    assert routed == straight


def test_extended_protocol_arrives_as_the_server_sent_it(router, cluster):
    batch = (message("P", b"s1\0SELECT $1::int + 1\0\0\0")
             + message("B", b"p1\0s1\0\0\0" + struct.pack("!Hi", 1, 2) + b"41" + struct.pack("!H", 0))
             + message("D", b"Pp1\0") + message("E", b"p1\0\0\0\0\0") + message("C", b"Sp1\0") + message("H")
             + message("B", b"\0nosuch\0" + struct.pack("!HHH", 0, 0, 0)) + message("S"))

    def transcript(wire, user):
        session = wire.login(user, PASSWORDS["app"])
        wire.transcript.clear()
        wire.send(batch)
        while wire.read_message().type != "Z":
            pass
        session.terminate()
        return list(wire.transcript)

    straight = transcript(open_tls(cluster.primary.port, router.tls()), "app")
    assert [kind for kind, _ in straight] == ["1", "2", "T", "D", "C", "3", "E", "Z"]
    assert transcript(router.open(), USER) == straight


def test_notifications_reach_listeners_and_carry_the_senders_pid(router):
    got = []
    with psycopg.connect(conninfo(router.libpq(USER, database="app")), autocommit=True) as listener:
        listener.add_notify_handler(lambda notification: got.append((notification.payload, notification.pid)))
        listener.execute("LISTEN news")
        with psycopg.connect(conninfo(router.libpq(USER, database="app")), autocommit=True) as sender:
            sender.execute("NOTIFY news, 'from another'")
            other = sender.info.backend_pid
        listener.execute("NOTIFY news, 'from myself'")
        wait_until(lambda: listener.execute("SELECT 1") and len(got) == 2, "both notifications")
        assert sorted(got) == [("from another", other), ("from myself", listener.info.backend_pid)]


def test_an_idle_listener_is_woken(router, cluster):
    """No byte of the client's is needed for the server's to pass."""
    session = router.login(USER)
    session.query("LISTEN wakeup")
    cluster.primary.sql("NOTIFY wakeup, 'now'", database="app")
    kind, body = session.wire.read_message()
    assert kind == "A" and body[4:] == b"wakeup\0now\0"
    session.terminate()


def test_pipeline_mode(router):
    with psycopg.connect(conninfo(router.libpq(USER, database="app"))) as connection:
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT %s::int * 2", (number,)) for number in range(500)]
            pipeline.sync()
            assert [cursor.fetchone()[0] for cursor in cursors] == [number * 2 for number in range(500)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            with connection.pipeline():
                connection.execute("SELECT 1")
                connection.execute("SELECT 1/0")


# --- ends ---

@pytest.mark.parametrize("farewell", [message("X"), b""], ids=["with Terminate", "without"])
@pytest.mark.parametrize("listener", ["direct", "off"])
def test_half_a_close_by_the_client_lets_the_answer_through(router, listener, farewell):
    """Ten times each: the answer is larger than the socket buffers, so FIN and answer cross in ever new ways."""
    for _ in range(10):
        wire = router.open() if listener == "direct" else router.open_plain("off")
        with wire:
            wire.login(USER, PASSWORDS["app"])
            wire.send(message("Q", b"SELECT n, repeat('h', 100) FROM generate_series(1, 5000) AS n\0") + farewell)
            wire.finish_sending()
            kinds = [kind for kind, _ in wire.read_until("Z")]
            assert kinds.count("D") == 5000
            wire.expect_end()


def _while_stopped(router, session, deliver):
    """`deliver` sends while the router sleeps, so that everything is one edge of the client's socket."""
    os.kill(router.pid, signal.SIGSTOP)
    try:
        deliver(session.wire.socket)
    finally:
        os.kill(router.pid, signal.SIGCONT)


def test_a_query_and_the_end_that_came_with_it_are_both_seen(start_router, cluster):
    """The kernel tells of both once; a short read must not be taken for the last."""
    router = start_router()
    session = router.open_plain("off").login(USER, PASSWORDS["app"])

    def deliver(connection):
        connection.sendall(message("Q", b"SELECT 'the answer'\0"))
        connection.shutdown(socket.SHUT_WR)

    _while_stopped(router, session, deliver)
    assert "D" in [kind for kind, _ in session.wire.read_until("Z")]
    session.wire.expect_end()
    cluster.primary.wait_backend_gone(session.pid)


def test_bytes_behind_an_urgent_one_are_not_left_lying(start_router):
    """recv(2) stops at urgent data: it gives less than was asked for, although more is there."""
    router = start_router()
    session = router.open_plain("off").login(USER, PASSWORDS["app"])
    query = message("Q", b"SELECT 'behind the mark'\0")

    def deliver(connection):
        connection.sendall(query[:7])
        connection.send(b"!", socket.MSG_OOB)
        connection.sendall(query[7:])

    _while_stopped(router, session, deliver)
    assert "D" in [kind for kind, _ in session.wire.read_until("Z")]
    assert session.value("SELECT 'and on'") == "and on"


def test_terminate_ends_the_backend_and_the_connection(router, cluster):
    session = router.login(USER)
    session.terminate()
    cluster.primary.wait_backend_gone(session.pid)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("state", ["idle", "in a transaction", "in a long query", "in the middle of a result"])
def test_a_client_that_vanishes_takes_its_backend_with_it(router, cluster, how, state):
    session = router.login(USER)
    pid = session.pid
    if state == "in a transaction":
        session.query("BEGIN; SELECT pg_advisory_xact_lock(4711)")
    elif state == "in a long query":
        session.send_query("SELECT pg_sleep(60)")
        cluster.primary.wait_backend_runs(pid, "pg_sleep")
    elif state == "in the middle of a result":
        session.send_query("SELECT repeat('x', 1000), generate_series(1, 10000000)")
        session.wire.read_until("D")
    if how == "reset":
        session.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.wire.close()
    cluster.primary.wait_backend_gone(pid)


def test_a_killed_psql_takes_its_backend_with_it(router, cluster):
    environment, connection = _psql_target(router)
    process = subprocess.Popen(["psql", "-X", "-d", connection, "-c", "SELECT pg_sleep(60) AS killed_client"], env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    find = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%killed_client' AND state = 'active'"
    [(pid,)] = wait_until(lambda: cluster.primary.sql(find), "the query to run")
    process.kill()
    process.wait()
    cluster.primary.wait_backend_gone(pid)


def test_the_servers_own_farewell_arrives(router, cluster):
    session = router.login(USER)
    cluster.primary.sql("SELECT pg_terminate_backend(%s)", (session.pid,))
    refused = session.wire.expect_refusal()
    assert (refused.sqlstate, refused.message) == ("57P01", "terminating connection due to administrator command")
    assert refused.fields["F"] == "postgres.c"


def test_a_backend_killed_in_the_middle_of_a_result_ends_in_an_error_or_a_close_and_never_in_noise(router, cluster):
    session = router.login(USER)
    session.send_query("SELECT repeat('x', 1000), generate_series(1, 100000000)")
    session.wire.read_until("D")
    cluster.primary.sql("SELECT pg_terminate_backend(%s)", (session.pid,))
    last = None
    try:
        while True:
            kind, last = session.wire.read_message()
            assert kind in "DE", kind
            if kind == "E":
                assert error_fields(last)["C"] in {"57P01", "08006"}
                session.wire.expect_end()
                break
    except Closed:
        pass  # the server could not say more inside a half-sent message, so neither may we
    cluster.primary.wait_backend_gone(session.pid)


@pytest.mark.parametrize("state", ["idle", "running"])
def test_a_network_cut_behind_the_router_ends_the_session(start_router, world, state):
    with Forwarder(world.app.port) as network:
        def change(config):
            config["branches"][BRANCH]["pools"]["app"]["endpoints"] = [{"host": "127.0.0.1", "port": network.port}]

        router = start_router(change)
        session = router.login(f"{USER}|app", listener="pooled")
        if state == "running":
            session.send_query("SELECT pg_sleep(60)")
        network.sever()
        try:
            got = session.wire.read_message()
            assert got.type == "E" and error_fields(got.body)["S"] == "FATAL"
        except Closed:
            pass
        session.wire.expect_end()


def test_messages_with_absurd_lengths_are_the_backends_to_judge(router, cluster):
    for header in (b"Q" + struct.pack("!I", 3), b"Q" + struct.pack("!I", 0), b"Q" + struct.pack("!I", 0x7FFFFFFF), b"\0" + struct.pack("!I", 4)):
        session = router.login(USER)
        session.wire.send(header)
        session.wire.finish_sending()
        session.wire.wait_closed()
        cluster.primary.wait_backend_gone(session.pid)
    router.login(USER).terminate()


def test_a_password_message_after_the_login_is_the_backends_to_refuse(router):
    session = router.login(USER)
    session.wire.send(message("p", b"late\0"))
    refused = session.wire.expect_refusal()
    assert refused.sqlstate == "08P01" and refused.fields["F"] == "postgres.c"
