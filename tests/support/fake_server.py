"""A server that misbehaves as a test requires: the real protocol over a real socket, in a
thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self, TypeVar

from relay.wire.connection import Connection
from relay.wire.envelopes import ClientEnvelope, Hello, ServerEnvelope, Welcome
from relay.wire.events import ApplicationData, ConnectionClosed, SecretWrapped
from relay.wire.identity import PrivateKey, fingerprint
from relay.wire.messages import pack_ext
from relay.wire.packing import pack, unpack_client
from relay.wire.phases import Phase
from tests.support.pair import server_key

Found = TypeVar("Found")
WAIT_S = 60.0


def spki_hash(key: PrivateKey) -> bytes:
    """Return what announces a key, and what a server id is made of."""
    return hashlib.sha256(key.spki).digest()


class FakeConnection:
    """One client, as the server's script sees it."""

    def __init__(
        self, opened: socket.socket, pow_bits: int, shown: PrivateKey, held: PrivateKey
    ) -> None:
        self.socket = opened
        opened.settimeout(WAIT_S)
        server_id = b"" if shown is server_key() else spki_hash(server_key())
        self.wire = Connection.server(
            now=time.monotonic(),
            random_bytes=secrets.token_bytes,
            spki=shown.spki,
            pow_bits=pow_bits,
            ext=pack_ext(server_id, spki_hash(shown)),
        )
        self._held = held
        self.bytes_heard = 0
        self.heard: list[ClientEnvelope] = []
        self.end: ConnectionClosed | None = None

    def flush(self) -> None:
        self.socket.sendall(self.wire.data_to_send())

    def read(self) -> bool:
        """Take what comes; return False at the end."""
        data = self.socket.recv(65_536)
        self.bytes_heard += len(data)
        self.wire.receive_data(data, time.monotonic())
        for event in self.wire.events():
            match event:
                case SecretWrapped(ciphertext=ciphertext):
                    secret = self._held.unwrap(ciphertext)
                    self.wire.provide_secret(secret, time.monotonic())
                case ApplicationData(content=content):
                    self.heard += unpack_client(content)
                case ConnectionClosed():
                    self.end = event
                case _:
                    pass
        self.flush()
        return bool(data) and self.end is None

    def wait_for(self, kind: type[Found]) -> Found:
        """Read until an envelope of a kind has come."""
        while True:
            for envelope in self.heard:
                if isinstance(envelope, kind):
                    self.heard.remove(envelope)
                    return envelope
            if not self.read():
                raise ConnectionError("the client is gone")

    def log_in(self, time_ms: int = 0) -> None:
        """Proceed to WELCOME, with this server's clock."""
        self.flush()
        hello = self.wait_for(Hello)
        self.send_envelopes(Welcome(hello.name, time_ms, 32_768, 1024, "fake"))

    def seal(self, content: bytes) -> bytes:
        return self.wire.seal(content, time.monotonic())

    def send_envelopes(self, *envelopes: ServerEnvelope) -> None:
        self.socket.sendall(self.seal(b"".join(map(pack, envelopes))))

    def send_raw(self, *contents: bytes) -> None:
        """Records, in one write."""
        self.socket.sendall(b"".join(map(self.seal, contents)))

    def close_and_reset(self, code: int) -> None:
        """A close record, and at once a reset: what the client sends next fails."""
        self.wire.close(code, time.monotonic())
        self.flush()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_to_end(self) -> None:
        """Read until the client has disconnected."""
        with contextlib.suppress(OSError):
            while self.wire.phase is not Phase.CLOSED and self.read():
                pass


class FakeServer:
    """Runs ``script`` for each client that connects, one after the other."""

    def __init__(
        self,
        script: Callable[[FakeConnection], None],
        pow_bits: int = 0,
        receive_buffer_bytes: int | None = None,
        keys: Callable[[int], tuple[PrivateKey, PrivateKey]] | None = None,
        at: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        """Begin.

        Args:
            script: what is done with a client.
            pow_bits: the work that it asks for.
            receive_buffer_bytes: of its sockets; None: the system's.
            keys: by the number of a connection, from 1, the key that it shows, with the id of
                the first one, and the key that it holds; None: always the first one.
            at: host and port to listen on; port 0: any.
        """
        self._script = script
        self._keys = keys
        self._pow_bits = pow_bits
        self._listener = socket.create_server(at)
        if receive_buffer_bytes is not None:  # what is accepted inherits it
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.accepted = 0
        host, port = self._listener.getsockname()
        self.address = f"relay://{fingerprint(server_key().spki)}@{host}:{port}"
        self.problems: list[BaseException] = []

    def _serve(self) -> None:
        while True:
            try:
                opened, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            with opened:
                try:
                    shown = held = server_key()
                    if self._keys is not None:
                        shown, held = self._keys(self.accepted)
                    self._script(FakeConnection(opened, self._pow_bits, shown, held))
                except OSError:
                    pass  # the client is gone
                except BaseException as error:  # noqa: BLE001  # the test looks at it
                    self.problems.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_S)
        assert not self.problems, self.problems
