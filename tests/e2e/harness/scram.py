"""The client side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, RFC 5929), for the raw client."""

import base64
import hashlib
import hmac
import secrets


def _hmac(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


def verifier(password, salt=None, iterations=4096):
    """The text PostgreSQL keeps in pg_authid.rolpassword for this password."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server = _hmac(salted, b"Server Key")
    parts = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(iterations, *parts)


class Exchange:
    """One login: first() and final() give the client's messages, verify() checks the server's signature."""

    def __init__(self, password, *, binding=b"", header=None, nonce=None):
        # `binding` is the tls-server-end-point hash; with it the header says p=, without it n.
        self._password = password.encode()
        self._header = header if header is not None else ("p=tls-server-end-point,," if binding else "n,,")
        self._binding = binding
        self._nonce = nonce or base64.b64encode(secrets.token_bytes(18)).decode()
        self._bare = f"n=,r={self._nonce}"
        self.server_first = {}

    def first(self):
        return (self._header + self._bare).encode()

    def final(self, server_first, *, spoil_proof=False):
        text = server_first.decode()
        self.server_first = fields = dict(part.split("=", 1) for part in text.split(","))
        assert fields["r"].startswith(self._nonce) and len(fields["r"]) > len(self._nonce), "the server must extend our nonce"
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = _hmac(salted, b"Client Key")
        channel = base64.b64encode(self._header.encode() + self._binding).decode()
        without_proof = f"c={channel},r={fields['r']}"
        message = f"{self._bare},{text},{without_proof}".encode()
        signature = _hmac(hashlib.sha256(client_key).digest(), message)
        proof = bytes(left ^ right for left, right in zip(client_key, signature))
        if spoil_proof:
            proof = bytes([proof[0] ^ 1]) + proof[1:]
        self._expected = base64.b64encode(_hmac(_hmac(salted, b"Server Key"), message)).decode()
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final):
        assert server_final.decode() == f"v={self._expected}", "the server does not know the verifier"
