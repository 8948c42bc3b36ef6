"""deploy/kubernetes: the configurations run as a pod would run them, in the image's file system, as its user, with the volumes laid out as the
kubelet does it; and the pools' by Debian's PgBouncer."""

import configparser
import json
import os
import re
import shutil
import signal
import socket
import tempfile

import pytest

from harness.certs import Authority
from harness.namespace import in_network_namespace
from harness.system import Daemon, free_port, give_to_server_user, is_listening, which
from image import http_status
from manifests import TARGETS, Objects, branches, configurations, containers, pod_of, relaxed_json, seconds, sources_of

VERIFIER = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(str(tmp_path_factory.mktemp("authority")))
    made.server_certificate, made.server_key = made.issue("server")
    return made


def content_of(key, authority):
    """What stands under a key of a Secret."""
    files = {"tls.crt": authority.server_certificate, "tls.key": authority.server_key}
    if key in files or key.endswith("ca.crt"):
        with open(files.get(key, authority.certificate), encoding="ascii") as text:
            return text.read()
    return {"password": "a-secret", "probe.pw": "a-secret\n", "fleet.key": "f" * 44 + "\n", "userlist.txt": f'"pointsman" "{VERIFIER}"\n'}[key]


def mount(image, objects, workload, authority):
    """The workload's volumes in the image's file system."""
    files = {}
    for volume, kind, name, items in sources_of(workload):
        inside = files.setdefault(volume, {})
        if kind == "secret":
            inside.update({path: content_of(key, authority) for key, path in items})
        else:
            (found,) = objects.named("ConfigMap", name)
            inside.update(found["data"])
    places = {entry["name"]: entry["mountPath"] for entry in containers(workload)[0]["volumeMounts"]}
    for volume in pod_of(workload)["volumes"]:
        if "emptyDir" in volume:
            image.mount_empty_dir(places[volume["name"]])
        else:
            assert volume["projected"]["defaultMode"] == 0o440
            image.mount_volume(places[volume["name"]], files[volume["name"]])


@pytest.mark.parametrize("target", [target for target in TARGETS if not target.startswith("pools/")], indirect=True)
def test_the_configuration_is_accepted_in_the_pod(image, objects, authority):
    (router,) = objects.named("Deployment", "pointsman")
    assert pod_of(router)["securityContext"]["runAsUser"] == 10001
    mount(image, objects, router, authority)
    command = containers(router)[0]["args"]
    checked = image.run("check", *command[1:])
    assert re.fullmatch(r"/etc/pointsman/pointsman\.json: ok, \d branch(es)?\n", checked.stdout)
    assert checked.stderr == ""
    assert f"ok, {len(branches(objects))} branch" in checked.stdout


def test_the_pod_answers_its_probes_and_keeps_its_listeners_while_it_is_taken_out(image, rendered, authority, tmp_path):
    objects = Objects(json.loads(json.dumps(rendered["overlays/patroni"][0])))
    (config,) = objects.named("ConfigMap", "pointsman")
    config["data"]["pointsman.json"] = config["data"]["pointsman.json"].replace('"shutdown_delay": "15s"', '"shutdown_delay": "1s"')
    (router,) = objects.named("Deployment", "pointsman")
    mount(image, objects, router, authority)

    def answer(path):
        return http_status(f"http://127.0.0.1:9433{path}")

    def body():
        pod = image.serve(str(tmp_path / "log"))
        try:
            assert (answer("/readyz"), answer("/healthz")) == (200, 200)
            for port in (5432, 6432, 7432, 7433):
                assert is_listening(port), port
            pod.signal(signal.SIGTERM)
            pod.wait_until(lambda: answer("/readyz") == 503, "the pod not to be ready")
            assert answer("/healthz") == 200
            with socket.create_connection(("127.0.0.1", 5432), timeout=5) as client:
                client.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))  # SSLRequest
                assert client.recv(1) == b"S", "still taken while the news travels"
            assert pod.wait() == 0
        finally:
            if pod.running():
                pod.kill()

    in_network_namespace(body)


@pytest.fixture
def pgbouncer_folder():
    """Not pytest's: PgBouncer runs as another user."""
    path = tempfile.mkdtemp(prefix="pointsman-pool-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("target", ["pools/primary", "pools/replica"], indirect=True)
def test_pgbouncer_starts_with_the_pools_configuration(objects, authority, pgbouncer_folder):
    """Debian's PgBouncer, with the files where the test can put them: it reads every key and loads the certificates before it listens."""
    (config,) = objects.of("ConfigMap")
    (pool,) = objects.workloads()
    port = free_port()
    text = config["data"]["pgbouncer.ini"].replace("/etc/pgbouncer", pgbouncer_folder)
    text = text.replace("listen_port = 6432", f"listen_port = {port}").replace("listen_addr = *", "listen_addr = 127.0.0.1")
    files = {"pgbouncer.ini": text}
    for _, kind, _, items in sources_of(pool):
        files.update({path: content_of(key, authority) for key, path in items} if kind == "secret" else {})
    for path, content in files.items():
        whole = os.path.join(pgbouncer_folder, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(os.open(whole, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as out:
            out.write(content)
        give_to_server_user(whole)
    daemon = Daemon("pgbouncer", [which("pgbouncer"), os.path.join(pgbouncer_folder, "pgbouncer.ini")], os.path.join(pgbouncer_folder, "log"),
                    stop_signal=signal.SIGQUIT, as_server=True)
    try:
        daemon.wait_until(lambda: is_listening(port), "PgBouncer to listen")
        assert not re.search(r"ERROR|FATAL|WARNING|unrecognized", daemon.log()), daemon.log()
    finally:
        daemon.kill()


def test_pools_reach_the_listener_that_fixes_their_target(rendered):
    objects = rendered["overlays/patroni"][0]
    (config,) = configurations(objects).values()
    listeners = {listener["port"]: listener for listener in relaxed_json(config)["listeners"]}
    branch = branches(objects)["orders"]
    for pool, target in (("app", "primary"), ("reads", "replica")):
        (found,) = [found for found in objects.of("ConfigMap") if found["metadata"]["name"].startswith(f"orders-{pool}-")]
        ini = configparser.ConfigParser(delimiters="=")
        ini.read_string(found["data"]["pgbouncer.ini"])
        host, port = re.fullmatch(r"host=(\S+) port=(\d+)", ini["databases"]["*"]).groups()
        (service,) = objects.named("Service", host.removesuffix(".db.svc"))
        assert int(port) in {entry["port"] for entry in service["spec"]["ports"]}
        assert (listeners[int(port)]["branch"], listeners[int(port)]["target"]) == ("orders", target)
        assert branch["pools"][pool]["target"] == target
        # A server login that Pointsman holds is not given up before Pointsman gives up.
        assert int(ini["pgbouncer"]["server_connect_timeout"]) > seconds(branch["failover"]["hold_timeout"])
