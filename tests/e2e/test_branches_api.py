"""Branches by request: PUT, GET and DELETE of one branch of branches_dir, in force when it is answered."""

import json
import os
import urllib.error
import urllib.request

import psycopg
import pytest
from harness.system import wait_until
from harness.wire import Refused
from harness.world import BRANCH

TOKEN = "an-admin-token"
NEW = "tenant-7"


@pytest.fixture
def folder_of_branches(folder):
    path = os.path.join(folder, "branches")
    os.makedirs(path, exist_ok=True)
    for name in os.listdir(path):
        os.unlink(os.path.join(path, name))
    return path


@pytest.fixture
def router(start_router, folder_of_branches):
    def change(config):
        config["branches_dir"] = folder_of_branches

    return start_router(change)


@pytest.fixture
def members(world):
    return {"members": [{"name": node.name, "host": "127.0.0.1", "port": node.port} for node in world.cluster.nodes]}


def ask(router, method, branch, document=None, *, token=TOKEN, **headers):
    """(status, decoded JSON, ETag)"""
    body = None if document is None else document.encode() if isinstance(document, str) else json.dumps(document).encode()
    request = urllib.request.Request(f"{router.admin_url}/api/branches/{branch}", body, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read()), answer.headers.get("ETag")
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read()), refused.headers.get("ETag")


def select(router, user):
    with psycopg.connect(**router.libpq(user, listener="direct", database="app"), autocommit=True) as session:
        return session.execute("SELECT current_setting('cluster_name'), pg_is_in_recovery()").fetchone()


def test_a_branch_comes_changes_and_goes(router, members, folder_of_branches):
    with pytest.raises(Refused) as refused:
        router.login(f"app.{NEW}")
    assert refused.value.reason == "unknown_branch"

    status, done, etag = ask(router, "PUT", NEW, members)
    assert (status, done) == (201, {"done": "created"}) and etag
    assert select(router, f"app.{NEW}") == ("pg-0", False)  # at once: nobody waits for a reload
    assert select(router, f"app.{NEW}|replica")[1] is True
    path = os.path.join(folder_of_branches, f"{NEW}.json")
    assert json.loads(open(path, encoding="utf-8").read()) == members
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert ask(router, "GET", NEW) == (200, members, etag)
    assert NEW in router.api("/api/branches")["branches"]

    alone = {"members": members["members"][:1], "labels": {"tier": "gold"}}
    status, done, second = ask(router, "PUT", NEW, alone, If_Match=etag)
    assert (status, done) == (200, {"done": "replaced"}) and second != etag
    assert [member["name"] for member in router.status(NEW)["members"]] == ["pg-0"]
    assert router.metrics().has("pointsman_branch_info", branch=NEW, tier="gold")

    kept = router.login(f"app.{NEW}")
    assert ask(router, "DELETE", NEW, If_Match=second)[:2] == (200, {"done": "removed"})
    with pytest.raises(Refused) as refused:
        router.login(f"app.{NEW}")
    assert refused.value.reason == "unknown_branch"
    assert kept.value("SELECT 1") == "1"  # a session outlives its branch's name, as after a reload
    assert not os.path.exists(path)
    assert ask(router, "GET", NEW)[0] == ask(router, "DELETE", NEW)[0] == 404


def test_what_check_would_refuse_is_refused_and_changes_nothing(router, members, folder_of_branches):
    _, _, etag = ask(router, "PUT", NEW, members)
    for document, where, what in (
            ({**members, "defualt_pool": "x"}, "/defualt_pool", "unknown"),
            ({"members": [{"name": "a", "host": "127.0.0.1", "port": 99999}]}, "/members/0/port", "99999"),
            ({}, "/members", ""),
            ("{ no json", "", ""),
            ("[]", "", "no object")):
        status, answer, _ = ask(router, "PUT", NEW, document)
        assert status == 422, answer
        assert any(error.startswith(f"{where}: ") and what in error for error in answer["errors"]), answer
    assert ask(router, "GET", NEW) == (200, members, etag)
    assert os.listdir(folder_of_branches) == [f"{NEW}.json"]
    assert select(router, f"app.{NEW}") == ("pg-0", False)


def test_preconditions(router, members):
    assert ask(router, "PUT", NEW, members, If_Match="*")[0] == 412
    status, _, etag = ask(router, "PUT", NEW, members, If_None_Match="*")
    assert status == 201
    assert ask(router, "PUT", NEW, members, If_None_Match="*")[0] == 412
    status, answer, current = ask(router, "PUT", NEW, members, If_Match='"0000000000000000"')
    assert status == 412 and current == etag and "changed" in answer["error"]
    assert ask(router, "DELETE", NEW, If_Match='"0000000000000000"')[0] == 412
    assert ask(router, "DELETE", NEW, If_Match=etag)[0] == 200


def test_who_may_and_what_may_be_named(router, members):
    assert ask(router, "PUT", NEW, members, token=None)[0] == 401
    assert ask(router, "PUT", NEW, members, token="guess")[0] == 401
    assert ask(router, "GET", NEW, token=None)[0] == 401  # what is stored may hold secrets
    assert ask(router, "PUT", NEW, members, Origin="https://elsewhere.example")[0] == 403
    status, answer, _ = ask(router, "PUT", BRANCH, members)
    assert status == 409 and "configuration file itself" in answer["error"]
    for name in ("..", "%2e%2e%2fpasswd", "UPPER", "a" * 64, ""):
        assert ask(router, "PUT", name, members)[0] == 404
    assert ask(router, "POST", NEW, members)[0] == 405
    assert ask(router, "PUT", NEW, "x" * (1024 * 1024 + 1))[0] == 413
    metrics = urllib.request.Request(f"{router.metrics_url}/api/branches/{NEW}", headers={"Authorization": f"Bearer {TOKEN}"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(metrics, timeout=10)
    assert refused.value.code == 404


def test_without_a_folder_for_branches(start_router, members):
    status, answer, _ = ask(start_router(), "PUT", NEW, members)
    assert status == 409 and "branches_dir" in answer["error"]


def test_a_full_reload_finds_what_is_in_force_and_a_restart_too(router, members):
    """Requests, a reload by signal and one by the watch of the folder, all at once: no branch is lost, no session is cut."""
    names = [f"t{number}" for number in range(30)]
    assert ask(router, "PUT", names[0], members)[0] == 201
    session = router.login(f"app.{names[0]}")
    for place, name in enumerate(names[1:]):
        assert ask(router, "PUT", name, members)[0] == 201
        if place % 10 == 0:
            assert router.reload() == "ok"
    assert router.reload() == "ok"
    assert set(names) <= set(router.api("/api/branches")["branches"])
    assert session.value("SELECT 1") == "1"
    known = router.metrics().sum("pointsman_verifier_lookups_total", outcome="found")
    assert ask(router, "DELETE", names[-1])[0] == 200
    router.login(f"app.{names[0]}").terminate()  # what was known of other branches still is
    assert router.metrics().sum("pointsman_verifier_lookups_total", outcome="found") == known
    router.stop()
    router.start()
    assert set(names[:-1]) <= set(router.api("/api/branches")["branches"])
    wait_until(lambda: select(router, f"app.{names[5]}") == ("pg-0", False), "a branch after the restart")
