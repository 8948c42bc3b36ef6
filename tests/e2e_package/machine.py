"""A machine to install packages on: this one's file system under an overlay, in a mount namespace of its own. What is installed, changed or
removed there is gone with the namespace; nothing of the real machine is touched and no network is used. Needs root."""

import os
import signal
import sys
import tempfile

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(_HERE), "e2e"))

from harness.system import Daemon, clean_environment, run, wait_until  # noqa: E402

# /run of its own: systemd-nspawn keeps things there. `policy-rc.d` as in a container: maintainer scripts start nothing outside of systemd.
_MOUNTS = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/changed" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changed,workdir=$1/work" "$1/root"
mount -t tmpfs tmpfs /run
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
mount -t tmpfs tmpfs "$1/root/tmp"
: >"$1/ready"
exec sleep infinity
"""


def can_make_machines():
    """Root, where overlays may be mounted: some containers do not allow it."""
    if os.geteuid() != 0:
        return False
    trial = ('mount -t tmpfs tmpfs "$1" && mkdir "$1/u" "$1/w" "$1/r" && '
             'mount -t overlay overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" "$1/r"')
    with tempfile.TemporaryDirectory() as folder:
        return run(["unshare", "--mount", "--propagation", "private", "sh", "-c", trial, "sh", folder], check=False).returncode == 0


class Machine:
    def __init__(self, folder):
        os.makedirs(folder)
        self.folder = folder
        self._holder = Daemon("mount namespace", ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNTS, "sh", folder],
                              os.path.join(os.path.dirname(folder), os.path.basename(folder) + ".log"), stop_signal=signal.SIGKILL)
        self._holder.wait_until(lambda: self._inside(["test", "-e", f"{folder}/ready"], check=False).returncode == 0, "the mounts")

    def _enter(self):
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]

    def _inside(self, command, **more):
        return run([*self._enter(), *command], **more)

    @property
    def root(self):
        """The machine's file system as seen from its namespace."""
        return os.path.join(self.folder, "root")

    def command(self, *command, user=None):
        """The command line that runs `command` on the machine."""
        as_user = ["runuser", "-u", user, "--"] if user else []
        return [*self._enter(), "chroot", self.root, *as_user, *command]

    def run(self, *command, user=None, **more):
        return run(self.command(*command, user=user), **more)

    def read(self, path):
        return self.run("cat", path).stdout

    def write(self, path, text, mode=0o644):
        self.run("tee", path, input=text)
        self.run("chmod", f"{mode:o}", path)

    def mode(self, path):
        """Such as `root:pointsman 750`, or None when there is nothing."""
        asked = self.run("stat", "-c", "%U:%G %a", path, check=False)
        return asked.stdout.strip() if asked.returncode == 0 else None

    def bring(self, path):
        """Copies a file of the real machine to /tmp of this one; returns where it lies."""
        place = f"/tmp/{os.path.basename(path)}"
        self._inside(["cp", path, self.root + place])
        return place

    def boot(self, script, deadline=60):
        """Starts the machine's own systemd in a container, runs the shell script as its only job and powers off. What the script has
        said, or None where this machine cannot boot containers."""
        self.write("/root/job.sh", f"exec >/root/job.out 2>&1\n{script}\n: >/root/job.done\nsystemctl --no-block poweroff -ff\n")
        self.write("/etc/systemd/system/job.service", "[Service]\nType=oneshot\nExecStart=/bin/bash /root/job.sh\n")
        self.write("/etc/systemd/system/job.target",
                   "[Unit]\nRequires=basic.target job.service\nAfter=basic.target\nAllowIsolate=yes\n")
        # The payload must have the hierarchy of control groups that this machine has.
        unified = "1" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "0"
        # A container brings its own /dev, /proc, /run and /tmp.
        bare = 'umount -R "$1/dev" "$1/proc" "$1/run" "$1/tmp" && shift && exec "$@"'
        self._inside(["unshare", "--mount", "--propagation", "private", "sh", "-c", bare, "sh", self.root,
                      "systemd-nspawn", f"--directory={self.root}", "--quiet", "--register=no", "--keep-unit", "--private-network", "--boot",
                      "systemd.unit=job.target"], check=False, timeout=deadline,
                     env=clean_environment(SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=unified))
        if self.run("test", "-e", "/root/job.out", check=False).returncode != 0:
            return None
        said = self.read("/root/job.out")
        assert self.run("test", "-e", "/root/job.done", check=False).returncode == 0, f"the job did not come to its end:\n{said}"
        return said

    def stop(self):
        self._holder.kill()
        wait_until(lambda: not os.listdir(self.folder), "the mounts to be gone")
        os.rmdir(self.folder)
