"""A whole client in one file, written from docs/protocol.md alone: not a line of Relay is imported.

python examples/from_the_page.py relay://FINGERPRINT@HOST:PORT NAME ROOM [TEXT [KEY-FILE]]

Says TEXT, shows the last ten messages up to it, and leaves. The device key is kept in KEY-FILE, or
in NAME.device; where the server is open, the name is claimed with it. Numbers in brackets are
sections of the page. It needs only `cryptography` and `msgpack`. For real use take the library:
this one neither reconnects nor keeps pins.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HELLO, JOIN, SEND, REGISTER = 1, 2, 4, 7
WELCOME, ACK, REFUSED, ERROR, ENTRY, LIVE = 33, 36, 37, 38, 39, 43
MESSAGE = 0
APP, CLOSE, KEY_UPDATE, TICKET, PING, PONG = 1, 2, 3, 4, 5, 6
NORMAL, PROTOCOL = 2000, 2001


def H(data: bytes) -> bytes:  # noqa: N802  # the names of the page
    """SHA-256."""
    return hashlib.sha256(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256, which is HKDF-Extract, too."""
    return hmac.digest(key, data, "sha256")


def L(secret: bytes, label: str, context: bytes, length: int) -> bytes:  # noqa: N802  # [4]
    """Derive a secret or key. HKDF-Expand; one block is enough."""
    name = b"relay1 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + bytes([len(context)]) + context
    return mac(secret, info + b"\x01")[:length]


class Direction:
    """The traffic keys of one direction. [4, 5]"""

    def __init__(self, secret: bytes) -> None:
        self.secret, self.sequence = secret, 0
        self.aead, self.iv = AESGCM(L(secret, "key", b"", 32)), L(secret, "iv", b"", 12)

    def nonce(self) -> bytes:
        """Return the nonce of the next record."""
        number = int.from_bytes(self.iv, "big") ^ self.sequence
        self.sequence += 1
        return number.to_bytes(12, "big")

    def updated(self) -> Direction:
        """Return the keys after a key_update."""
        return Direction(L(self.secret, "traffic upd", b"", 32))


