"""A FAKE Kubernetes API server: EndpointSlices of one namespace, over TLS, as list and watch.

It is no Kubernetes. It answers as the API reference and "API concepts" say: a list has a resourceVersion, a watch goes on from one, a
version that is too old is 410 (as HTTP status, or as an ERROR event), bookmarks carry nothing but a newer version, a request without
the right token is 401. What it is asked is written down.
"""

import http.server
import json
import select
import ssl
import threading
import time
import urllib.parse

NAMESPACE = "db"


def slice_of(name, service, endpoints, *, ports=None, address_type="IPv4"):
    """An EndpointSlice as the endpoint slice controller writes it; `endpoints` as endpoint() makes them."""
    return {
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "generation": 3,
                     "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                     "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service, "uid": "1", "controller": True}],
                     "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:endpoints": {}}}]},
        "addressType": address_type, "endpoints": endpoints, "ports": ports,
    }


def endpoint(pod, address, *, zone=None, ready=True, serving=None, terminating=False):
    made = {"addresses": [address], "nodeName": "node-1",
            "conditions": {"ready": ready, "serving": ready if serving is None else serving, "terminating": terminating},
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod, "uid": f"uid-{pod}"}}
    if zone:
        made["zone"] = zone
    return made


class FakeKubernetes:
    def __init__(self, certificate, key, token):
        self.token = token
        self.requests = []  # (path, query as dictionary)
        self._lock = threading.Condition()
        self._version = 1000
        self._slices = {}
        self._events = []  # (version, line)
        self._oldest = 0   # a watch from before it is 410
        self._streams = set()
        self._broken = None
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *unused):
                pass

            def do_GET(self):
                fake._answer(self)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                connection, address = super().get_request()
                connection.settimeout(20)
                return fake._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, *unused):
                pass  # a client that goes away in the middle is what some tests are about

        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._tls.set_alpn_protocols(["h2", "http/1.1"])
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self.drop_connections()

    # --- the cluster ---

    def put(self, *slices):
        for one in slices:
            with self._lock:
                self._version += 1
                one["metadata"]["resourceVersion"] = str(self._version)
                name = one["metadata"]["name"]
                self._tell("MODIFIED" if name in self._slices else "ADDED", one)
                self._slices[name] = one

    def delete(self, name):
        with self._lock:
            self._version += 1
            gone = self._slices.pop(name)
            gone["metadata"]["resourceVersion"] = str(self._version)
            self._tell("DELETED", gone)

    def bookmark(self):
        with self._lock:
            self._version += 1
            self._tell("BOOKMARK", {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                                    "metadata": {"resourceVersion": str(self._version), "creationTimestamp": None}})
            return str(self._version)

    def _tell(self, kind, thing):
        self._events.append((self._version, json.dumps({"type": kind, "object": thing}) + "\n"))
        self._lock.notify_all()

    # --- faults ---

    def forget_history(self):
        """etcd has compacted: no watch can go on from here, only from the next version on."""
        with self._lock:
            self._version += 10
            self._oldest = self._version
            self._events = []

    def say_to_watches(self, raw):
        """Bytes inside the stream of every watch under way."""
        with self._lock:
            for stream in self._streams:
                stream.extra.append(raw)
            self._lock.notify_all()

    def drop_connections(self):
        """Ends every watch in the middle, without the last chunk."""
        with self._lock:
            for stream in self._streams:
                stream.dropped = True
            self._lock.notify_all()

    def refuse(self, status):
        """Every request from now on gets this status; None: as usual."""
        with self._lock:
            self._broken = status
            self._lock.notify_all()

    # --- being asked ---

    def asked(self, *, watch):
        return [query for _, query in self.requests if ("watch" in query) == watch]

    def watching(self):
        return len(self._streams)

    class _Stream:
        def __init__(self):
            self.extra = []
            self.dropped = False

    def _status(self, handler, code, reason, message):
        body = json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                           "reason": reason, "code": code}).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _answer(self, handler):
        parts = urllib.parse.urlsplit(handler.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        self.requests.append((parts.path, query))
        if self._broken:
            return self._status(handler, self._broken, "InternalError", "out of order on purpose")
        if handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self._status(handler, 401, "Unauthorized", "Unauthorized")
        selector = query.get("labelSelector", "")
        prefix, suffix = "kubernetes.io/service-name in (", ")"
        if parts.path != f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices" or not (
                selector.startswith(prefix) and selector.endswith(suffix)):
            return self._status(handler, 404, "NotFound", "the server could not find the requested resource")
        services = set(selector[len(prefix):-len(suffix)].split(","))
        if "watch" in query:
            return self._watch(handler, query)
        with self._lock:
            items = [one for one in self._slices.values() if one["metadata"]["labels"]["kubernetes.io/service-name"] in services]
            body = json.dumps({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                               "metadata": {"resourceVersion": str(self._version)}, "items": items}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _watch(self, handler, query):
        at = int(query["resourceVersion"])
        if at < self._oldest:
            return self._status(handler, 410, "Expired", f"too old resource version: {at} ({self._oldest})")
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        stream = self._Stream()
        end = time.monotonic() + int(query["timeoutSeconds"])
        handler.close_connection = True
        try:
            with self._lock:
                self._streams.add(stream)
            while time.monotonic() < end:
                with self._lock:
                    news = [(version, line) for version, line in self._events if version > at]
                    extra, stream.extra = stream.extra, []
                    if stream.dropped:
                        return None
                    if not news and not extra:
                        self._lock.wait(0.1)
                if not news and not extra:
                    if self._is_gone(handler.connection):
                        return None
                    continue
                for version, line in news:
                    at = version
                    # In two chunks: a chunk's end is no event's end.
                    self._chunk(handler, line[:len(line) // 2])
                    self._chunk(handler, line[len(line) // 2:])
                for raw in extra:
                    self._chunk(handler, raw)
            handler.wfile.write(b"0\r\n\r\n")
        finally:
            with self._lock:
                self._streams.discard(stream)
        return None

    @staticmethod
    def _is_gone(connection):
        """A client says nothing behind its request: what can be read is its end."""
        if not select.select([connection], [], [], 0)[0]:
            return False
        try:
            return connection.recv(1) == b""
        except OSError:
            return True

    @staticmethod
    def _chunk(handler, text):
        handler.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        handler.wfile.flush()
