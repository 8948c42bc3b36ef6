"""deploy/examples: each configuration is accepted by `pointsman check`, and one mistake in it is told with its path."""

import glob
import os
import re
import shutil
import sys

import pytest

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))
sys.path.insert(0, os.path.join(_ROOT, "tests", "e2e"))

from harness.certs import Authority  # noqa: E402
from harness.router import router_binary  # noqa: E402
from harness.system import run  # noqa: E402

EXAMPLES = os.path.join(_ROOT, "deploy", "examples")
FILES = sorted([*glob.glob(os.path.join(EXAMPLES, "*.json")), os.path.join(EXAMPLES, "many-branches", "pointsman.json")])

_VERIFIER = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


@pytest.fixture
def examples(tmp_path):
    """A copy of the folder in which the files that the examples name exist."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder)
    authority = Authority(str(folder))
    for name in ("server", "client"):
        authority.issue(name)
    shutil.copy(authority.certificate, folder / "pooler-ca.crt")
    secrets = folder / "many-branches" / "secrets"
    secrets.mkdir()
    branches = os.listdir(folder / "many-branches" / "branches.d")
    for path in (folder / "probe.pw", folder / "auth.pw", folder / "admin.token", *(secrets / f"{name[:-5]}.pw" for name in branches)):
        write_secret(path, "a-secret\n")
    for name in ("admin", "looker"):
        write_secret(folder / f"{name}.verifier", f"{_VERIFIER}\n")
    write_secret(folder / "userlist.txt", f'"app" "{_VERIFIER}"\n')
    return folder


def write_secret(path, text):
    path.write_text(text, encoding="ascii")
    path.chmod(0o600)


def check(path):
    return run([router_binary(), "check", "--config", path], check=False)


@pytest.mark.parametrize("name", [os.path.relpath(path, EXAMPLES) for path in FILES])
def test_every_example_is_accepted(examples, name):
    checked = check(examples / name)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_mistake_is_told_with_file_and_path(examples):
    path = examples / "cluster.json"
    text = path.read_text(encoding="utf-8")
    broken, count = re.subn(r'"fallback": "least_lagged"', '"fallback": "guess"', text)
    assert count == 1
    path.write_text(broken, encoding="utf-8")
    checked = check(path)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 1
    assert f"{path}: /branches/orders/replicas/fallback: " in said
    assert "least_lagged" in said, "it says what is allowed"


def test_the_table_of_examples_names_every_file():
    with open(os.path.join(EXAMPLES, "README.md"), encoding="utf-8") as text:
        table = text.read()
    for entry in os.listdir(EXAMPLES):
        if entry != "README.md":
            assert f"`{entry}`" in table or f"`{entry}/`" in table, entry
