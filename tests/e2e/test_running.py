"""A long life: reloads by signal and by file, certificates, draining, and the second SIGTERM."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import ssl
import time

import pytest
from harness.system import free_port, wait_until
from harness.wire import Closed, Refused, cancel, error_fields
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"


def works(session):
    assert session.value("SELECT 'alive'") == "alive"


def add_branch(config, name, **more):
    config["branches"][name] = dict(config["branches"][BRANCH], **more)
    return config


# --- reload ---

@pytest.mark.parametrize("how", ["SIGHUP", "file", "api"])
def test_a_reload_adds_and_removes_branches_and_keeps_sessions(start_router, how):
    router = start_router()
    kept = router.login(USER)

    def reload(config):
        def trigger():
            router.write_config(config)
            if how == "SIGHUP":
                router.signal(signal.SIGHUP)
            elif how == "api":
                assert router.http("/api/reload", method="POST", data=b"", token="an-admin-token")[0] == 200

        return router.await_reload(trigger)

    assert reload(add_branch(router.config, "added")) == "ok"
    router.login("app.added").terminate()
    works(kept)
    del router.config["branches"]["added"]
    assert reload(router.config) == "ok"
    with router.open() as wire, pytest.raises(Refused) as gone:
        wire.login("app.added", PASSWORDS["app"])
    assert gone.value.reason == "unknown_branch"
    works(kept)
    router.login(USER).terminate()


def test_a_config_map_is_reloaded_when_kubernetes_swaps_its_data_link(start_router):
    router = start_router(kubernetes=True)
    router.login(USER).terminate()
    for number in range(3):  # the first swap is the easy one: a watch must survive it
        name = f"mounted{number}"
        assert router.await_reload(lambda name=name: router.write_config(add_branch(router.config, name))) == "ok"
        router.login(f"app.{name}").terminate()


def test_a_bad_top_level_leaves_everything_as_it_runs(start_router):
    router = start_router()
    good = json.loads(json.dumps(router.config))
    for spoil in (lambda text: text[:-20], lambda text: text.replace('"workers"', '"wrokers"'), lambda text: ""):
        with open(router.path, encoding="utf-8") as text:
            spoiled = spoil(text.read())

        def trigger(spoiled=spoiled):
            with open(router.path + ".bad", "w", encoding="utf-8") as text:
                text.write(spoiled)
            os.rename(router.path + ".bad", router.path)

        assert router.await_reload(trigger) == "failed"
        router.login(USER).terminate()
        router.write_config(good)
        assert router.reload() == "ok"


def test_a_bad_branch_keeps_its_last_good_version_and_all_others_go_on(start_router):
    router = start_router(lambda config: add_branch(config, "second"))
    router.config["branches"]["second"] = {"members": "nonsense"}
    add_branch(router.config, "third")
    router.config["branches"]["never"] = {"members": []}
    router.reload(router.config)
    assert router.metrics().sum("pointsman_config_branches_rejected") == 2
    for branch in (BRANCH, "second", "third"):
        router.login(f"app.{branch}").terminate()
    with router.open() as wire, pytest.raises(Refused) as refused:
        wire.login("app.never", PASSWORDS["app"])
    assert refused.value.reason == "unknown_branch"
    router.wait_log(r"/branches/second")
    del router.config["branches"]["never"]
    add_branch(router.config, "second")
    assert router.reload(router.config) == "ok"
    assert router.metrics().sum("pointsman_config_branches_rejected") == 0


def test_at_start_a_bad_branch_is_left_out_and_all_others_run(start_router):
    router = start_router(lambda config: config["branches"].update(broken={"members": "nonsense"}))
    router.login(USER).terminate()
    assert router.metrics().sum("pointsman_config_branches_rejected") == 1
    assert "broken" not in router.api("/api/status")["branches"]
    router.wait_log(r"/branches/broken")


def test_a_folder_of_branches_is_read_and_watched(start_router, folder, make_config):
    config = make_config()
    branches = os.path.join(folder, f"branches-{free_port()}.d")
    os.makedirs(branches)

    def write(name, content):
        temporary = os.path.join(branches, f".{name}.new")
        with open(temporary, "w", encoding="utf-8") as text:
            text.write(content if isinstance(content, str) else json.dumps(content))
        os.rename(temporary, os.path.join(branches, f"{name}.json"))

    config["branches_dir"] = branches
    write("first", config["branches"][BRANCH])
    router = start_router(config=config)
    router.login("app.first").terminate()
    router.login(USER).terminate()
    router.await_reload(lambda: write("second", config["branches"][BRANCH]))
    router.login("app.second").terminate()
    router.await_reload(lambda: write("first", "{ not json"))
    router.login("app.first").terminate()
    assert router.metrics().sum("pointsman_config_branches_rejected") == 1
    router.await_reload(lambda: os.unlink(os.path.join(branches, "second.json")))
    with router.open() as wire, pytest.raises(Refused):
        wire.login("app.second", PASSWORDS["app"])


def test_a_changed_member_is_where_the_next_login_goes(start_router, world):
    router = start_router(lambda config: config["branches"][BRANCH].update(members=world.members("pg-0", "pg-1")))
    assert router.login(f"{USER}|replica").value("SELECT inet_server_port()") == str(world.cluster.named("pg-1").port)
    router.config["branches"][BRANCH]["members"] = world.members("pg-0", "pg-2")
    assert router.reload(router.config) == "ok"
    assert router.login(f"{USER}|replica").value("SELECT inet_server_port()") == str(world.cluster.named("pg-2").port)


def test_a_rotated_probe_password_file_is_read_again(start_router, world, secrets):
    own = secrets.file("rotating-probe.pw", "not the password\n")
    router = start_router(lambda config: config["branches"][BRANCH].update(probe=world.probe(secrets, password_file=own)))
    with router.open() as wire, pytest.raises(Refused):
        wire.login(USER, PASSWORDS["app"])
    secrets.file("rotating-probe.pw", PASSWORDS["pointsman"] + "\n")
    router.reload()
    wait_until(lambda: router.login(USER).value("SELECT 1"), "logins to work with the new probe password", every=0.2)


@pytest.mark.parametrize("how", ["SIGHUP", "file"])
def test_certificates_are_reloaded_and_sessions_kept(start_router, world, folder, how):
    pki = os.path.join(folder, f"serving-{how}")
    os.makedirs(pki)
    paths = [os.path.join(pki, name) for name in ("tls.crt", "tls.key")]

    def install(name):
        """Certificate, then key, each by rename: in between they do not match, as with certbot."""
        for source, target in zip(world.authority.issue(name, folder=pki), paths):
            shutil.copy(source, target + ".new")
            os.rename(target + ".new", target)

    install(f"first-{how}")
    router = start_router(lambda config: config["tls"].update(certificate=paths[0], key=paths[1]))

    def served():
        with router.open() as wire:
            return dict(pair[0] for pair in wire.tls.getpeercert()["subject"])["commonName"]

    assert served() == f"first-{how}"
    kept = router.login(USER)
    install(f"second-{how}")
    if how == "SIGHUP":
        router.signal(signal.SIGHUP)
    wait_until(lambda: served() == f"second-{how}", "the new certificate to be served")
    works(kept)
    assert router.login(USER, mechanism="SCRAM-SHA-256-PLUS").value("SELECT 1") == "1"


def test_a_new_listener_opens_or_the_log_says_that_it_takes_a_restart(start_router):
    router = start_router()
    port = free_port()
    listener = {"name": "another", "address": "127.0.0.1", "port": port, "mode": "direct"}
    router.config["listeners"].append(listener)
    router.reload(router.config)
    said = "listeners are opened at start only"
    wait_until(lambda: said in router.log() or router.login(USER, listener="another").value("SELECT 1"), "the new listener to serve, or to be refused")
    router.login(USER).terminate()


# --- draining ---

def test_sigterm_ends_idle_sessions_with_57p01_and_exits_with_0(start_router):
    router = start_router(lambda config: config.update(drain_timeout="20s"))
    sessions = [router.login(USER), router.login(f"{USER}|replica"), router.login(f"{USER}|reads", listener="pooled")]
    router.signal(signal.SIGTERM)
    for session in sessions:
        refused = session.wire.expect_refusal()
        assert (refused.sqlstate, refused.reason) == ("57P01", "draining")
    assert router.wait() == 0
    router.assert_no_alarm()


def test_a_paced_drain_ends_sessions_one_after_the_other(start_router):
    """Eight idle sessions over two seconds: the first goes at the beginning, the last not before its time."""
    router = start_router(lambda config: config.update(drain_timeout="20s", drain_pace="2s", workers=1))
    sessions = [router.login(USER) for _ in range(8)]
    began = time.monotonic()
    router.signal(signal.SIGTERM)
    ended = []
    pending = {session.wire.socket: session for session in sessions}
    while pending:
        ready, _, _ = select.select(list(pending), [], [], 15)
        assert ready, "the drain does not go on"
        for found in ready:
            refused = pending.pop(found).wire.expect_refusal()
            assert (refused.sqlstate, refused.reason) == ("57P01", "draining")
            ended.append(time.monotonic() - began)
    assert ended[-1] - ended[0] >= 1.5, ended
    assert router.wait() == 0
    router.assert_no_alarm()


def test_a_transaction_may_finish_and_then_its_session_ends(start_router):
    router = start_router(lambda config: config.update(drain_timeout="20s"))
    session = router.login(USER)
    session.query("BEGIN")
    idle = router.login(USER)
    router.signal(signal.SIGTERM)
    assert idle.wire.expect_refusal().sqlstate == "57P01"
    assert session.query("SELECT 'still here'") == [["still here"]] and session.status == "T"
    session.query("COMMIT")
    assert session.wire.expect_refusal().sqlstate == "57P01"
    assert router.wait() == 0


def test_a_running_query_may_finish(start_router, cluster):
    router = start_router(lambda config: config.update(drain_timeout="20s"))
    session = router.login(USER)
    session.send_query("SELECT pg_sleep(1), 'finished'")
    cluster.primary.wait_backend_runs(session.pid, "pg_sleep")
    router.signal(signal.SIGTERM)
    assert session.result() == [["", "finished"]]
    assert session.wire.expect_refusal().sqlstate == "57P01"
    assert router.wait() == 0


def test_the_drain_timeout_ends_what_does_not_end_by_itself(start_router, cluster):
    router = start_router(lambda config: config.update(drain_timeout="500ms"))
    session = router.login(USER)
    session.query("BEGIN")
    running = router.login(USER)
    running.send_query("SELECT pg_sleep(60)")
    cluster.primary.wait_backend_runs(running.pid, "pg_sleep")
    start = time.monotonic()
    router.signal(signal.SIGTERM)
    for left in (session, running):  # no idle boundary here, so a plain close is lawful
        try:
            left.wire.transcript.clear()
            while left.wire.read_message().type != "E":
                pass
            assert error_fields(left.wire.transcript[-1].body)["C"] == "57P01"
        except Closed:
            pass
    assert router.wait() == 0 and time.monotonic() - start < 5
    cluster.primary.wait_backend_gone(session.pid)
    cluster.primary.wait_backend_gone(running.pid)


def test_while_draining_new_logins_are_sent_away_and_readyz_says_so(start_router):
    router = start_router(lambda config: config.update(drain_timeout="20s"))
    session = router.login(USER)
    session.query("BEGIN")
    router.signal(signal.SIGTERM)
    wait_until(lambda: router.http("/readyz")[0] == 503, "/readyz to say draining")
    assert router.http("/healthz")[0] == 200 and router.api("/api/status")["draining"] is True

    def sent_away():
        try:
            router.login(USER).wire.close()
        except (Refused, Closed, OSError, ssl.SSLError) as error:
            return error
        return None

    error = wait_until(sent_away, "new logins to be refused")
    if isinstance(error, Refused):
        assert (error.sqlstate, error.reason) == ("57P03", "draining")
    session.query("COMMIT")
    assert router.wait() == 0


def test_a_shutdown_delay_serves_on_while_balancers_look_away(start_router):
    router = start_router(lambda config: config.update(shutdown_delay="1s"))
    session = router.login(USER)
    router.signal(signal.SIGTERM)
    wait_until(lambda: router.http("/readyz")[0] == 503, "/readyz to say draining", deadline=1)
    router.login(USER).terminate()
    works(session)
    assert session.wire.expect_refusal().sqlstate == "57P01"
    assert router.wait() == 0


def test_a_second_sigterm_stops_at_once(start_router):
    router = start_router(lambda config: config.update(drain_timeout="60s"))
    session = router.login(USER)
    session.query("BEGIN")
    router.signal(signal.SIGTERM)
    wait_until(lambda: router.http("/readyz")[0] == 503, "the drain to begin")
    start = time.monotonic()
    router.signal(signal.SIGTERM)
    session.wire.wait_closed()
    assert router.wait() == 0 and time.monotonic() - start < 3


def test_a_cancel_still_works_while_draining(start_router, cluster):
    router = start_router(lambda config: config.update(drain_timeout="20s"))
    session = router.login(USER)
    session.send_query("SELECT pg_sleep(60)")
    cluster.primary.wait_backend_runs(session.pid, "pg_sleep")
    router.signal(signal.SIGTERM)
    wait_until(lambda: router.http("/readyz")[0] == 503, "the drain to begin")
    cancel(router.port(), session.pid, session.secret)
    kinds = []
    while True:
        try:
            kind, body = session.wire.read_message()
        except Closed:
            break
        kinds.append((kind, error_fields(body)["C"] if kind == "E" else ""))
    assert kinds == [("T", ""), ("E", "57014"), ("Z", ""), ("E", "57P01")] or kinds == [("E", "57014"), ("Z", ""), ("E", "57P01")]
    assert router.wait() == 0


# --- starting ---

def test_a_taken_port_is_named_and_exits_with_1(start_router):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen(1)
        port = taken.getsockname()[1]
        router = start_router(lambda config: config["listeners"][0].update(port=port), ready=False)
        assert router.wait() == 1
        assert str(port) in router.log() and "in use" in router.log()


def test_a_second_router_on_the_same_port_is_told_so(start_router, make_config):
    """With SO_REUSEPORT it would silently take half of the first one's clients."""
    config = make_config()
    first = start_router(config=config)
    second_config = make_config()
    second_config["listeners"][0]["port"] = config["listeners"][0]["port"]
    second = start_router(config=second_config, ready=False)
    assert second.wait() == 1 and "in use" in second.log()
    first.login(USER).terminate()


def test_a_configuration_that_cannot_work_is_told_as_check_tells_it(start_router):
    router = start_router(lambda config: config.update(nonsense=1), ready=False)
    assert router.wait() == 1
    assert f"{router.path}: /nonsense: " in router.log()


def test_the_router_starts_and_stops_with_every_backend_down(start_router, world):
    def change(config):
        for member in config["branches"][BRANCH]["members"]:
            member["port"] = free_port()

    router = start_router(change)
    assert router.http("/readyz")[0] == 200
    with router.open() as wire, pytest.raises(Refused) as refused:
        wire.login(USER, PASSWORDS["app"])
    assert refused.value.sqlstate in {"57P03", "28P01"}
    router.stop()


def test_one_worker_serves_as_well(start_router):
    router = start_router(lambda config: config.update(workers=1))
    for target in ("", "|replica"):
        router.login(USER + target).terminate()
