"""A model of how a home handles sends, to test the client's window against.

Invariant "Once, in order".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgpack

from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Ack, Refused, Send
from relay.wire.packing import unpack_client

EPOCH = b"e" * 8


class ModelLog:
    """One log and one producer, as the store keeps them."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.stored: list[bytes] = []
        """Bodies by seq - 1."""
        self.ids: dict[int, int] = {}
        """Counter to seq."""
        self.last: int | None = None
        """None: the producer is not known."""
        self.forbidden: set[bytes] = set()
        """Bodies that may not be stored."""
        self.gone = b""
        """The identity of a room that was deleted."""

    def offer(self, send: Send) -> Ack | Refused:
        """Decide about one send."""
        counter = send.counter
        if self.last is None and counter != 1:
            return self.refuse(counter, ErrorCode.UNKNOWN_OUTCOME)
        last = self.last or 0
        if counter <= last:
            seq = self.ids[counter]
            if self.stored[seq - 1] != send.body:
                return self.refuse(counter, ErrorCode.ID_CONFLICT, seq)
            return Ack(self.log, counter, EPOCH, seq)
        if counter != last + 1:
            return self.refuse(counter, ErrorCode.EXPECTED, last + 1)
        if self.gone and send.identity == self.gone:
            return self.refuse(counter, ErrorCode.NO_SUCH_ROOM)
        if send.body in self.forbidden:
            return self.refuse(counter, ErrorCode.NOT_ALLOWED)
        self.stored.append(send.body)
        self.last = counter
        self.ids[counter] = len(self.stored)
        return Ack(self.log, counter, EPOCH, len(self.stored))

    def refuse(self, counter: int, code: ErrorCode, arg: int = 0) -> Refused:
        """Answer with a code."""
        return Refused(self.log, counter, int(code), arg, "")

    def forget(self) -> None:
        """Simulate thirty days: the producer's record is gone, the entries are not."""
        self.last = None
        self.ids.clear()


def sends_in(packed: Iterable[bytes]) -> list[Send]:
    """Unpack what a window transmits."""
    sends = []
    for envelope in packed:
        assert msgpack.unpackb(envelope)[0] == 4
        (send,) = unpack_client(envelope)
        assert type(send) is Send
        sends.append(send)
    return sends
