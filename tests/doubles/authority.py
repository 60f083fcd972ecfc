"""A certificate authority of a test's own, made with the openssl program."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
NEW_RSA_KEY = ["-newkey", "rsa:2048", "-nodes"]


class Authority:
    """`ca` is its own certificate's file."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._name = folder, name
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            "req",
            "-x509",
            *NEW_KEY,
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            str(self._key),
            "-out",
            str(self.ca),
        )

    def issue(self, san: str = "IP:127.0.0.1", days: int = 2, new_key: list[str] = NEW_KEY) -> tuple[Path, Path]:
        """A server's certificate and key. days -1: it has expired."""
        stem = f"{self._name}-{san.replace(':', '-')}-{days}"
        certificate, key, request = (self._folder / f"{stem}.{kind}" for kind in ("crt", "key", "csr"))
        _openssl(
            "req",
            *new_key,
            "-subj",
            "/CN=server",
            "-addext",
            f"subjectAltName={san}",
            "-keyout",
            str(key),
            "-out",
            str(request),
        )
        signed = ["-CA", str(self.ca), "-CAkey", str(self._key), "-days", str(days), "-copy_extensions", "copy"]
        _openssl("x509", "-req", "-in", str(request), *signed, "-out", str(certificate))
        return certificate, key

    def serves(self, san: str = "IP:127.0.0.1", days: int = 2) -> ssl.SSLContext:
        """What a server needs to show such a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(san, days))
        return context


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
