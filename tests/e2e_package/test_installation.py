"""The package on a machine: installed, upgraded, removed, and run by a real systemd in a container."""

import re

import pytest

from harness.system import run

UNIT = "/usr/lib/systemd/system/pointsman.service"


def test_an_installation_is_complete_and_starts_nothing(installed):
    assert "systemctl enable --now pointsman" in installed.installation
    account = installed.run("getent", "passwd", "pointsman").stdout.strip().split(":")
    assert account[5:] == ["/var/lib/pointsman", "/usr/sbin/nologin"]
    assert installed.mode("/etc/pointsman") == "root:pointsman 750"
    assert installed.mode("/etc/pointsman/branches.d") == "root:pointsman 750"
    assert installed.mode("/etc/pointsman/pointsman.json") == "root:root 644"
    assert installed.mode("/var/lib/pointsman") == "pointsman:pointsman 700"
    assert installed.mode("/etc/systemd/system/multi-user.target.wants/pointsman.service") is None
    checked = installed.run("pointsman", "check", "--config", "/etc/pointsman/pointsman.json", user="pointsman")
    assert checked.stdout == "/etc/pointsman/pointsman.json: ok, 0 branches\n"
    assert installed.run("dpkg", "--verify", "pointsman").stdout == ""


def test_an_administrators_file_and_modes_survive_an_upgrade(installed, package):
    installed.write("/etc/pointsman/pointsman.json", '{"x-mine": true}\n')
    installed.run("dpkg-statoverride", "--update", "--add", "root", "root", "0700", "/etc/pointsman")
    installed.run("dpkg", "--force-confdef", "-i", installed.bring(package))
    assert installed.read("/etc/pointsman/pointsman.json") == '{"x-mine": true}\n'
    assert installed.mode("/etc/pointsman") == "root:root 700"


def test_a_purge_leaves_only_what_is_the_administrators(installed):
    installed.write("/etc/pointsman/branches.d/orders.json", "{}\n")
    installed.write("/var/lib/pointsman/orders.identity.json", "{}\n")
    installed.run("dpkg", "--remove", "pointsman")
    assert installed.mode("/etc/pointsman/pointsman.json") == "root:root 644"
    assert installed.mode("/var/lib/pointsman/orders.identity.json") is not None
    installed.run("dpkg", "--purge", "pointsman")
    assert installed.mode("/etc/pointsman/pointsman.json") is None
    assert installed.mode("/var/lib/pointsman") is None
    assert installed.mode("/etc/pointsman/branches.d/orders.json") is not None
    installed.run("rm", "/etc/pointsman/branches.d/orders.json")
    left = installed.run("find", "/etc", "/var/lib", "/usr/share/doc", "/usr/lib/systemd", "/usr/lib/sysusers.d", "-xdev", "-name", "*pointsman*",
                         "-not", "-path", "*/mlocate/*").stdout.split()
    assert left == ["/etc/pointsman"], left


def test_the_unit_is_sound_and_sandboxed(installed):
    verified = installed.run("systemd-analyze", "verify", UNIT, check=False)
    assert verified.returncode == 0 and "pointsman" not in verified.stderr, verified.stderr
    # Exit status 1 above a total exposure of 2.0 of 10.
    installed.run("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", "pointsman.service")


SYSTEMD_JOB = r"""
set -x
systemctl is-enabled pointsman
systemctl enable --now pointsman
systemctl show -p ActiveState -p SubState -p StatusText pointsman | sed 's/^/started: /'
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$(systemctl show -P MainPID pointsman)/status | sed 's/^/process: /'
systemctl reload pointsman
journalctl -u pointsman --sync --no-pager >/dev/null
timeout 20 sh -c 'until journalctl -u pointsman --no-pager | grep -q "configuration reloaded"; do sleep 0.05; done'
systemctl show -p ActiveState -p StatusText pointsman | sed 's/^/reloaded: /'
pointsman status | sed 's/^/asked: /'
systemctl stop pointsman
systemctl show -p ActiveState -p Result pointsman | sed 's/^/stopped: /'

# A drain that takes longer than TimeoutStopSec is granted, for the process says how long it needs.
sed -i '/"listeners"/i "shutdown_delay": "3s",' /etc/pointsman/pointsman.json
mkdir /etc/systemd/system/pointsman.service.d
printf '[Service]\nTimeoutStopSec=1s\n' >/etc/systemd/system/pointsman.service.d/impatient.conf
systemctl daemon-reload
systemctl start pointsman
systemctl stop pointsman
systemctl show -p ActiveState -p Result -p ExecMainStatus pointsman | sed 's/^/drained: /'

# A configuration that cannot be used: the start fails, and says why.
echo '{' >/etc/pointsman/pointsman.json
systemctl start pointsman; echo "broken: $?"
journalctl -u pointsman --no-pager -n 20 | sed 's/^/log: /'
"""


def test_a_real_systemd_starts_reloads_and_drains_it(installed):
    said = installed.boot(SYSTEMD_JOB)
    if said is None:
        pytest.skip("systemd-nspawn cannot boot a container on this machine")

    def told(what):
        return re.findall(rf"^{what}: (.*)$", said, re.MULTILINE)

    assert said.startswith("+ systemctl is-enabled pointsman\ndisabled\n"), said
    assert set(told("started")) == {"ActiveState=active", "SubState=running", "StatusText=serving 0 branches on 2 listeners"}, said
    process = dict(line.split(":", 1) for line in told("process"))
    assert process["Uid"].split()[0] != "0"
    assert {int(process[name], 16) for name in ("CapEff", "CapBnd")} == {1 << 10}, "CAP_NET_BIND_SERVICE alone"
    assert (process["NoNewPrivs"].strip(), process["Seccomp"].strip()) == ("1", "2")
    assert set(told("reloaded")) == {"ActiveState=active", "StatusText=serving 0 branches on 2 listeners"}, said
    assert told("asked")[0].startswith("pointsman "), said
    assert set(told("stopped")) == {"ActiveState=inactive", "Result=success"}, said
    assert set(told("drained")) == {"ActiveState=inactive", "Result=success", "ExecMainStatus=0"}, said
    assert told("broken") == ["1"], said
    assert any("pointsman.json" in line for line in told("log")), said


def test_an_upgrade_restarts_what_runs_and_a_removal_stops_it(installed, package):
    place = installed.bring(package)
    installed.run("cp", place, "/root/pointsman.deb")
    said = installed.boot(r"""
systemctl enable --now pointsman
before=$(systemctl show -P MainPID pointsman)
dpkg -i /root/pointsman.deb >/dev/null
after=$(systemctl show -P MainPID pointsman)
echo "upgraded: $(systemctl is-active pointsman) $(systemctl is-enabled pointsman) $([ "$before" != "$after" ] && echo anew)"
dpkg --remove pointsman >/dev/null
echo "removed: $(systemctl is-active pointsman) $(pgrep -x pointsman)"
dpkg -i /root/pointsman.deb >/dev/null
echo "again: $(systemctl is-active pointsman) $(systemctl is-enabled pointsman)"
""")
    if said is None:
        pytest.skip("systemd-nspawn cannot boot a container on this machine")
    assert "upgraded: active enabled anew\n" in said, said
    assert "removed: inactive \n" in said, said
    assert "again: inactive enabled\n" in said, said


def test_nothing_of_it_has_touched_this_machine():
    assert run(["dpkg-query", "-W", "-f", "${db:Status-Status}", "pointsman"], check=False).stdout in ("", "not-installed")
    assert run(["getent", "passwd", "pointsman"], check=False).returncode != 0
