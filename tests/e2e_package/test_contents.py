"""What is in the Debian package, without installing it."""

import gzip
import os
import re

import pytest

from harness.router import router_binary
from harness.system import run

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def unpacked(package, folder):
    """The package's files, and its control files under DEBIAN."""
    path = os.path.join(folder, "unpacked")
    run(["dpkg-deb", "-R", package, path])
    return path


@pytest.fixture(scope="module")
def control(package):
    fields = {}
    for line in run(["dpkg-deb", "-f", package]).stdout.splitlines():
        if not line.startswith(" ") and ": " in line:
            name, value = line.split(": ", 1)
            fields[name] = value
    return fields


def listing(package):
    """{path: (mode, owner)} of what the package puts onto a machine."""
    entries = {}
    for line in run(["dpkg-deb", "-c", package]).stdout.splitlines():
        mode, owner, _, _, _, path = line.split(None, 5)
        entries[path.removeprefix(".")] = (mode, owner)
    return entries


def test_the_control_file_says_what_apt_needs(control):
    assert control["Package"] == "pointsman"
    version = run([router_binary(), "--version"]).stdout.split()[1]
    assert control["Version"] == version
    assert control["Architecture"] == run(["dpkg", "--print-architecture"]).stdout.strip()
    needed = {part.split()[0] for part in control["Depends"].split(", ")}
    assert {"libc6", "libssl3", "libstdc++6", "libuv1", "libprometheus-cpp-core1.0", "systemd"} <= needed
    assert not [name for name in needed if name.endswith("-dev")]


def test_files_have_their_places_modes_and_owner(package):
    entries = listing(package)
    plain = "-rw-r--r--"
    for path, mode in {
        "/usr/bin/pointsman": "-rwxr-xr-x",
        "/usr/lib/systemd/system/pointsman.service": plain,
        "/usr/lib/sysusers.d/pointsman.conf": plain,
        "/etc/pointsman/pointsman.json": plain,
        "/etc/pointsman/branches.d/": "drwxr-xr-x",
        "/usr/share/pointsman/sql/01_probe_role.sql": plain,
        "/usr/share/pointsman/examples/minimal.json": plain,
        "/usr/share/pointsman/schema/pointsman.schema.json": plain,
        "/usr/share/doc/pointsman/copyright": plain,
        "/usr/share/doc/pointsman/configuration.md": plain,
        "/usr/share/man/man8/pointsman.8.gz": plain,
    }.items():
        assert entries[path] == (mode, "root/root"), path
    assert {owner for _, owner in entries.values()} == {"root/root"}
    assert {mode for mode, _ in entries.values()} == {plain, "-rwxr-xr-x", "drwxr-xr-x"}
    assert [path for path, (mode, _) in entries.items() if mode == "-rwxr-xr-x"] == ["/usr/bin/pointsman"]


def test_everything_under_etc_is_a_conffile(package, unpacked):
    with open(os.path.join(unpacked, "DEBIAN", "conffiles"), encoding="ascii") as text:
        conffiles = text.read().split()
    assert conffiles == sorted(path for path in listing(package) if path.startswith("/etc/") and not path.endswith("/"))


def test_maintainer_scripts_are_shell_without_mistakes(unpacked):
    for name in ("postinst", "prerm", "postrm"):
        path = os.path.join(unpacked, "DEBIAN", name)
        assert os.stat(path).st_mode & 0o777 == 0o755, name
        run(["dash", "-n", path])


def test_the_binary_is_stripped_and_says_nothing_of_where_it_was_built(unpacked):
    path = os.path.join(unpacked, "usr", "bin", "pointsman")
    assert ".symtab" not in run(["readelf", "--sections", "--wide", path]).stdout
    with open(path, "rb") as binary:
        assert _ROOT.encode() not in binary.read()


def test_the_default_configuration_is_valid_and_serves_nobody(unpacked, tmp_path):
    with open(os.path.join(unpacked, "etc", "pointsman", "pointsman.json"), encoding="utf-8") as text:
        written = text.read()
    (tmp_path / "branches.d").mkdir()
    path = tmp_path / "pointsman.json"
    path.write_text(written.replace("/var/lib/pointsman", str(tmp_path / "state")), encoding="utf-8")
    checked = run([router_binary(), "check", "--config", path])
    assert checked.stdout.endswith("ok, 0 branches\n")
    # What stands there as a comment is what an administrator turns on: it must be right, too.
    for name in ("server.crt", "server.key"):
        (tmp_path / name).write_text("", encoding="ascii")
    turned_on = re.sub(r"^( +)// (?=[\"{])", r"\1", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    turned_on = re.sub(r"^.*127\.0\.0\.1.*tls.*off.*\n", "", turned_on, flags=re.MULTILINE)
    path.write_text(turned_on, encoding="utf-8")
    said = run([router_binary(), "check", "--config", path], check=False).stderr
    assert {line.split(": ")[1] for line in said.splitlines()} <= {"/tls/certificate", "/tls/key", "/tls"}, said
    assert '"metrics"' in turned_on and '"port": 9433' in turned_on


def test_the_manual_page_names_every_command(unpacked):
    with gzip.open(os.path.join(unpacked, "usr", "share", "man", "man8", "pointsman.8.gz"), "rt", encoding="utf-8") as text:
        page = text.read().replace("\\-", "-")
    helped = run([router_binary(), "--help"]).stdout.split("Subcommands:")[1]
    commands = re.findall(r"^  (\w+) ", helped, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        assert re.search(rf"\b{command}\b", page), command
    assert "@" not in page
