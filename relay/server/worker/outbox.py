"""What one connection is owed: bytes of its own (answers) and references to shared batches.

The only place that counts the bytes of a connection (rule 4). Nothing is sealed before it can leave:
a sealed record cannot be taken back, because the nonce sequence is implicit. The transport holds at
most its high-water mark of sealed bytes, the outbox at most ``OUTBOX_BYTES_MAX`` of references, the
kernel ``KERNEL_NOTSENT_LOWAT_BYTES`` of unsent ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.server.worker.batch import EVENT, Batch

if TYPE_CHECKING:
    import asyncio

    from relay.wire.connection import Connection


class Outbox:
    """Bytes owed to one connection; one record and one write per loop turn as long as they fit."""

    __slots__ = ("_connection", "_transport", "items", "paused", "size")

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport
        self.items: list[bytes | Batch] = []
        self.size = 0
        self.paused = False
        """True while the transport is above its high-water mark."""

    def put(self, content: bytes) -> None:
        """Queue bytes of this connection alone: whole envelopes. Never dropped."""
        self.items.append(content)
        self.size += len(content)

    def flush(self, now: float) -> None:
        """Seal and write what the transport takes. Called once per turn, at its end."""
        if self.paused:
            return
        write = self._transport.write
        pending = self._connection.data_to_send()
        if pending:
            write(pending)
        items = self.items
        if len(items) == 1:
            item = items[0]
            items.clear()
            self.size = 0
            content = item if type(item) is bytes else item.content  # type: ignore[union-attr]
            if len(content) <= limits.RECORD_CONTENT_BYTES_MAX:
                write(self._connection.seal(content, now))
                return
            items.append(item)
        start = 0
        while start < len(items) and not self.paused:
            start, content = self._next_record(start)
            write(self._connection.seal(content, now))
        del items[:start]
        self.size = sum([len(i) if type(i) is bytes else i.size for i in items])  # type: ignore[arg-type, union-attr]

    def _next_record(self, start: int) -> tuple[int, bytes]:
        """Join items from ``start`` while they fit one record; return (index behind them, bytes)."""
        parts: list[bytes] = []
        size = 0
        for item in self.items[start:]:
            part = item if type(item) is bytes else item.content  # type: ignore[union-attr]
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
        kept: list[bytes | Batch] = []
        for item in self.items:
            if isinstance(item, Batch):
                if item.last != EVENT:
                    first.setdefault(item.log, item)
            else:
                kept.append(item)
        self.items = kept
        self.size = sum(map(len, kept))  # type: ignore[arg-type]
        return first


