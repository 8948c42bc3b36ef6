"""The container image's file system, laid out by deploy/container/root.sh as the Containerfile does it, and the router run in it as the image
says: without a container, but with its root, its user and, where wanted, the volumes that a pod has. Needs root."""

import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

from harness.router import router_binary
from harness.system import Daemon, clean_environment, run

_HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(_HERE))
CONTAINERFILE = os.path.join(ROOT, "deploy", "container", "Containerfile")


def instructions():
    """[(stage, instruction, words)] of the Containerfile, continued lines joined."""
    with open(CONTAINERFILE, encoding="utf-8") as text:
        joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text.read(), flags=re.MULTILINE))
    stage, found = -1, []
    for line in joined.splitlines():
        if line.strip():
            name, words = line.split(None, 1)
            stage += name == "FROM"
            found.append((stage, name, words.strip()))
    return found


def image_user():
    return [words for _, name, words in instructions() if name == "USER"][-1]


class Image:
    def __init__(self, folder):
        self.root = os.path.join(folder, "image")
        stripped = os.path.join(folder, "pointsman")
        run(["strip", "-o", stripped, router_binary()])
        run([os.path.join(ROOT, "deploy", "container", "root.sh"), stripped, self.root])

    def command(self, *arguments):
        return ["chroot", f"--userspec={image_user()}", self.root, "/usr/bin/pointsman", *arguments]

    def run(self, *arguments, **more):
        return run(self.command(*arguments), **more)

    def serve(self, log, config="/etc/pointsman/pointsman.json"):
        """Started, and ready by its own word."""
        daemon = Daemon("pointsman in its image", self.command("serve", "--config", config), log, stop_signal=signal.SIGTERM)
        daemon.wait_until(lambda: re.search(r'[" ]ready[" ]', daemon.log()), "the router to be ready")
        return daemon

    def mount_volume(self, where, files, mode=0o440):
        """Files as the kubelet lays out a projected volume: behind a symlink that is swapped as a whole, of root and the pod's group."""
        place = self.root + where
        shutil.rmtree(place, ignore_errors=True)
        data = os.path.join(place, "..2026_01_02")
        group = int(image_user().split(":")[1])
        for path, text in files.items():
            whole = os.path.join(data, path)
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            with open(whole, "w", encoding="utf-8") as out:
                out.write(text)
            os.chown(whole, 0, group)
            os.chmod(whole, mode)
        os.symlink("..2026_01_02", os.path.join(place, "..data"))
        for name in {path.split("/")[0] for path in files}:
            os.symlink(os.path.join("..data", name), os.path.join(place, name))

    def mount_empty_dir(self, where):
        """As an emptyDir with fsGroup."""
        place = self.root + where
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        os.chown(place, 0, int(image_user().split(":")[1]))
        os.chmod(place, 0o2777)


def http_status(url):
    """Asked from the calling thread, which may be in a network namespace of its own."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def lint(node_modules):
    linter = os.path.join(node_modules, "dockerfile-utils", "bin", "dockerfile-utils")
    return subprocess.run(["node", linter, "lint", CONTAINERFILE], capture_output=True, text=True, timeout=60, env=clean_environment(),
                          check=False)
