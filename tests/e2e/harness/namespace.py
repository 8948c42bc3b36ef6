"""A network namespace of the test's own: the servers, the router and the clients of one test live in it, and packets to an address can be
dropped without a word. Needs root."""

import ctypes
import os
import threading

from harness.system import run

_CLONE_NEWNET = 0x40000000


def in_network_namespace(body, deadline=110):
    """Runs `body` in a thread that has left the machine's network: what it starts, threads and processes, is in the new one too."""
    outcome = []

    def enter():
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            for command in ("link set lo up", "link add hole type veth peer name bottom", "link set hole up", "link set bottom up"):
                run(["ip", *command.split()])
            body()
        except BaseException as error:  # noqa: B902  the test's own thread raises it again
            outcome.append(error)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join(deadline)
    assert not thread.is_alive(), "the test in its namespace did not end"
    if outcome:
        raise outcome[0]


def add_address(address):
    run(["ip", "addr", "add", f"{address}/32", "dev", "lo"])


def black_hole(address):
    """From now on packets to the address vanish: a route into a cable that nobody reads, with a neighbour that does not exist."""
    run(["ip", "addr", "del", f"{address}/32", "dev", "lo"])
    run(["ip", "route", "add", f"{address}/32", "dev", "hole"])
    run(["ip", "neigh", "add", address, "lladdr", "02:00:00:00:00:99", "dev", "hole", "nud", "permanent"])


def can_make_namespaces():
    """Root, on a machine that lets it: some containers do not."""
    return os.geteuid() == 0 and run(["unshare", "--net", "ip", "link", "add", "hole", "type", "veth", "peer", "name", "bottom"],
                                     check=False).returncode == 0
