"""A PostgreSQL client that speaks raw bytes, so that a test can say exactly what goes over the wire and when.

TLS runs over memory BIOs: the test decides how the encrypted bytes are cut, and may close half a connection.
"""

import collections
import hashlib
import socket
import ssl
import struct
import time

from harness.scram import Exchange
from harness.system import DEADLINE

PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = 3 << 16 | 2
PROTOCOL_GREASE = 3 << 16 | 9999
PROTOCOL_2_0 = 2 << 16
SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)
CANCEL_CODE = 80877102

Message = collections.namedtuple("Message", "type body")


class Closed(Exception):
    """The peer closed the connection (or reset it) where a message was expected."""


class Refused(Exception):
    """An ErrorResponse came instead of what was asked for. Fields by their one-letter code."""

    def __init__(self, fields):
        super().__init__(str(fields))
        self.fields = fields
        self.severity = fields.get("V", fields.get("S"))
        self.sqlstate = fields.get("C")
        self.message = fields.get("M", "")
        self.detail = fields.get("D", "")
        self.hint = fields.get("H", "")
        self.reason = fields.get("R", "")


def error_fields(body):
    assert body.endswith(b"\0"), "an ErrorResponse ends with a zero byte"
    fields = {}
    for part in body[:-1].split(b"\0"):
        if part:
            fields[chr(part[0])] = part[1:].decode("utf-8", "backslashreplace")
    return fields


def startup_packet(parameters, version=PROTOCOL_3_0):
    """`parameters`: a mapping, or a list of pairs where order and repetition matter; str or bytes."""
    pairs = parameters.items() if isinstance(parameters, dict) else parameters
    body = b""
    for key, value in pairs:
        body += (key.encode() if isinstance(key, str) else key) + b"\0"
        body += (value.encode() if isinstance(value, str) else value) + b"\0"
    body = struct.pack("!I", version) + body + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def cancel_packet(pid, secret):
    return struct.pack("!III", 12 + len(secret), CANCEL_CODE, pid) + secret


