"""What a router goes through while Prometheus looks on: traffic on every route, lag, refusals, a hold, a lost primary, a failover, faults.

    x7k2m9q4w1ab   the servers of the run: members, PgBouncers beside them, dedicated pools
    orders         a cluster that is broken on purpose
    found          the servers of the run again, their members found by asking (a Patroni's words, said by this file)
"""

import contextlib
import http.server
import json
import os
import threading
import time

from harness.disposable import Disposable
from harness.router import Router, router_binary, standard_config
from harness.system import free_port, wait_until
from harness.wire import Closed, Refused, cancel
from harness.world import BRANCH

from prometheus import Prometheus

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RULES = os.path.join(ROOT, "deploy", "prometheus", "pointsman.rules.yml")
POOLS, BROKEN, FOUND = BRANCH, "orders", "found"
TOKEN = "an-admin-token"
HOLD_TIMEOUT = "2s"
GONE = (Refused, Closed, OSError)

# (user, listener): every route, again and again.
ROUTES = ((f"app.{POOLS}", "direct"), (f"app.{POOLS}|replica", "direct"), (f"app.{POOLS}", "pooled"), (f"app.{POOLS}|reads", "pooled"),
          (f"app.{POOLS}|app", "pooled"), (f"app.{BROKEN}", "direct"), (f"app.{BROKEN}|replica", "direct"), (f"app.{FOUND}", "direct"))


class Patroni:
    """GET /cluster, as a Patroni answers it."""

    def __init__(self, members):
        text = json.dumps({"members": members}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self):
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class Traffic:
    """One login after another on every route, each with a query; a session on each stays open. Errors are part of the play."""

    def __init__(self, router, routes=None, pause=0.15):
        self._router = router
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(user, listener)) for user, listener in routes or ROUTES]
        self.logins = 0

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, user, listener):
        kept = None
        while not self._stop.is_set():
            with contextlib.suppress(*GONE):
                session = self._router.login(user, listener=listener)
                session.query("SELECT repeat('x', 10000)")
                self.logins += 1
                if kept is None:
                    kept = session
                else:
                    session.terminate()
            with contextlib.suppress(*GONE):
                if kept is not None:
                    kept.query("SELECT 1")
            self._stop.wait(self._pause)
        if kept is not None:
            kept.wire.close()


