"""A certificate authority for one test run, by the openssl command: P-256 keys, SHA-256 signatures."""

import os

from harness.system import give_to_server_user, run

_LIFETIME_DAYS = "30"


class Authority:
    def __init__(self, folder, name="Pointsman test CA"):
        self.folder = folder
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self.certificate = os.path.join(folder, "ca.crt")
        self._key = os.path.join(folder, "ca.key")
        self._serial = 1
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", self._key, "-out", self.certificate, "-days", _LIFETIME_DAYS, "-subj", f"/CN={name}"])

    def issue(self, name, alternative_names=("DNS:localhost", "IP:127.0.0.1"), *, for_server_user=False, folder=None,
              key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
        """Writes NAME.crt and NAME.key and returns their paths. The key is 0600 and belongs to whoever serves with it."""
        base = os.path.join(folder or self.folder, name)
        certificate, private, request, extensions = base + ".crt", base + ".key", base + ".csr", base + ".ext"
        run(["openssl", "req", "-newkey", *key, "-nodes", "-keyout", private, "-out", request, "-subj", f"/CN={name}"])
        with open(extensions, "w", encoding="ascii") as text:
            text.write("subjectAltName=" + ",".join(alternative_names) + "\n")
        self._serial += 1
        run(["openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-sha256",
             "-set_serial", str(self._serial), "-days", _LIFETIME_DAYS, "-extfile", extensions, "-out", certificate])
        os.unlink(request)
        os.unlink(extensions)
        os.chmod(private, 0o600)
        if for_server_user:
            give_to_server_user(private)
        return certificate, private