def message(kind, body=b""):
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def tls_context(ca=None, *, alpn=None, minimum=None, maximum=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        context.load_verify_locations(ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if minimum:
        context.minimum_version = minimum
    if maximum:
        context.maximum_version = maximum
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


class Wire:
    def __init__(self, port, host="127.0.0.1", *, timeout=DEADLINE, chunk=0, receive_buffer=0):
        self.timeout = timeout
        self._chunk = chunk  # cut every send into pieces of this many bytes on the socket; 0: as it comes
        self._tls = None
        self._buffer = bytearray()
        self._eof = False
        self.transcript = []  # every message received, in order
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(timeout)
        self.socket.connect((host, port))

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.socket.close()

    # --- bytes ---

    def send_raw(self, data):
        """Straight onto the socket, below TLS."""
        if not self._chunk:
            self.socket.sendall(data)
            return
        for start in range(0, len(data), self._chunk):
            self.socket.sendall(data[start:start + self._chunk])

    def send(self, data):
        if self._tls is None:
            self.send_raw(data)
            return
        view = memoryview(data)
        while view:
            written = self._tls.write(view)
            view = view[written:]
        self.send_raw(self._outgoing.read())

    def finish_sending(self):
        """FIN while still reading: half a close, as libpq never does but pipes and balancers do."""
        self.socket.shutdown(socket.SHUT_WR)

    def _fill(self):
        """Reads once from the socket. False at the end of the stream."""
        if self._eof:
            return False
        try:
            data = self.socket.recv(256 * 1024)
        except ConnectionError:
            data = b""
        if not data:
            self._eof = True
        if self._tls is None:
            self._buffer += data
            return bool(data)
        if data:
            self._incoming.write(data)
        self._decrypt()
        return bool(data)

    def _decrypt(self):
        while True:
            try:
                plain = self._tls.read(256 * 1024)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                self._eof = True
                return
            if not plain:
                return
            self._buffer += plain

    def read_exact(self, count):
        while len(self._buffer) < count:
            if not self._fill() and len(self._buffer) < count:
                raise Closed(f"closed after {len(self._buffer)} of {count} bytes: {bytes(self._buffer)!r}")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def read_to_end(self):
        while self._fill():
            pass
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def expect_end(self):
        """The peer closes without another byte."""
        rest = self.read_to_end()
        assert rest == b"", f"expected the end, got {rest[:200]!r}"

    def wait_closed(self):
        """Reads and drops whatever comes until the peer closes; returns how long that took."""
        start = time.monotonic()
        self.read_to_end()
        return time.monotonic() - start

    # --- TLS ---

    def request_tls(self):
        """SSLRequest, and its one-byte answer."""
        self.send_raw(SSL_REQUEST)
        return self.read_exact(1)

    def start_tls(self, context, host="localhost"):
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        assert not self._buffer, "the server sent bytes in the clear behind its S"
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
            finally:
                pending = self._outgoing.read()
                if pending:
                    self.send_raw(pending)
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise Closed("closed during the TLS handshake")
            self._incoming.write(data)
        pending = self._outgoing.read()
        if pending:
            self.send_raw(pending)
        self._tls = tls
        self._decrypt()

    @property
    def tls(self):
        return self._tls

    def end_point_binding(self):
        """tls-server-end-point for a certificate signed with SHA-256 (RFC 5929 section 4.1)."""
        return hashlib.sha256(self._tls.getpeercert(binary_form=True)).digest()

    # --- messages ---

    def read_message(self):
        header = self.read_exact(5)
        length = struct.unpack("!I", header[1:])[0]
        got = Message(chr(header[0]), self.read_exact(length - 4))
        self.transcript.append(got)
        return got

    def read_until(self, *kinds):
        """Messages up to and including the first of these types. An ErrorResponse nobody waits for is raised."""
        messages = []
        while True:
            got = self.read_message()
            messages.append(got)
            if got.type in kinds:
                return messages
            if got.type == "E":
                raise Refused(error_fields(got.body))

    def expect_refusal(self):
        """The next message is a FATAL ErrorResponse and behind it comes the end, nothing else."""
        got = self.read_message()
        assert got.type == "E", f"expected an ErrorResponse, got {got}"
        refused = Refused(error_fields(got.body))
        assert refused.severity == "FATAL" and refused.fields.get("S") == "FATAL", refused
        self.expect_end()
        return refused

    # --- a login ---

    def startup(self, user, parameters=(), version=PROTOCOL_3_0, database=None):
        pairs = [("user", user)]
        if database is not None:
            pairs.append(("database", database))
        pairs += list(parameters.items() if isinstance(parameters, dict) else parameters)
        self.send(startup_packet(pairs, version))

    def login(self, user, password, *, database=None, parameters=(), version=PROTOCOL_3_0, mechanism=None, header=None,
              spoil_proof=False):
        """Startup, SCRAM, and everything up to the first ReadyForQuery. Raises Refused or Closed."""
        self.startup(user, parameters, version, database)
        return self.authenticate(password, mechanism=mechanism, header=header, spoil_proof=spoil_proof)

    def authenticate(self, password, *, mechanism=None, header=None, spoil_proof=False):
        session = Session(self)
        exchange = None
        while True:
            kind, body = self.read_message()
            if kind == "E":
                raise Refused(error_fields(body))
            if kind == "v":
                session.negotiations.append(parse_negotiation(body))
            elif kind == "R":
                code = struct.unpack("!I", body[:4])[0]
                if code == 10:
                    session.mechanisms = [name.decode() for name in body[4:].split(b"\0") if name]
                    chosen = mechanism or "SCRAM-SHA-256"
                    binding = self.end_point_binding() if chosen.endswith("-PLUS") else b""
                    exchange = Exchange(password, binding=binding, header=header)
                    first = exchange.first()
                    self.send(message("p", chosen.encode() + b"\0" + struct.pack("!I", len(first)) + first))
                elif code == 11:
                    self.send(message("p", exchange.final(body[4:], spoil_proof=spoil_proof)))
                elif code == 12:
                    exchange.verify(body[4:])
                elif code == 0:
                    session.exchange = exchange
                else:
                    raise AssertionError(f"unexpected authentication request {code}")
            elif kind == "S":
                name, value = body[:-1].split(b"\0")
                session.parameters[name.decode()] = value.decode()
            elif kind == "N":
                session.notices.append(error_fields(body))
            elif kind == "K":
                session.pid, session.secret = struct.unpack("!I", body[:4])[0], body[4:]
            elif kind == "Z":
                session.status = body.decode()
                return session
            else:
                raise AssertionError(f"unexpected message {kind} {body!r} during login")


def parse_negotiation(body):
    """NegotiateProtocolVersion: (newest version the server speaks, the _pq_ options it does not know)."""
    version, count = struct.unpack("!II", body[:8])
    names = body[8:].split(b"\0")
    assert names.pop() == b"" and len(names) == count, body
    return version, [name.decode() for name in names]


class Session:
    """A logged-in connection: simple queries and what the login told us."""

    def __init__(self, wire):
        self.wire = wire
        self.parameters = {}
        self.notices = []
        self.negotiations = []
        self.mechanisms = []
        self.exchange = None
        self.pid = 0
        self.secret = b""
        self.status = ""

    def send_query(self, sql):
        self.wire.send(message("Q", sql.encode() + b"\0"))

    def result(self):
        """Rows (lists of str or None) up to ReadyForQuery; an error inside is raised after the ReadyForQuery."""
        rows, error = [], None
        while True:
            kind, body = self.wire.read_message()
            if kind == "D":
                rows.append(_row(body))
            elif kind == "E":
                error = Refused(error_fields(body))
                if error.severity == "FATAL":
                    raise error
            elif kind == "N":
                self.notices.append(error_fields(body))
            elif kind == "Z":
                self.status = body.decode()
                if error:
                    raise error
                return rows

    def query(self, sql):
        self.send_query(sql)
        return self.result()

    def value(self, sql):
        return self.query(sql)[0][0]

    def terminate(self):
        self.wire.send(message("X"))
        self.wire.expect_end()
        self.wire.close()


def _row(body):
    count = struct.unpack("!H", body[:2])[0]
    values, at = [], 2
    for _ in range(count):
        length = struct.unpack("!i", body[at:at + 4])[0]
        at += 4
        if length < 0:
            values.append(None)
        else:
            values.append(body[at:at + length].decode())
            at += length
    return values


def open_tls(port, context, *, host="localhost", **options):
    """TCP, SSLRequest, S, handshake."""
    wire = Wire(port, **options)
    answer = wire.request_tls()
    assert answer == b"S", answer
    wire.start_tls(context, host)
    return wire


def open_direct_tls(port, context, *, host="localhost", **options):
    """PostgreSQL 17's sslnegotiation=direct: the ClientHello comes first."""
    wire = Wire(port, **options)
    wire.start_tls(context, host)
    return wire


def cancel(port, pid, secret, context=None):
    """Sends a CancelRequest, in the clear or inside TLS, and waits for the close that answers it."""
    with (open_tls(port, context) if context else Wire(port)) as wire:
        wire.send(cancel_packet(pid, secret))
        wire.expect_end()
