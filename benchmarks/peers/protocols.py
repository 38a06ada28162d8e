"""The protocols of the peers, as far as a subscriber and a publisher need them."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Sequence
from typing import Final, Protocol

from benchmarks.load import payload
from benchmarks.peers.tls import PlainStream, TlsStream

TOPIC: Final = "lobby"
SIZE: Final = payload.SIZE_BYTES


class Dialect(Protocol):
    """One peer's protocol, for one topic."""

    @property
    def unit(self) -> int:
        """Size of one message as a subscriber receives it, without TLS; the same for
        every message.
        """
        ...

    def connect(self, port: int, tls: bool, name: str) -> PlainStream:
        """Return a stream that is ready for ``subscribe`` or ``message``."""
        ...

    def subscribe(self, stream: PlainStream) -> None:
        """Follow the topic, and wait until that is confirmed."""
        ...

    def message(self, body: bytes) -> bytes:
        """Return what publishes a body."""
        ...

    def bodies(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the bodies of the whole messages, and the rest."""
        ...

    def prepare(self, stream: PlainStream, topics: Sequence[str]) -> None:
        """Prepare the connection of a publisher to these topics."""
        ...

    def asking(self, body: bytes) -> bytes | None:
        """Return what publishes a body and is acknowledged; None: nothing is."""
        ...

    def acknowledged(self, data: bytes) -> bool:
        """Tell whether all that came since ``asking`` is the whole acknowledgement."""
        ...


class _Unacknowledged:
    """A protocol without acknowledgements."""

    def prepare(self, stream: PlainStream, topics: Sequence[str]) -> None:
        """See ``Dialect``: there is nothing to do."""

    def asking(self, body: bytes) -> bytes | None:
        """See ``Dialect``."""
        return None

    def acknowledged(self, data: bytes) -> bool:
        """See ``Dialect``: never asked."""
        raise AssertionError


def stream(port: int, tls: bool) -> PlainStream:
    """Return a stream, with TLS from its first byte or without."""
    if not tls:
        return PlainStream(port)
    secured = TlsStream(port)
    secured.start()
    return secured


def read_until(source: PlainStream, wanted: bytes) -> bytes:
    """Read until bytes have come that hold ``wanted``."""
    data = b""
    while wanted not in data:
        data += source.read()
    return data


class Nats(_Unacknowledged):
    """NATS core: fire and forget."""

    _reply = b""
    """The subject of acknowledgements, and a space."""

    def __init__(self, topic: str = TOPIC) -> None:
        self._topic = topic.encode()
        self._head = b"MSG %b 1 %b%d\r\n" % (self._topic, self._reply, SIZE)

    @property
    def unit(self) -> int:
        """See ``Dialect``."""
        return len(self._head) + SIZE + 2

    def connect(self, port: int, tls: bool, name: str) -> PlainStream:
        """See ``Dialect``: the server speaks first, in clear, then TLS begins."""
        connected: PlainStream = TlsStream(port) if tls else PlainStream(port)
        info = b""
        while not info.endswith(b"\r\n"):
            info += connected.socket.recv(4096)
        if isinstance(connected, TlsStream):
            connected.start()
        options = {"verbose": False, "pedantic": False, "tls_required": tls, "name": name}
        options |= {"lang": "python", "version": "0", "protocol": 1, "echo": False}
        connected.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        read_until(connected, b"PONG\r\n")
        return connected

    def subscribe(self, stream: PlainStream) -> None:
        """See ``Dialect``."""
        stream.write(b"SUB %b 1\r\nPING\r\n" % self._topic)
        read_until(stream, b"PONG\r\n")

    def message(self, body: bytes) -> bytes:
        """See ``Dialect``."""
        return b"PUB %b %b%d\r\n%b\r\n" % (self._topic, self._reply, len(body), body)

    def bodies(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See ``Dialect``: a PING may stand between messages."""
        found: list[bytes] = []
        at = 0
        while True:
            if data.startswith(b"PING\r\n", at):
                at += 6
            elif len(data) - at < self.unit:
                return found, data[at:]
            elif not data.startswith(self._head, at):
                raise ValueError(f"NATS said {data[at : at + 60]!r}")
            else:
                start = at + len(self._head)
                found.append(data[start : start + SIZE])
                at += self.unit


class JetStream(Nats):
    """NATS with its log: each message is stored in a file, and acknowledged to its publisher.

    Members subscribe as without it: they get what is published, at most once.
    """

    _reply = b"_INBOX.acks "
    _API = "$JS.API.STREAM.CREATE."

    def prepare(self, stream: PlainStream, topics: Sequence[str]) -> None:
        """See ``Dialect``: make the log."""
        name = f"log-{topics[0]}"
        wanted = {"name": name, "subjects": list(topics), "storage": "file", "num_replicas": 1}
        body = json.dumps(wanted | {"retention": "limits", "discard": "old"}).encode()
        stream.write(b"SUB %b9\r\n" % self._reply)
        subject = f"{self._API}{name} ".encode() + self._reply
        stream.write(b"PUB %b%d\r\n%b\r\n" % (subject, len(body), body))
        answer = read_until(stream, b"}\r\n")
        if b'"error"' in answer:
            raise ConnectionError(f"no log: {answer!r}")

    def asking(self, body: bytes) -> bytes | None:
        """See ``Dialect``."""
        return self.message(body)

    def acknowledged(self, data: bytes) -> bool:
        """See ``Dialect``."""
        if b'"error"' in data:
            raise ConnectionError(f"not stored: {data!r}")
        return data.endswith(b"}\r\n")


class _FixedHead(_Unacknowledged):
    """A protocol whose messages all begin with the same bytes."""

    head: bytes
    tail = b""

    @property
    def unit(self) -> int:
        """See ``Dialect``."""
        return len(self.head) + SIZE + len(self.tail)

    def bodies(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See ``Dialect``."""
        found: list[bytes] = []
        whole = len(data) // self.unit * self.unit
        for at in range(0, whole, self.unit):
            if not data.startswith(self.head, at):
                raise ValueError(f"the server said {data[at : at + 60]!r}")
            start = at + len(self.head)
            found.append(data[start : start + SIZE])
        return found, data[whole:]


class Redis(_FixedHead):
    """RESP 2: PUBLISH and SUBSCRIBE."""

    tail = b"\r\n"

    def __init__(self, topic: str = TOPIC) -> None:
        self._name = topic.encode()
        self._topic = b"$%d\r\n%b\r\n" % (len(topic), self._name)
        self.head = b"*3\r\n$7\r\nmessage\r\n%b$%d\r\n" % (self._topic, SIZE)

    def connect(self, port: int, tls: bool, name: str) -> PlainStream:
        """See ``Dialect``."""
        return stream(port, tls)

    def subscribe(self, stream: PlainStream) -> None:
        """See ``Dialect``."""
        stream.write(b"*2\r\n$9\r\nSUBSCRIBE\r\n" + self._topic)
        read_until(stream, b":1\r\n")

    def message(self, body: bytes) -> bytes:
        """See ``Dialect``."""
        return b"*3\r\n$7\r\nPUBLISH\r\n%b$%d\r\n%b\r\n" % (self._topic, len(body), body)

    def asking(self, body: bytes) -> bytes | None:
        """See ``Dialect``."""
        return self.message(body)

    def acknowledged(self, data: bytes) -> bool:
        """See ``Dialect``: how many got it."""
        return data.startswith(b":") and data.endswith(b"\r\n")


class RedisLog(Redis):
    """The same, and each message is appended to a stream first: with an AOF, a log on disk."""

    _ANSWERS: Final = re.compile(rb"\$\d+\r\n\d+-\d+\r\n:\d+\r\n")

    def message(self, body: bytes) -> bytes:
        """See ``Dialect``."""
        key = b"$%d\r\nlog-%b" % (len(self._name) + 4, self._name)
        append = b"*5\r\n$4\r\nXADD\r\n%b\r\n$1\r\n*\r\n$1\r\nb\r\n$%d\r\n%b\r\n"
        return append % (key, len(body), body) + super().message(body)

    def acknowledged(self, data: bytes) -> bool:
        """See ``Dialect``: the entry's id, and how many got it."""
        return self._ANSWERS.fullmatch(data) is not None


class Mqtt(_FixedHead):
    """MQTT 3.1.1: members, and messages, at QoS 0; acknowledged ones at QoS 1."""

    _PACKET: Final = b"\x00\x07"

    def __init__(self, topic: str = TOPIC) -> None:
        self._topic = len(topic).to_bytes(2, "big") + topic.encode()
        length = len(self._topic) + SIZE
        self.head = bytes((0x30, length % 128 | 0x80, length // 128)) + self._topic

    def connect(self, port: int, tls: bool, name: str) -> PlainStream:
        """See ``Dialect``: a clean session without keep-alive."""
        connected = stream(port, tls)
        identity = len(name).to_bytes(2, "big") + name.encode()
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + identity
        connected.write(bytes((0x10, len(body))) + body)
        if read_until(connected, b"\x20\x02")[:4] != b"\x20\x02\x00\x00":
            raise ConnectionError("the broker refused")
        return connected

    def subscribe(self, stream: PlainStream) -> None:
        """See ``Dialect``."""
        body = b"\x00\x01" + self._topic + b"\x00"
        stream.write(bytes((0x82, len(body))) + body)
        read_until(stream, b"\x90\x03\x00\x01\x00")

    def message(self, body: bytes) -> bytes:
        """See ``Dialect``."""
        return self.head + body

    def asking(self, body: bytes) -> bytes | None:
        """See ``Dialect``: at QoS 1, always with the same packet id."""
        length = len(self._topic) + len(self._PACKET) + SIZE
        head = bytes((0x32, length % 128 | 0x80, length // 128))
        return head + self._topic + self._PACKET + body

    def acknowledged(self, data: bytes) -> bool:
        """See ``Dialect``: PUBACK."""
        return data == b"\x40\x02" + self._PACKET


class WebSocket(_FixedHead):
    """RFC 6455: members on /follow, the publisher on /publish; whatever it sends goes to all."""

    head = b"\x82\x7e" + SIZE.to_bytes(2, "big")

    def __init__(self, topic: str = TOPIC) -> None:
        """Take a topic as the others do; there is only one."""

    _MASKED: Final = b"\x82\xfe" + SIZE.to_bytes(2, "big") + bytes(4)

    def connect(self, port: int, tls: bool, name: str) -> PlainStream:
        """See ``Dialect``: the upgrade, nothing negotiated."""
        connected = stream(port, tls)
        key = base64.b64encode(os.urandom(16)).decode()
        path = "publish" if name == "publisher" else "follow"
        connected.write(
            f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = read_until(connected, b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.1 101 ", answer):
            raise ConnectionError(f"no upgrade: {answer[:100]!r}")
        return connected

    def subscribe(self, stream: PlainStream) -> None:
        """See ``Dialect``: the upgrade was it."""

    def message(self, body: bytes) -> bytes:
        """See ``Dialect``: a client masks; by zeros."""
        return self._MASKED + body
