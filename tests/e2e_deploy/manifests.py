"""deploy/kubernetes: rendered by kustomize, and looked through."""

import glob
import json
import os
import re

import yaml

from harness.system import clean_environment, run
from image import ROOT

KUBERNETES = os.path.join(ROOT, "deploy", "kubernetes")
TARGETS = ["base", "overlays/cloudnativepg", "overlays/patroni", "overlays/many-branches", "pools/primary", "pools/replica"]
WORKLOADS = ("Deployment", "StatefulSet")


def kubectl(dependencies, *arguments, **more):
    # A kubeconfig of whoever runs the tests is not asked.
    return run([os.path.join(dependencies, "kubectl"), *arguments], env=clean_environment(KUBECONFIG="/nonexistent"), **more)


def render(dependencies, folder):
    """The objects, and what kustomize had to complain about."""
    rendered = kubectl(dependencies, "kustomize", folder)
    return Objects(yaml.safe_load_all(rendered.stdout)), rendered.stderr


def yaml_files():
    return sorted(glob.glob(os.path.join(KUBERNETES, "**", "*.yaml"), recursive=True))


class Objects(list):
    def of(self, *kinds):
        return [found for found in self if found["kind"] in kinds]

    def named(self, kind, name):
        return [found for found in self.of(kind) if found["metadata"]["name"] == name]

    def workloads(self):
        return self.of(*WORKLOADS)


def name_of(found):
    return f"{found['kind']} {found['metadata'].get('namespace', '-')}/{found['metadata']['name']}"


def pod_of(workload):
    return workload["spec"]["template"]["spec"]


def pod_labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def containers(workload):
    return pod_of(workload)["containers"]


def named_ports(workload):
    return {port["name"]: port["containerPort"] for container in containers(workload) for port in container.get("ports", [])}


def matches(selector, labels):
    """A LabelSelector of the kinds that are used here."""
    plain = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return plain and all(rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []))


def sources_of(workload):
    """[(volume, kind, name, [(key, path)] or None for all)] of ConfigMaps and Secrets."""
    found = []
    for volume in pod_of(workload).get("volumes", []):
        for source in volume.get("projected", {}).get("sources", []):
            for kind, content in source.items():
                items = content.get("items")
                found.append((volume["name"], kind, content["name"], [(item["key"], item["path"]) for item in items] if items else None))
    return found


def relaxed_json(text):
    """JSON with // comments, as Pointsman takes it."""
    return json.loads(re.sub(r'("(?:[^"\\]|\\.)*")|//[^\n]*', lambda found: found.group(1) or "", text))


def configurations(objects):
    """{name: text} of every pointsman.json in a ConfigMap."""
    return {found["metadata"]["name"]: found["data"]["pointsman.json"] for found in objects.of("ConfigMap") if "pointsman.json" in found["data"]}


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def branches(objects):
    """{name: branch} of the routers' configuration, defaults laid under them."""
    merged = {}
    for text in configurations(objects).values():
        config = relaxed_json(text)
        found = dict(config.get("branches", {}))
        if "branches_dir" in config:
            (files,) = objects.named("ConfigMap", "pointsman-branches")
            found.update({name.removesuffix(".json"): relaxed_json(text) for name, text in files["data"].items()})
        merged.update({name: {**config.get("defaults", {}), **branch} for name, branch in found.items()})
    return merged