class Stage:
    def __init__(self, world, folder, secrets, certificate):
        self.world = world
        self._stack = contextlib.ExitStack()
        self.disposable = Disposable(world, folder, 90)
        self._folder, self._secrets, self._certificate = folder, secrets, certificate
        self._metrics_port = free_port()

    def play(self):
        self.begun = time.time()
        with open(RULES, encoding="utf-8") as text:
            rules = text.read()
        # First of all: it begins to scrape five seconds after its start.
        self.prometheus = Prometheus(os.path.join(self._folder, "prometheus"), [f"127.0.0.1:{self._metrics_port}"], rules)
        self._stack.callback(self.prometheus.stop)
        self.prometheus.start()
        self._stack.callback(self.disposable.stop)
        self.disposable.start()
        nodes = self.world.cluster.nodes
        self._patroni = Patroni([{"name": node.name, "role": "leader" if node is self.world.cluster.primary else "replica", "state": "running",
                                  "host": "127.0.0.1", "port": node.port, "timeline": 1} for node in nodes])
        self._stack.callback(self._patroni.stop)
        self.router = Router(router_binary(), os.path.join(self._folder, "observed"), self._config(), self.world)
        self._stack.callback(self.router.finish)
        self.router.start()
        self.prometheus.wait("up == 1")
        with Traffic(self.router):
            self.prometheus.wait("sum(branch:pointsman_replicas_eligible:count == 2) == 6 and sum(branch:pointsman_primaries:count) == 3")
            self.prometheus.wait('absent(ALERTS{alertname!="PointsmanLoginLatency"})')
            self.settled = time.time()
            for act in (self.lag, self.refusals, self.hold, self.reloads, self.cancels, self.lost_source, self.lost_primary, self.second_writer,
                        self.lost_pool):
                started = time.monotonic()
                act()
                print(f"{act.__name__}: {time.monotonic() - started:.1f} s")
        self.ended = time.time()
        return self

    def stop(self):
        self._stack.close()

    def _config(self):
        config = standard_config(self.world, self._folder, self._secrets, *self._certificate)
        config["metrics"]["port"] = self._metrics_port
        config["defaults"]["probe"].update(interval="100ms", timeout="1s")
        config["defaults"]["failover"] = {"hold_timeout": HOLD_TIMEOUT, "dead_after": 3, "grace": "1s"}
        config["branches"] = {
            POOLS: {"labels": {"app": "shop"}, "roundtrip_metric": True, "members": self.world.members(), "pools": self.world.pools()},
            BROKEN: self.disposable.branch(labels={"app": "orders"}, roundtrip_metric=True,
                                           replicas={"max_lag": "1s", "lag_hard_cap": "60s", "samples_in": 1}),
            FOUND: {"discover": {"patroni": {"urls": [self._patroni.url], "interval": "300ms"}}},
        }
        return config

    # --- the acts ---

    def lag(self):
        """One replica stops replaying, then the other too."""
        first, second = self.disposable.named("pg-1"), self.disposable.named("pg-2")
        primary = self.disposable.named("pg-0")

        def write_until(seen):
            def wrote():
                primary.sql("SELECT pg_logical_emit_message(false, 'lag', repeat('x', 1000))")
                return self.prometheus.now(seen)

            wait_until(wrote, f"Prometheus to see {seen}")

        for node in (first, second):
            node.sql("SELECT pg_wal_replay_pause()")
            write_until(f'ALERTS{{alertname="PointsmanReplicaLagging", alertstate="firing", branch="{BROKEN}", member="{node.name}"}}')
        write_until(f'ALERTS{{alertname="PointsmanNoEligibleReplica", alertstate="firing", branch="{BROKEN}"}}')
        self.prometheus.wait(f'pointsman_routing_decisions_total{{branch="{BROKEN}", reason="fallback_least_lagged"}}')
        for node in (first, second):
            node.sql("SELECT pg_wal_replay_resume()")
        self.prometheus.wait(f'branch:pointsman_replicas_eligible:count{{branch="{BROKEN}"}} == 2')

    def refusals(self):
        def refused(user, password=None, listener="direct", **more):
            with contextlib.suppress(*GONE):
                self.router.login(user, password, listener=listener, **more).terminate()
                raise AssertionError(f"{user} was let in")

        for _ in range(5):
            refused("app.nosuchbranch", "x")
            refused(f"app.{POOLS}", "wrong")
            refused(f"app.{BROKEN}", "wrong")
            refused(f"app.{POOLS}|reads", listener="direct")
            refused(f"app.{POOLS}|nosuchpool", listener="pooled")
        with contextlib.suppress(*GONE), self.router.open_plain("direct") as wire:  # no TLS
            wire.login(f"app.{POOLS}", "x")
        with contextlib.suppress(*GONE), self.router.open_plain("direct") as wire:  # no TLS after having asked for it
            wire.send_raw(bytes.fromhex("0000000804d2162f"))
            wire.socket.recv(1)
            wire.send_raw(b"this is no handshake at all")
            wire.socket.recv(100)
        for reason in ("unknown_branch", "auth_failed", "wrong_port", "unknown_pool"):
            self.prometheus.wait(f'pointsman_routing_refusals_total{{reason="{reason}"}}')

    def hold(self):
        """A planned switch of nobody: logins wait, and go on."""
        status, body = self.router.http(f"/api/hold?branch={BROKEN}&timeout=20s", method="POST", token=TOKEN)
        assert status == 200, body
        self.prometheus.wait(f'pointsman_held_connections{{branch="{BROKEN}"}} > 0')
        self.prometheus.wait_firing("PointsmanHoldLong", branch=BROKEN)
        status, body = self.router.http(f"/api/release?branch={BROKEN}", method="POST", token=TOKEN)
        assert status == 200, body
        self.prometheus.wait(f'pointsman_hold_seconds_count{{branch="{BROKEN}"}} > 0')
        self.prometheus.wait(f'pointsman_branch_on_hold{{branch="{BROKEN}"}} == 0')

    def reloads(self):
        """One that fails, one with a bad branch, one that is right again."""
        good = self.router.config
        assert self.router.reload({**good, "no_such_key": 1}) == "failed"
        assert self.router.reload({**good, "branches": {**good["branches"], "bad": {"members": []}}}) == "partial"
        self.prometheus.wait_firing("PointsmanBranchesRejected")
        assert self.router.reload(good) == "ok"
        self.prometheus.wait_firing("PointsmanReloadFailed")

    def cancels(self):
        cancel(self.router.port("direct"), 4711, b"none", self.router.tls())
        self.prometheus.wait('pointsman_cancel_requests_total{outcome="unknown_key"} > 0')

    def lost_source(self):
        self._patroni.stop()
        self.prometheus.wait_firing("PointsmanDiscoveryDown", branch=FOUND)

    def lost_primary(self):
        """kill -9, logins that wait in vain, a promotion."""
        # With so many some are between the choice and the server's answer, and fail to connect before a probe has failed.
        with Traffic(self.router, [(f"app.{BROKEN}", "direct")] * 8, pause=0) as logins:
            wait_until(lambda: logins.logins >= 40, "logins to flow")
            self.disposable.named("pg-0").kill()
        self.prometheus.wait_firing("PointsmanNoPrimary", branch=BROKEN)
        self.prometheus.wait_firing("PointsmanHoldsExpiring", branch=BROKEN)
        self.disposable.named("pg-1").promote()
        self.prometheus.wait(f'pointsman_failovers_total{{branch="{BROKEN}"}} == 1')
        self.prometheus.wait(f'pointsman_routing_decisions_total{{branch="{BROKEN}", route="primary", member="pg-1"}}')

    def second_writer(self):
        """The former primary comes back as it was."""
        self.disposable.named("pg-0").start()
        self.router.wait_log(r"pg-0 takes writes on timeline 1 although timeline 2 exists")

    def lost_pool(self):
        """The dedicated pool of replicas goes, and whoever names it is refused."""
        self.world.reads.kill()
        self.prometheus.wait_firing("PointsmanPoolEndpointDown", branch=POOLS)
        self.prometheus.wait_firing("PointsmanHoldsExpiring", branch=POOLS)
