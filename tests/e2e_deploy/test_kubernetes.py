"""deploy/kubernetes: rendered, held against the API's schemas, and its references followed. There is no cluster here: what an API server, a
scheduler and a network plugin make of it is not tested. test_kubernetes_pods.py runs what can be run."""

import itertools
import json
import os
import re

import yaml

from harness.system import run
from image import ROOT
from manifests import (KUBERNETES, TARGETS, branches, configurations, containers, matches, name_of, named_ports, pod_labels, pod_of, relaxed_json,
                       render, seconds, sources_of, yaml_files)

# Labels of pods that others make: their operators' documentation names them.
FOREIGN_PODS = [
    {"k8s-app": "kube-dns"},
    {"application": "patroni", "cluster-name": "orders"},
    {"cnpg.io/cluster": "orders", "cnpg.io/podRole": "instance"},
    *({"cnpg.io/poolerName": f"orders-pooler-{kind}-{letter}"} for kind in ("rw", "ro") for letter in "ab"),
]
FOREIGN_SERVICES = {"orders-r", "orders-rw", "orders", "x7k2m9q4w1ab-r", "x7k2m9q4w1ab-rw", "p3n8v5t2c6de-r", "p3n8v5t2c6de-rw",
                    "p3n8v5t2c6de-pooler-rw"}
# A pool by itself has its fellow in the overlay.
FOREIGN_TO_POOLS = {"app.kubernetes.io/name": "pointsman"}


def test_every_file_is_yaml_and_every_kustomization_is_tested():
    tested = set()
    for path in yaml_files():
        with open(path, encoding="utf-8") as text:
            documents = list(yaml.safe_load_all(text))
        assert documents and all(documents), path
        for document in documents:
            assert document["apiVersion"] and document["kind"], path
            if document["kind"] == "Kustomization":
                tested.add(os.path.relpath(os.path.dirname(path), KUBERNETES))
            # Kustomize warns of some deprecated fields only in `edit fix`.
            if document["kind"] in ("Kustomization", "Component"):
                deprecated = {"bases", "commonLabels", "patchesStrategicMerge", "patchesJson6902", "vars", "imageTags", "helmChartInflationGenerator"}
                assert not deprecated & set(document), path
    assert tested - set(TARGETS) == {"overlays/many-branches/router"}


def test_kustomize_renders_it_without_a_word(rendered, target):
    objects, said = rendered[target]
    assert said == "" and objects
    assert len({name_of(found) for found in objects}) == len(objects)


def validate(dependencies, objects):
    script = os.path.join(ROOT, "tests", "e2e_deploy", "validate_objects.mjs")
    validated = run(["node", script, os.path.join(dependencies, "node_modules")], input=json.dumps(objects))
    return json.loads(validated.stdout)


def test_the_api_knows_every_object_and_field(dependencies, objects):
    # CloudNativePG's schemas are in no package here.
    assert validate(dependencies, [found for found in objects if found["apiVersion"] != "postgresql.cnpg.io/v1"]) == []


def test_the_validation_finds_what_is_wrong(dependencies, rendered):
    wrong = json.loads(json.dumps(rendered["base"][0].of("Deployment")))
    wrong[0]["spec"]["replicas"] = "3"
    containers(wrong[0])[0]["securityContext"]["readOnlyRootFS"] = True
    assert validate(dependencies, wrong) == [
        'Deployment pointsman: /spec/replicas: type {"type":"integer"}',
        "Deployment pointsman: /spec/template/spec/containers/0/securityContext/readOnlyRootFS: the API has no such field"]


def test_the_service_monitor_finds_the_routers(dependencies, tmp_path):
    folder = tmp_path / "with-monitor"
    folder.mkdir()
    resources = os.path.relpath(os.path.realpath(KUBERNETES), os.path.realpath(folder))
    (folder / "kustomization.yaml").write_text(
        f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{resources}/base]\n"
        f"components: [{resources}/components/service-monitor]\n", encoding="utf-8")
    objects, said = render(dependencies, folder)
    assert said == "" and validate(dependencies, objects) == []
    (monitor,) = objects.of("ServiceMonitor")
    (service,) = [found for found in objects.of("Service") if matches(monitor["spec"]["selector"], found["metadata"]["labels"])]
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]


# ---- references -------------------------------------------------------------------------------------------------------