class Relay:
    """One connection."""

    def __init__(self, host: str, port: int, fingerprint: str) -> None:
        self.sock = socket.create_connection((host, port), timeout=15)  # [3.6]
        hello = self.frame(1)  # [3.1]
        self.silent()
        body = hello[4:]
        magic, ver_min, ver_max, suite, pow_bits = body[:4], *body[4:8]
        if magic != b"RLY1" or not ver_min <= 1 <= ver_max or suite != 1 or pow_bits > 16:
            raise SystemExit("not a relay that this client understands")
        spki = body[42 : 42 + int.from_bytes(body[40:42], "big")]
        ext = body[42 + len(spki) :]
        if len(ext) < 2 or len(ext) - 2 != int.from_bytes(ext[:2], "big"):
            raise SystemExit("the server broke the protocol")
        claimed = server_id(ext[2:])
        found = base64.b32encode(H(spki)).decode().lower().rstrip("=")  # [3.2]
        if not hmac.compare_digest(found, fingerprint):
            raise SystemExit(f"another key than expected: {found}")
        # The form of a key that the user named byte for byte needs no further check.
        server_key = serialization.load_der_public_key(spki)
        assert isinstance(server_key, rsa.RSAPublicKey)

        session_key = os.urandom(32)
        x25519, mlkem = X25519PrivateKey.generate(), MLKEM768PrivateKey.generate()
        head = b"\x01\x01" + os.urandom(32) + x25519.public_key().public_bytes_raw()  # [3.3]
        head += mlkem.public_key().public_bytes_raw()
        puzzle, nonce = b"relay/1 pow" + body[8:40] + H(head), 0
        while int.from_bytes(H(puzzle + nonce.to_bytes(8, "big")), "big") >> (256 - pow_bits):
            nonce += 1
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"relay/1 session key")
        wrapped = server_key.encrypt(session_key, oaep)
        key = framed(2, head + nonce.to_bytes(8, "big") + wrapped + bytes(2) + bytes(32))
        self.sock.sendall(key)

        finished = self.frame(3)  # [3.4]
        self.silent()
        t2 = H(hello + key + finished[:-32])
        t3 = H(hello + key + finished)
        shared = session_key + x25519.exchange(X25519PublicKey.from_public_bytes(finished[5:37]))
        shared += mlkem.decapsulate(finished[37:1125])
        hs = mac(L(mac(bytes(32), bytes(32)), "derived", H(b""), 32), shared)
        expected = mac(L(hs, "s confirm", t2, 32), t2)
        if finished[4] != 0 or not hmac.compare_digest(expected, finished[1125:]):
            raise SystemExit("the server does not have the key that it showed")
        self.sock.sendall(framed(4, mac(L(hs, "c confirm", t3, 32), t3)))  # [3.5]
        # What the server claims counts only now. Without a file of pins there is nothing to compare
        # it with: a client that keeps anything for a server asks first (6.7).
        self.spki_hash, self.server_id = H(spki), claimed or H(spki)
        self.login_binding = L(L(hs, "exporter", t3, 32), "client login", H(spki), 32)
        self.out, self.into = Direction(L(hs, "c ap", t3, 32)), Direction(L(hs, "s ap", t3, 32))
        # The server pings after 30 s of silence, so silence for 90 s means that it is gone; that is
        # enough for a client that stays for a moment, and sends no pings of its own.
        self.sock.settimeout(90)
        self.last_pong = 0.0

    def frame(self, kind: int) -> bytes:
        """Return the next frame, header included; it must be of this type. [2]"""
        header = self.exactly(4)
        low, high = (17, 69_648) if kind == 0x10 else (1, 4096)
        if header[0] != kind or not low <= (length := int.from_bytes(header[1:], "big")) <= high:
            raise SystemExit("the server broke the protocol")
        return header + self.exactly(length)

    def silent(self) -> None:
        """Nothing may follow a message of the server's handshake. [3.1, 3.4]"""
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            if self.sock.recv(1, socket.MSG_PEEK):
                raise SystemExit("the server broke the protocol")
        self.sock.settimeout(15)

    def exactly(self, count: int) -> bytes:
        """Read so many bytes."""
        data = bytearray()
        while len(data) < count:
            if not (more := self.sock.recv(count - len(data))):
                raise SystemExit("the connection was lost")
            data += more
        return bytes(data)

    def record(self, kind: int, content: bytes) -> None:  # [5]
        """Seal and send one record."""
        inner = content + bytes([kind])
        step = next((s for s in (64, 128, 256, 512) if len(inner) <= s), 1024)
        inner += bytes(-len(inner) % step)
        header = b"\x10" + (len(inner) + 16).to_bytes(3, "big")
        self.sock.sendall(header + self.out.aead.encrypt(self.out.nonce(), inner, header))

    def send(self, *envelope: object) -> None:  # [6]
        """Send one envelope."""
        self.record(APP, msgpack.packb(envelope))

    def envelopes(self) -> Iterator[list[Any]]:
        """Yield what the server says, until it ends the connection."""
        while True:
            frame = self.frame(0x10)
            opened = self.into.aead.decrypt(self.into.nonce(), frame[4:], frame[:4]).rstrip(b"\0")
            kind, content = (opened[-1], opened[:-1]) if opened else (0, b"")
            if kind == APP:
                unpacker = msgpack.Unpacker(strict_map_key=True, max_buffer_size=len(content))
                unpacker.feed(content)
                yield from unpacker
            elif kind == PING and time.monotonic() - self.last_pong >= 1:
                self.last_pong = time.monotonic()
                self.record(PONG, content)
            elif kind == KEY_UPDATE:
                self.into = self.into.updated()
            elif kind not in (CLOSE, TICKET, PING, PONG):
                self.record(CLOSE, PROTOCOL.to_bytes(2, "big") + bytes(2))
                raise SystemExit("the server broke the protocol")
            elif kind == CLOSE:
                self.record(CLOSE, content[:2] + bytes(2))
                raise SystemExit(f"closed by the server: {int.from_bytes(content[:2], 'big')}")

    def close(self) -> None:
        """Say a clean goodbye."""
        self.record(CLOSE, NORMAL.to_bytes(2, "big") + bytes(2))
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()


