"""deploy/container: what can be said of the image without building it, and the router run in the file system that the image would have."""

import os
import re
import shlex
import signal

from harness.namespace import in_network_namespace
from harness.system import run
from image import ROOT, http_status, image_user, instructions, lint


def of(name, stage=None):
    return [words for at, instruction, words in instructions() if instruction == name and stage in (None, at)]


def test_a_linter_has_nothing_to_say(dependencies):
    linted = lint(os.path.join(dependencies, "node_modules"))
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_everything_that_is_copied_exists_and_everything_that_is_built_is_copied():
    copied = set()
    for words in of("COPY", stage=0):
        *sources, _ = shlex.split(words)
        for source in sources:
            assert os.path.exists(os.path.join(ROOT, source)), source
            copied.add(source)
    with open(os.path.join(ROOT, "CMakeLists.txt"), encoding="utf-8") as text:
        needed = {folder.split("/")[0] for folder in re.findall(r"add_subdirectory\(([\w/]+)\)", text.read())}
    assert needed - {"tests"} <= copied, needed - copied


def test_the_steps_are_shell_and_name_programs_of_the_repository():
    for step in of("RUN"):
        run(["sh", "-n", "-c", step])
        for script in re.findall(r"deploy/\S+\.sh", step):
            assert os.access(os.path.join(ROOT, script), os.X_OK), script


def test_the_last_stage_is_empty_but_for_what_was_built_and_runs_as_nobody_special():
    last = instructions()[-1][0]
    assert of("FROM") == ["docker.io/library/debian:12-slim AS build", "scratch"]
    assert of("RUN", stage=last) == [] and of("COPY", stage=last) == ["--from=build /image /"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image_user())
    assert of("ENTRYPOINT") == ['["/usr/bin/pointsman"]']
    assert of("CMD") == ['["serve", "--config", "/etc/pointsman/pointsman.json"]']


def test_the_image_is_small_and_has_no_shell(image):
    files = {}
    for folder, _, names in os.walk(image.root):
        for name in names:
            path = os.path.join(folder, name)
            files[os.path.relpath(path, image.root)] = os.lstat(path).st_size
    assert sum(files.values()) < 25 << 20, files
    programs = [path for path in files if path.startswith("usr/bin/")]
    assert programs == ["usr/bin/pointsman"]
    assert not [path for path in files if "/." in path]


def test_names_and_authorities_are_found_in_it(image):
    """DNS by glibc, the system's store by OpenSSL: a branch that needs both is accepted, and a name is looked up."""
    assert image.run("--version").stdout.startswith("pointsman ")
    image.mount_volume("/etc/pointsman", {"pointsman.json": """{
      "listeners": [{"name": "direct", "address": "127.0.0.1", "port": 5432, "mode": "direct", "tls": "off"}],
      "branches": {"orders": {"members": [{"name": "pg-0", "host": "localhost"}], "backend_tls": {"mode": "verify-full"}}}
    }"""})
    checked = image.run("check", "--config", "/etc/pointsman/pointsman.json")
    assert checked.stdout == "/etc/pointsman/pointsman.json: ok, 1 branch\n"


def test_it_serves_and_drains_in_it(image, tmp_path):
    image.mount_volume("/etc/pointsman", {"pointsman.json": """{
      "listeners": [{"name": "direct", "port": 5432, "mode": "direct", "tls": "off"}],
      "metrics": {"address": "127.0.0.1", "port": 9433},
      "branches": {}
    }"""})

    def body():
        router = image.serve(str(tmp_path / "log"))
        try:
            assert http_status("http://127.0.0.1:9433/readyz") == 200
            with open(f"/proc/{router.pid}/status", encoding="ascii") as status:
                assert "Uid:\t10001\t10001\t10001\t10001\n" in status.read()
            router.signal(signal.SIGTERM)
            assert router.wait() == 0
        finally:
            if router.running():
                router.kill()

    in_network_namespace(body)
