"""What one connection is owed: bytes of its own (answers) and references to shared batches.

The only place that counts the bytes of a connection (rule 4). Nothing is sealed before it can
leave: a sealed record cannot be taken back, because the nonce sequence is implicit. The transport
holds at most a record that the kernel did not take whole, the outbox at most ``OUTBOX_BYTES_MAX``
of references, the kernel ``KERNEL_NOTSENT_LOWAT_BYTES`` of unsent ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from relay import limits
from relay.server.worker.delivery.batch import EVENT, Batch

if TYPE_CHECKING:
    import asyncio

    from relay.wire.connection import Connection

Item = bytes | Batch


class Outbox:
    """Bytes owed to one connection; one record and one write per loop turn as long as they fit."""

    __slots__ = ("_connection", "_fd", "_transport", "answers", "items", "paused", "size")

    def __init__(self, connection: Connection, transport: asyncio.Transport, fd: int) -> None:
        """Begin with nothing owed.

        Args:
            connection: seals records.
            transport: takes what the kernel does not.
            fd: the transport's socket. It is the transport's until ``close`` is called.
        """
        self._connection = connection
        self._transport = transport
        self._fd = fd
        self.items: list[Item] = []
        self.size = 0
        """Bytes of all items. ``fanout`` adds batches by itself: it is the hot loop."""
        self.answers = 0
        """Bytes of those that are the connection's own."""
        self.paused = False
        """True while the transport holds anything, and after the end."""

    def put(self, content: bytes) -> None:
        """Queue bytes of this connection alone: whole envelopes. Never dropped."""
        self.items.append(content)
        self.size += len(content)
        self.answers += len(content)

    def flush(self, now: float) -> None:
        """Seal and write what the transport takes. Called once per turn, at its end."""
        items = self.items
        if self.paused or not items:
            return
        if self.size <= limits.RECORD_CONTENT_BYTES_MAX:
            # The usual case: all of it fits one record. The hot loop of a delivery: every call and
            # every object that it can do without counts a thousand times.
            item = items[0]
            if len(items) > 1:
                content = b"".join(map(_content, items))
            else:
                content = item.content if type(item) is Batch else item  # type: ignore[assignment]
            items.clear()
            self.size = self.answers = 0
            self._write(self._connection.seal(content, now))
            return
        start = 0
        while start < len(items) and not self.paused:
            start, content = self._next_record(start)
            self._write(self._connection.seal(content, now))
        self._keep(items[start:])

    def _write(self, record: bytes) -> None:
        """Write to the socket itself; the transport holds nothing, or it would be paused.

        It saves 6 % of a delivery (docs/performance.md): the transport's own objects of a thousand
        connections are not in the processor's caches.
        """
        try:
            sent = os.write(self._fd, record)
        except OSError:
            sent = 0  # it takes nothing now; or it has failed, which the transport meets and says
        if sent < len(record):
            self._transport.write(record[sent:])

    def _next_record(self, start: int) -> tuple[int, bytes]:
        """Join items from ``start`` while they fit one record; return (index behind, bytes)."""
        size = 0
        parts: list[bytes] = []
        for item in self.items[start:]:
            part = _content(item)
            size += len(part)
            if parts and size > limits.RECORD_CONTENT_BYTES_MAX:
                break
            parts.append(part)
        return start + len(parts), b"".join(parts)

    def drop_batches(self) -> dict[str, Batch]:
        """Forget all shared batches; return the first dropped one of each log (its cursor).

        Answers of the connection itself stay, in order.
        """
        first: dict[str, Batch] = {}
        for item in self.items:
            if isinstance(item, Batch) and item.last != EVENT:
                first.setdefault(item.log, item)
        self._keep([item for item in self.items if not isinstance(item, Batch)])
        return first

    def clear(self) -> None:
        """Forget everything."""
        self.items.clear()
        self.size = self.answers = 0

    def close(self) -> None:
        """Never write again: the socket's number will be another connection's."""
        self.clear()
        self.paused = True
        self._fd = -1

    def _keep(self, items: list[Item]) -> None:
        self.items[:] = items
        self.size = sum([len(_content(item)) for item in items])
        self.answers = sum([len(item) for item in items if not isinstance(item, Batch)])


def _content(item: Item) -> bytes:
    return item.content if type(item) is Batch else item  # type: ignore[return-value]
