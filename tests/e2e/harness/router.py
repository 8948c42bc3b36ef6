"""The program under test: its configuration, its process, and what it says of itself."""

import copy
import json
import os
import re
import shutil
import signal
import urllib.error
import urllib.request

from harness.system import Daemon, clean_environment, free_port, run, wait_until
from harness.wire import Wire, open_direct_tls, open_tls, tls_context
from harness.world import BRANCH, BRANCH_18, PASSWORDS

# What a sanitizer, or the C++ library before it aborts, prints.
_ALARMS = re.compile(r"runtime error|Sanitizer|terminate called|Assertion|assertion failed|broken invariant|detected memory leaks",
                     re.IGNORECASE)
_SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def router_binary():
    path = os.environ.get("POINTSMAN_BINARY", "")
    if not path:
        raise RuntimeError("POINTSMAN_BINARY names the pointsman binary to test")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"POINTSMAN_BINARY={path} cannot be executed")
    return os.path.abspath(path)


class Secrets:
    """Files only their owner may read, as the router demands."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as text:
            text.write(content)
        return path

    def password(self, role):
        return self.file(f"{role}.pw", PASSWORDS[role] + "\n")

    def userlist(self, name, entries):
        return self.file(name, "".join(f'"{role}" "{secret}"\n' for role, secret in entries.items()))


def standard_config(world, folder, secrets, certificate, key):
    """The configuration most tests run on. Ports are free ones; every branch stands on the same real servers."""
    ports = {name: free_port() for name in
             ("direct", "pooled", "fixed", "fixed-replica", "fixed-plain", "proxied", "off")}
    exact = {"branch": BRANCH}

    def listener(name, mode, **more):
        return {"name": name, "address": "127.0.0.1", "port": ports[name], "mode": mode, **more}

    plain_branch = {"probe": world.probe(secrets), "backend_tls": world.backend_tls(), "auth": {"method": "scram", "verifiers": "lookup"},
                    "failover": {"hold_timeout": "1s"}}
    return {
        "listeners": [
            listener("direct", "direct"),
            listener("pooled", "pooled"),
            listener("fixed", "direct", **exact),
            listener("fixed-replica", "direct", **exact, target="replica"),
            listener("fixed-plain", "pooled", **exact, target="app", tls="optional"),
            listener("proxied", "direct", proxy_protocol="required", trusted_proxies=["127.0.0.1/32"]),
            listener("off", "direct", tls="off"),
        ],
        "tls": {"certificate": certificate, "key": key, "min_version": "1.2"},
        "admin": {"address": "127.0.0.1", "port": free_port(), "token_file": secrets.file("admin.token", "an-admin-token\n")},
        "metrics": {"address": "127.0.0.1", "port": free_port(), "detail": "all"},
        "workers": 2,
        "log": {"level": "info", "format": "text"},
        "limits": {"startup_timeout": "10s", "max_connections": 1000},
        "drain_timeout": "2s",
        "defaults": plain_branch,
        "branches": {
            BRANCH: {"labels": {"app": "orders"}, "members": world.members(), "pools": world.pools()},
            BRANCH_18: {"members": [{"name": "pg-18", "host": "127.0.0.1", "port": world.node_18.port}]},
        },
    }


class Metrics:
    """One scrape of /metrics."""

    def __init__(self, text):
        self.samples = {}
        self.text = text
        for line in text.splitlines():
            found = _SAMPLE.match(line)
            if found and not line.startswith("#"):
                labels = frozenset(_LABEL.findall(found.group(2) or ""))
                self.samples[found.group(1), labels] = float(found.group(3))

    def all(self, name, **labels):
        """Every sample of this name whose labels include these, as {labels: value}."""
        wanted = set(labels.items())
        return {labels_: value for (name_, labels_), value in self.samples.items() if name_ == name and wanted <= labels_}

    def sum(self, name, **labels):
        return sum(self.all(name, **labels).values())

    def has(self, name, **labels):
        return bool(self.all(name, **labels))

    def names(self):
        return {name for name, _ in self.samples}


class Router:
    def __init__(self, binary, folder, config, world, *, prefix=(), environment=None, kubernetes=False):
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self.folder = folder
        self.world = world
        self.config = copy.deepcopy(config)
        self.path = os.path.join(folder, "pointsman.json")
        self._kubernetes = kubernetes  # the configuration lies as a mounted ConfigMap does
        self._generation = 0
        self._binary = binary
        self._prefix = list(prefix)
        self._environment = environment or {}
        self._daemon = None
        self._checked = False
        self.write_config()

    # --- configuration ---

    def write_config(self, config=None):
        if config is not None:
            self.config = config
        if self._kubernetes:
            self._write_as_config_map()
            return
        temporary = self.path + ".new"
        with open(temporary, "w", encoding="utf-8") as text:
            json.dump(self.config, text, indent=2)
        os.rename(temporary, self.path)

    def _write_as_config_map(self):
        """pointsman.json -> ..data/pointsman.json, ..data -> ..N; an update makes a new ..N and swaps ..data by rename, as the kubelet does."""
        old, self._generation = self._generation, self._generation + 1
        version = os.path.join(self.folder, f"..{self._generation}")
        os.mkdir(version)
        with open(os.path.join(version, "pointsman.json"), "w", encoding="utf-8") as text:
            json.dump(self.config, text, indent=2)
        data = os.path.join(self.folder, "..data")
        os.symlink(f"..{self._generation}", data + "_tmp")
        os.rename(data + "_tmp", data)
        if old:
            shutil.rmtree(os.path.join(self.folder, f"..{old}"))
        else:
            os.symlink(os.path.join("..data", "pointsman.json"), self.path)

    def port(self, listener="direct"):
        return next(entry["port"] for entry in self.config["listeners"] if entry["name"] == listener)

    # --- process ---

    def start(self, *, ready=True):
        self._daemon = Daemon("pointsman", [*self._prefix, self._binary, "serve", "--config", self.path],
                              os.path.join(self.folder, "pointsman.log"), stop_signal=signal.SIGTERM,
                              env=clean_environment(**self._environment))
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self):
        self._daemon.wait_until(lambda: self.http("/readyz")[0] == 200, "/readyz to answer 200")

    @property
    def pid(self):
        return self._daemon.pid

    def running(self):
        return self._daemon.running()

    def signal(self, number):
        self._daemon.signal(number)

    def wait(self, deadline=20):
        return self._daemon.wait(deadline)

    def stop(self, deadline=30):
        """SIGTERM, and the promises that hold for every run: exit code 0, no sanitizer has spoken."""
        code = self._daemon.stop(deadline)
        self._checked = True
        assert code == 0, f"pointsman ended with {code} after SIGTERM:\n{self.log()[-4000:]}"
        self.assert_no_alarm()

    def finish(self):
        """Teardown: stops what still runs; a process that ended by itself must have been expected by the test."""
        if self._daemon is None:
            return
        if self.running():
            self.stop()
        else:
            self.assert_no_alarm()

    def assert_no_alarm(self):
        found = _ALARMS.search(self.log())
        assert not found, f"pointsman said {found.group(0)!r}:\n{self.log()[-8000:]}"

    def log(self):
        return self._daemon.log()

    def wait_log(self, pattern, deadline=10):
        return wait_until(lambda: re.search(pattern, self.log()), f"the log to say {pattern!r}", deadline)

    def command(self, *arguments, check=False, timeout=20):
        return run([self._binary, *arguments], check=check, timeout=timeout, env=clean_environment(**self._environment))

    # --- admin endpoint ---

    @property
    def admin_url(self):
        return f"http://127.0.0.1:{self.config['admin']['port']}"

    @property
    def metrics_url(self):
        return f"http://127.0.0.1:{self.config['metrics']['port']}"

    def http(self, path, *, base=None, method="GET", token=None, data=None):
        """(status, body). The admin endpoint is plain HTTP on loopback."""
        request = urllib.request.Request((base or self.admin_url) + path, method=method, data=data)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def api(self, path):
        status, body = self.http(path)
        assert status == 200, f"{path}: {status} {body}"
        return json.loads(body)

    def status(self, branch=BRANCH):
        return self.api(f"/api/status?branch={branch}")["branches"][branch]

    def sessions(self):
        """The list inside /api/sessions."""
        answer = self.api("/api/sessions")
        return answer["sessions"] if isinstance(answer, dict) else answer

    def metrics(self):
        status, body = self.http("/metrics")
        assert status == 200, body
        return Metrics(body)

    def reload(self, config=None):
        """SIGHUP, then waits until a reload has been counted; returns its outcome label."""
        if config is not None:
            self.write_config(config)
        return self.await_reload(lambda: self.signal(signal.SIGHUP))

    def await_reload(self, trigger, deadline=15):
        before = self.metrics().all("pointsman_config_reloads_total")
        trigger()

        def counted():
            now = self.metrics().all("pointsman_config_reloads_total")
            return [dict(labels)["outcome"] for labels, value in now.items() if value > before.get(labels, 0)]

        return wait_until(counted, "a reload to be counted", deadline)[0]

    def wait_member(self, name, state="ok", role=None, branch=BRANCH):
        def asked():
            member = next(entry for entry in self.status(branch)["members"] if entry["name"] == name)
            return member if member["state"] == state and role in (None, member["role"]) else None

        return wait_until(asked, f"member {name} of {branch} to be {state} {role or ''}")

    # --- connecting ---

    def tls(self, **options):
        return tls_context(self.world.authority.certificate, **options)

    def open(self, listener="direct", *, context=None, **options):
        """A raw connection with TLS up by SSLRequest."""
        return open_tls(self.port(listener), context or self.tls(), **options)

    def open_direct(self, listener="direct", *, alpn=("postgresql",), **options):
        return open_direct_tls(self.port(listener), self.tls(alpn=list(alpn) if alpn else None), **options)

    def open_plain(self, listener="fixed-plain", **options):
        return Wire(self.port(listener), **options)

    def login(self, user, password=None, *, listener="direct", context=None, wire=None, **options):
        """A raw session; `user` carries branch and target, the password is the role's unless given."""
        wire = wire or self.open(listener, context=context)
        try:
            return wire.login(user, PASSWORDS[role_of(user)] if password is None else password, **options)
        except BaseException:
            wire.close()
            raise

    def libpq(self, user, *, listener="direct", database=None, password=None, host="localhost", **more):
        """Connection parameters for libpq, as a dictionary."""
        parameters = {"host": host, "hostaddr": "127.0.0.1", "port": self.port(listener), "user": user,
                      "password": PASSWORDS[role_of(user)] if password is None else password,
                      "sslmode": "verify-full", "sslrootcert": self.world.authority.certificate, "connect_timeout": 20, **more}
        if database is not None:
            parameters["dbname"] = database
        return parameters

    def psql(self, sql, user, *, check=True, environment=None, arguments=(), **options):
        """One statement through psql, unaligned; returns the process, its stdout stripped."""
        parameters = self.libpq(user, **options)
        password = parameters.pop("password")
        parameters.setdefault("dbname", role_of(user))
        result = run(["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", conninfo(parameters), *arguments, "-c", sql],
                     env=dict(environment or clean_environment(), PGPASSWORD=password), check=check)
        result.stdout = result.stdout.strip()
        return result


def role_of(user):
    """The role in `role.branch|target`: what stands left of the last dot left of the separator."""
    name = user.split("|")[0].split("%7C")[0].split("%7c")[0]
    return name.rsplit(".", 1)[0] if "." in name else name


def conninfo(parameters):
    quoted = {key: str(value).replace("\\", "\\\\").replace("'", "\\'") for key, value in parameters.items()}
    return " ".join(f"{key}='{value}'" for key, value in quoted.items())