def known_pods(target, objects):
    more = [FOREIGN_TO_POOLS] if target.startswith("pools/") else []
    return [*(pod_labels(workload) for workload in objects.workloads()), *FOREIGN_PODS, *more]


def test_workloads_select_their_own_pods(objects):
    for workload in objects.workloads():
        assert matches(workload["spec"]["selector"], pod_labels(workload)), name_of(workload)


def test_services_lead_to_ports_that_exist(target, objects):
    for service in objects.of("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        ours = [workload for workload in objects.workloads() if matches(selector, pod_labels(workload))]
        assert ours or any(matches(selector, labels) for labels in known_pods(target, objects)), name_of(service)
        for port, workload in itertools.product(service["spec"]["ports"], ours):
            ports = named_ports(workload)
            assert port["targetPort"] in ports or port["targetPort"] in ports.values(), (name_of(service), port)


def test_budgets_and_network_policies_select_pods_that_exist(target, objects):
    pods = known_pods(target, objects)
    for budget in objects.of("PodDisruptionBudget"):
        assert any(matches(budget["spec"]["selector"], pod_labels(workload)) for workload in objects.workloads()), name_of(budget)
    for policy in objects.of("NetworkPolicy"):
        (workload,) = [found for found in objects.workloads() if matches(policy["spec"]["podSelector"], pod_labels(found))]
        for direction, other in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"][direction]:
                for peer in rule.get(other, []):
                    if "podSelector" in peer:
                        assert any(matches(peer["podSelector"], labels) for labels in pods), (name_of(policy), peer)
                for port in rule.get("ports", []):
                    assert direction == "egress" or port["port"] in named_ports(workload), (name_of(policy), port)


def test_probes_and_mounts_name_what_is_there(objects):
    for workload in objects.workloads():
        volumes = {volume["name"] for volume in pod_of(workload)["volumes"]}
        mounted = set()
        for container in containers(workload):
            mounted |= {mount["name"] for mount in container["volumeMounts"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for action in ("httpGet", "tcpSocket"):
                    port = container.get(probe, {}).get(action, {}).get("port")
                    assert port is None or port in named_ports(workload), (name_of(workload), probe)
        assert mounted == volumes, name_of(workload)


def test_config_maps_exist_and_secrets_are_documented(objects):
    with open(os.path.join(ROOT, "docs", "kubernetes.md"), encoding="utf-8") as text:
        documented = {name: set(re.findall(r"`([^`]+)`", keys))
                      for name, keys in re.findall(r"^\| `([\w-]+)` \| ([^|]*) \|", text.read(), re.MULTILINE)}
    for workload in objects.workloads():
        for _, kind, name, items in sources_of(workload):
            if kind == "configMap":
                assert objects.named("ConfigMap", name), (name_of(workload), name)
            else:
                assert {key for key, _ in items} <= documented.get(name, set()), (name_of(workload), name)


def test_service_accounts_roles_and_subjects_exist(objects):
    accounts = {(found["metadata"].get("namespace"), found["metadata"]["name"]) for found in objects.of("ServiceAccount")}
    for workload in objects.workloads():
        account = pod_of(workload).get("serviceAccountName")
        assert account is None or (workload["metadata"].get("namespace"), account) in accounts
    for binding in objects.of("RoleBinding"):
        namespace = binding["metadata"]["namespace"]
        (role,) = [found for found in objects.named("Role", binding["roleRef"]["name"]) if found["metadata"]["namespace"] == namespace]
        assert role["rules"] == [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}]
        for subject in binding["subjects"]:
            assert (subject["namespace"], subject["name"]) in accounts, name_of(binding)
    assert objects.of("ClusterRole", "ClusterRoleBinding") == []


def test_branches_name_services_and_hosts_that_exist(objects):
    services = {found["metadata"]["name"] for found in objects.of("Service", "Pooler")} | FOREIGN_SERVICES
    allowed = {found["metadata"]["namespace"] for found in objects.of("RoleBinding")}
    for name, branch in branches(objects).items():
        source = branch["discover"]["kubernetes"]
        assert {source["service"], source["leader_service"]} <= services, name
        assert source["namespace"] in allowed, name
        for pool in branch.get("pools", {}).values():
            for endpoint in pool["endpoints"]:
                *pod, service, namespace, svc = endpoint["host"].split(".")
                assert svc == "svc" and service in services, endpoint
                if pod:
                    (workload,) = objects.named("StatefulSet", pod[0].rsplit("-", 1)[0])
                    assert workload["spec"]["serviceName"] == service
                    assert int(pod[0].rsplit("-", 1)[1]) < workload["spec"]["replicas"]
                    assert workload["metadata"]["namespace"] == namespace
                    assert endpoint.get("port", 6432) in named_ports(workload).values()


def test_stateful_sets_have_a_headless_service_and_every_pod_is_an_endpoint(rendered):
    objects = rendered["overlays/patroni"][0]
    hosts = [endpoint["host"] for pool in branches(objects)["orders"]["pools"].values() for endpoint in pool["endpoints"]]
    for workload in objects.of("StatefulSet"):
        (service,) = objects.named("Service", workload["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        assert matches({"matchLabels": service["spec"]["selector"]}, pod_labels(workload))
        for number in range(workload["spec"]["replicas"]):
            assert f"{workload['metadata']['name']}-{number}.{service['metadata']['name']}.db.svc" in hosts


# ---- what is promised --------------------------------------------------------------------------------------------------


def test_pods_are_restricted(objects):
    """Pod Security Standard "restricted", and a root file system that cannot be written."""
    for workload in objects.workloads():
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False or objects.of("RoleBinding")
        for container in containers(workload):
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                    "capabilities": {"drop": ["ALL"]}}
            assert container["resources"]["limits"]["memory"] and "cpu" not in container["resources"]["limits"]
        assert not pod.get("hostNetwork") and not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_routers_are_replaced_one_by_one_and_never_scaled_by_load(objects):
    for router in objects.named("Deployment", "pointsman"):
        assert router["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        assert {rule["topologyKey"] for rule in pod_of(router)["topologySpreadConstraints"]} == {
            "topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        for rule in pod_of(router)["topologySpreadConstraints"]:
            assert matches(rule["labelSelector"], pod_labels(router))
        assert len(objects.named("PodDisruptionBudget", "pointsman")) == 1
    assert objects.of("HorizontalPodAutoscaler") == []


def test_a_pod_is_given_the_time_its_drain_takes(objects):
    for name, text in configurations(objects).items():
        config = relaxed_json(text)
        (router,) = objects.named("Deployment", name)
        needed = seconds(config["shutdown_delay"]) + seconds(config["drain_timeout"])
        assert needed + 30 <= pod_of(router)["terminationGracePeriodSeconds"]
        # Told one after the other, and with some time for the last to become idle.
        assert 0.5 * seconds(config["drain_timeout"]) <= seconds(config["drain_pace"]) <= 0.9 * seconds(config["drain_timeout"])
        # Until every node has heard that the pod is not ready: two failed probes, and the news travelling.
        probe = containers(router)[0]["readinessProbe"]
        assert seconds(config["shutdown_delay"]) >= probe["periodSeconds"] * probe["failureThreshold"] + 10
        assert probe["httpGet"]["path"] == "/readyz" and containers(router)[0]["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_every_listener_has_a_port_in_the_pod(objects):
    for name, text in configurations(objects).items():
        config = relaxed_json(text)
        (router,) = objects.named("Deployment", name)
        ports = named_ports(router)
        assert {listener["port"] for listener in config["listeners"]} | {config["metrics"]["port"]} <= set(ports.values())
        assert ports["metrics"] == config["metrics"]["port"]
        assert config["admin"]["address"] == "127.0.0.1", "writes are taken from inside the pod alone"


def test_pools_stand_on_nodes_of_their_own(rendered):
    for target in ("pools/primary", "pools/replica"):
        (pool,) = rendered[target][0].of("StatefulSet")
        rules = pod_of(pool)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert {rule["topologyKey"] for rule in rules} == {"kubernetes.io/hostname"}
        assert matches(rules[0]["labelSelector"], pod_labels(pool))
        assert rules[1]["labelSelector"]["matchLabels"] == {"application": "patroni", "cluster-name": "orders"}
    for pooler in rendered["overlays/cloudnativepg"][0].of("Pooler"):
        rules = pooler["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert matches(rules[0]["labelSelector"], {"cnpg.io/poolerName": pooler["metadata"]["name"]})
        assert rules[1]["labelSelector"]["matchLabels"] == {"cnpg.io/cluster": "orders", "cnpg.io/podRole": "instance"}
