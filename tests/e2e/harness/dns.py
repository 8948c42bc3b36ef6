"""A real DNS server (dnsmasq) on a loopback address of its own, and a way to make one process ask it.

getaddrinfo() knows no port but 53 and no server but /etc/resolv.conf's: the server takes port 53 of some 127.x.y.z that nobody else
uses, and the process gets a mount namespace in which resolv.conf names that address. Both need root.
"""

import os
import random
import signal
import socket

from harness.system import Daemon, run, wait_until, which

NAME = "members.pointsman.test"


def can_replace_resolv_conf():
    """Root, on a machine that lets it: some containers do not."""
    return os.geteuid() == 0 and run(["unshare", "--mount", "true"], check=False).returncode == 0


def free_loopback_address(*ports):
    """Some 127.x.y.z on which these ports are free, by UDP and TCP."""
    random_source = random.SystemRandom()
    for _ in range(100):
        address = "127." + ".".join(str(random_source.randrange(2, 250)) for _ in range(3))
        try:
            for port in ports:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind((address, port))
            return address
        except OSError:
            continue
    raise RuntimeError("no free loopback address")


class DnsServer:
    def __init__(self, folder):
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self.address = free_loopback_address(53)
        self._hosts = os.path.join(folder, "hosts")
        self._log = os.path.join(folder, "dnsmasq.log")
        self.resolv_conf = os.path.join(folder, "resolv.conf")
        with open(self.resolv_conf, "w", encoding="ascii") as text:
            text.write(f"nameserver {self.address}\noptions timeout:1 attempts:1\n")
        self._daemon = None
        self.say([])

    def say(self, addresses):
        """What NAME resolves to from now on; nothing at all makes the answer empty."""
        temporary = self._hosts + ".new"
        with open(temporary, "w", encoding="ascii") as text:
            # The other name keeps the domain alive: without an address NAME then exists no more.
            text.write(f"{self.address} alive.pointsman.test\n")
            text.writelines(f"{address} {NAME}\n" for address in addresses)
        os.chmod(temporary, 0o644)
        os.rename(temporary, self._hosts)
        if self._daemon is not None and self._daemon.running():
            self._daemon.signal(signal.SIGHUP)

    def start(self):
        self._daemon = Daemon("dnsmasq", [
            which("dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--addn-hosts={self._hosts}",
            f"--listen-address={self.address}", "--bind-interfaces", "--port=53", "--local=/pointsman.test/", "--local-ttl=0",
            "--pid-file=", "--log-queries"], self._log, stop_signal=signal.SIGTERM)
        self._daemon.wait_until(self._answers, "dnsmasq to listen")
        return self

    def _answers(self):
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.address, 53)) == 0

    def stop(self):
        if self._daemon is not None and self._daemon.running():
            self._daemon.stop()

    def queries(self):
        return self._daemon.log().count(f"query[A] {NAME}")

    def wait_asked(self, times=2):
        """Whoever asks has heard the present answer."""
        before = self.queries()
        wait_until(lambda: self.queries() >= before + times, "the name to be looked up")

    def prefix(self):
        """Puts a command into a mount namespace where this is the only name server."""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                'mount --bind "$0" /etc/resolv.conf && exec "$@"', self.resolv_conf]