def device(path: str) -> Ed25519PrivateKey:
    """Return the device key that is kept in a file, made at the first use."""
    with contextlib.suppress(FileNotFoundError):
        return Ed25519PrivateKey.from_private_bytes(Path(path).read_bytes())
    seed = os.urandom(32)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(seed)
    return Ed25519PrivateKey.from_private_bytes(seed)


def login(relay: Relay, name: str, key: Ed25519PrivateKey) -> None:
    """Claim the name, which changes nothing if it is ours already, and log in. [6.1, 6.6]"""
    public, handle = key.public_key().public_bytes_raw(), name.encode()

    def proof(operation: int) -> bytes:
        said = b" " * 64 + b"relay/1 client login\0" + bytes([operation]) + relay.login_binding
        said += relay.spki_hash + public + bytes([len(handle)]) + handle
        return key.sign(said)

    root = b"relay/1 device link\0\1\1" + relay.server_id + bytes([len(handle)]) + handle
    root += os.urandom(16) + bytes(2) + bytes(32) + b"\1" + public + b"\1" + public
    relay.send(REGISTER, 1, name, public, proof(2), root + key.sign(root), b"")
    relay.send(HELLO, name, os.urandom(16), "", "from_the_page", public, proof(1))


def server_id(items: bytes) -> bytes:
    """Return item 1 of ext; nothing if there is none. [3.1]"""
    found = b""
    while items:
        head, value = items[:2], items[2:]
        if len(head) < 2 or len(value) < head[1] or (head[0] == 1 and (found or head[1] != 32)):
            raise SystemExit("the server broke the protocol")
        if head[0] == 1:
            found = value[:32]
        items = value[head[1] :]
    return found


def framed(kind: int, body: bytes) -> bytes:
    """Return a frame. [2]"""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def harmless(data: bytes) -> str:
    """What comes from strangers must not command a terminal. [6]"""
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


def main(address: str, name: str, room: str, text: str = "", key: str = "") -> None:
    """Log in, join, say something, and print until it comes back."""
    match = re.fullmatch(r"relay://([a-z2-7]{52})@(.+?)(?::(\d+))?", address)  # [8]
    if match is None:
        raise SystemExit("an address is relay://FINGERPRINT@HOST[:PORT]")
    relay = Relay(match[2].strip("[]"), int(match[3] or 7475), match[1])
    login(relay, name, device(key or f"{name}.device"))
    stored = None if text else 0
    live = False
    seen = 0
    for op, *fields in relay.envelopes():
        if op == WELCOME:
            relay.send(JOIN, 1, room, None, 0, 10)  # [6.2]
            if text:
                relay.send(SEND, room, 1, 0, "text/plain", text.encode())  # [6.3]
        elif op == ENTRY:
            log, _, seq, _, time_ms, sender, _, _, _, kind, _, body = fields[:12]  # more may follow
            if kind == MESSAGE:  # what else there is it need not show
                clock = time.strftime("%H:%M", time.localtime(time_ms / 1000))
                print(f"{clock} {log} {seq} {sender}| {harmless(body)}", flush=True)
            seen = seq
        elif op == LIVE:
            live = True
        elif op == ACK:
            stored = fields[3]
        elif op in (REFUSED, ERROR):
            code, text = (fields[2], fields[4]) if op == REFUSED else (fields[1], fields[3])
            raise SystemExit(f"refused: error code {code}, {harmless(text.encode())}")
        if live and stored is not None and seen >= stored:
            relay.close()
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
