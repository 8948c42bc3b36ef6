"""Debian's Prometheus over a configuration of the test's own, and its HTTP interface."""

import json
import os
import re
import signal
import urllib.error
import urllib.parse
import urllib.request

from harness.system import Daemon, free_port, wait_until, which

JOB = "pointsman"
INTERVAL = "250ms"


def without_waiting(rules):
    """The shipped rules, evaluated all the time and firing at first sight: a test has no ten minutes."""
    text = re.sub(r"^ +for: .*\n", "", rules, flags=re.M)
    assert text != rules
    return text


class Prometheus:
    def __init__(self, folder, targets, rules):
        self.folder = folder
        self.port = free_port()
        os.makedirs(folder)
        with open(os.path.join(folder, "rules.yml"), "w", encoding="utf-8") as text:
            text.write(without_waiting(rules))
        with open(os.path.join(folder, "prometheus.yml"), "w", encoding="utf-8") as text:
            json.dump({  # JSON is YAML
                "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
                "rule_files": ["rules.yml"],
                "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": targets}]}]}, text)
        self._daemon = None

    def start(self):
        self._daemon = Daemon("prometheus", [
            which("prometheus"), f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"],
            os.path.join(self.folder, "prometheus.log"), stop_signal=signal.SIGTERM)
        self._daemon.wait_until(lambda: self._get("/-/ready") is not None, "prometheus to be ready", deadline=30)
        return self

    def stop(self):
        if self._daemon and self._daemon.running():
            self._daemon.stop()

    def log(self):
        return self._daemon.log()

    def _get(self, path, **parameters):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = urllib.parse.urlencode(parameters, doseq=True).encode() if parameters else None
        with opener.open(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=20) as answer:
            return answer.read().decode()

    def api(self, path, **parameters):
        try:
            return json.loads(self._get(f"/api/v1/{path}", **parameters))["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None

    def rules(self):
        answer = json.loads(self._get("/api/v1/rules"))["data"]
        return [rule for group in answer["groups"] for rule in group["rules"]]

    def series(self, selector, start, end):
        return self.api("series", **{"match[]": selector, "start": start, "end": end})

    def now(self, expression):
        return self.api("query", query=expression)["result"]

    def range(self, expression, start, end, step=0.25):
        """[(labels, [values that are numbers])] of all series that have any."""
        found = self.api("query_range", query=expression, start=start, end=end, step=step)["result"]
        rows = [(entry["metric"], [float(value) for _, value in entry["values"] if value != "NaN"]) for entry in found]
        return [(labels, values) for labels, values in rows if values]

    def wait(self, expression, deadline=20):
        """Until the expression has a result; returns it."""
        return wait_until(lambda: self.now(expression), f"Prometheus to see {expression}", deadline)

    def wait_firing(self, alert, **labels):
        wanted = "".join(f', {key}="{value}"' for key, value in labels.items())
        return self.wait(f'ALERTS{{alertname="{alert}", alertstate="firing"{wanted}}}')
