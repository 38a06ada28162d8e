"""TLS 1.3 with AES-256-GCM for the peers: certificates, and streams whose raw socket stays ours.

Python 3.11 cannot choose TLS 1.3 suites in code; OpenSSL reads them from the file that OPENSSL_CONF
names. Every connection checks the suite that it got.
"""

from __future__ import annotations

import datetime
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

SUITE: Final = "TLS_AES_256_GCM_SHA384"
RECORD_OVERHEAD: Final = 5 + 1 + 16
"""Header, content type, tag."""
_HEADER: Final = 5
_CONFIGURATION: Final = f"""openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = defaults
[defaults]
MinProtocol = TLSv1.3
Ciphersuites = {SUITE}
"""
KeyKind = Literal["rsa3072", "p256"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a self-signed certificate and its key."""

    certificate: Path
    key: Path


def one_suite(directory: Path) -> dict[str, str]:
    """Return what a process's environment needs, before its start, to know one suite alone."""
    path = directory / "openssl.cnf"
    path.write_text(_CONFIGURATION, encoding="utf-8")
    return {"OPENSSL_CONF": str(path)}


def certificate(directory: Path, kind: KeyKind) -> Certificate:
    """Make a certificate for 127.0.0.1."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if kind == "rsa3072":
        key = rsa.generate_private_key(65_537, 3072)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = Certificate(directory / f"{kind}.crt", directory / f"{kind}.key")
    paths.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class PlainStream:
    """A blocking stream without TLS. After ``detach`` its socket belongs to the swarm."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def read(self) -> bytes:
        """Return some bytes that have come. Raises ConnectionError at the end."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def open(self, data: bytes) -> bytes:
        """Return the content of bytes that were read from the raw socket."""
        return data


class TlsStream(PlainStream):
    """The same over TLS; reads whole records, never beyond one."""

    def start(self) -> None:
        """Shake hands. No name or issuer is checked: the certificate is our own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(self._record())
        self._flush()
        cipher = self._tls.cipher()
        if cipher is None or cipher[0] != SUITE:
            raise ConnectionError(f"the server chose {cipher}, not {SUITE}")

    def write(self, data: bytes) -> None:
        """Send all of it, in as few records as TLS allows."""
        self._tls.write(data)
        self._flush()

    def read(self) -> bytes:
        """Return the content of the records up to the first that has any."""
        while True:
            content = self.open(self._record())
            if content:
                return content

    def open(self, data: bytes) -> bytes:
        """Decrypt bytes that were read from the raw socket."""
        self._incoming.write(data)
        parts: list[bytes] = []
        while True:
            try:
                part = self._tls.read(1 << 20)
            except ssl.SSLWantReadError:
                break
            if not part:
                raise ConnectionError("the server closed the connection")
            parts.append(part)
        return b"".join(parts)

    def _flush(self) -> None:
        pending = self._outgoing.read()
        if pending:
            self.socket.sendall(pending)

    def _record(self) -> bytes:
        header = self._exactly(_HEADER)
        return header + self._exactly(int.from_bytes(header[3:], "big"))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data
