"""What one connection is owed: bytes of its own (answers) and references to shared batches.

The only place that counts the bytes of a connection (invariant "Falling behind"). Nothing is sealed
before it can leave: a sealed record cannot be taken back, because the nonce sequence is implicit.
The transport holds at most a record that the kernel did not take whole, the outbox at most
``OUTBOX_BYTES_MAX`` of references, the kernel ``KERNEL_NOTSENT_LOWAT_BYTES`` of unsent ones.

The ``Flusher`` of a worker has all of them write in a turn: answers first, then fan-out, in slices
of time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chunking import count_fitting
from relay.server.worker.delivery.batch import EVENT, Batch
from relay.server.worker.delivery.stream import Sink, write_past
from relay.wire.cipher import Padded

if TYPE_CHECKING:
    from relay.server.worker.delivery.stream import Stream
    from relay.server.worker.wakeup import Wakeup
    from relay.wire.connection import Connection

Item = bytes | Batch
SLICE_S: Final = 0.005
"""Writes per loop turn before the loop is let go again (docs/architecture.md, "Slices")."""
FLUSHES_PER_CLOCK: Final = 32
SHORT_BYTES: Final = 1024
"""Answers of a connection that asks for little."""
EMPTY: Final = Padded(b"")


class Outbox(Sink):
    """Bytes owed to one connection; one record and one write per loop turn as long as they fit."""

    __slots__ = (
        "_answering", "_closed", "_queued", "_wakeup", "answers", "connection", "items",
        "on_answers_read", "size", "stream",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, stream: Stream, answering: deque[Outbox], wakeup: Wakeup
    ) -> None:
        """Begin with nothing owed. Made by ``Flusher.outbox``.

        Args:
            connection: seals records.
            stream: takes them.
            answering: where it queues itself when it has answers, to be flushed before others.
            wakeup: asks for the turn that flushes.
        """
        super().__init__()
        self.connection = connection
        self.stream = stream
        self._answering = answering
        self._wakeup = wakeup
        self._queued = False
        self._closed = False
        self.items: list[Item] = []
        self.size = 0
        """Bytes of all items. ``fanout`` adds batches by itself: it is the hot loop."""
        self.answers = 0
        """Bytes of those that are the connection's own."""
        self.on_answers_read: Callable[[], None] | None = None
        """Called once, when the answers are within ``ANSWERS_BYTES_MAX`` again."""

    def put(self, content: bytes) -> None:
        """Queue bytes of this connection alone: whole envelopes. Never dropped."""
        self.items.append(content)
        self.size += len(content)
        self.answers += len(content)

    def answer(self, envelope: bytes) -> None:
        """Queue an answer to this connection; it leaves at the end of this turn."""
        if self._closed:
            return
        size = len(envelope)
        self.items.append(envelope)
        self.size += size
        self.answers += size
        if not self._queued:
            self._queued = True
            self._answering.append(self)
            if not self._wakeup.scheduled:
                self._wakeup.request()

    def flush_answers(self, now: float) -> None:
        """As ``flush``, taken from the queue of those that have answers."""
        self._queued = False
        self.flush(now)

    def flush(self, now: float) -> None:
        """Seal and write what the stream takes. Called once per turn, at its end."""
        items = self.items
        if not items or self.paused:
            return
        if self.size <= limits.RECORD_CONTENT_BYTES_MAX:
            # The usual case: all of it fits one record.
            content = _joined(items)
            items.clear()
            self.size = self.answers = 0
            self._write(self.connection.seal(content, now))
            return
        start = 0
        while start < len(items) and not self.paused:
            start, content = self._next_record(start)
            self._write(self.connection.seal(content, now))
        self._keep(items[start:])
        # Answers above their bound never fit one record: they always come by here.
        if self.on_answers_read is not None and self.answers <= limits.ANSWERS_BYTES_MAX:
            called, self.on_answers_read = self.on_answers_read, None
            called()

    def _write(self, record: bytes) -> None:
        sent = write_past(self.fd, record)
        if sent < len(record):
            self.stream.write_rest(record[sent:])

    def _next_record(self, start: int) -> tuple[int, bytes]:
        """Join items from ``start`` while they fit one record; return (index after, bytes)."""
        parts = list(map(_content, self.items[start:]))
        count = count_fitting(map(len, parts), limits.RECORD_CONTENT_BYTES_MAX)
        return start + count, b"".join(parts[:count])

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

    def close(self) -> None:
        """Forget everything, and take nothing any more."""
        self.items.clear()
        self.size = self.answers = 0
        self._closed = True
        self.on_answers_read = None

    def _keep(self, items: list[Item]) -> None:
        self.items[:] = items
        self.size = sum([len(_content(item)) for item in items])
        self.answers = sum([len(item) for item in items if not isinstance(item, Batch)])
        assert self.answers <= self.size


class Flusher:
    """The outboxes of a worker that have something to write."""

    def __init__(self, clock: Callable[[], float], wakeup: Wakeup) -> None:
        self._clock = clock
        self._wakeup = wakeup
        self.answering: deque[Outbox] = deque()
        """Outboxes with answers of their own: before any others."""
        self.flushing: deque[Outbox] = deque()
        """Outboxes of a sweep that is not written yet: no other one may begin."""
        self._short_first = False
        self._started = 0.0
        self.dirty: list[Outbox] = []
        """Outboxes for the next sweep: empty before a distribution. ``fanout`` adds to it."""

    def outbox(self, connection: Connection, stream: Stream) -> Outbox:
        """Return the outbox of a new connection."""
        return Outbox(connection, stream, self.answering, self._wakeup)

    def flush_answers(self, now: float) -> None:
        """Write a slice of the answers; the turn comes again while there are some.

        One pass: operations that go on because answers have left put theirs in the next turn's.
        """
        answering = self.answering
        self._short_first = not self._short_first
        if self._short_first and len(answering) > FLUSHES_PER_CLOCK:
            # Who asks for little does not wait for all who ask without end. Every other time only:
            # many who ask for little must not keep the others waiting for ever.
            ordered = sorted(answering, key=_long)
            answering.clear()
            answering.extend(ordered)
        deadline = 0.0
        left = len(answering)
        while left:
            for _ in range(min(FLUSHES_PER_CLOCK, left)):
                answering.popleft().flush_answers(now)
                left -= 1
            if left:
                now = self._clock()
                if deadline == 0.0:
                    deadline = now + SLICE_S
                elif now >= deadline:
                    return

    def begin(self, now: float) -> None:
        """Begin a sweep: take the outboxes that were distributed to."""
        self.flushing.extend(self.dirty)
        self.dirty.clear()
        self._started = now

    def flush(self) -> tuple[float, float] | None:
        """Write one slice of a sweep.

        Returns:
            None while some of it is left; then (the time, how long all of it took), in seconds.
        """
        clock = self._clock
        now = clock()
        deadline = now + SLICE_S
        flushing = self.flushing
        # Most outboxes have the same batches as the one before: what is the same for all of them is
        # done once. The hot loop of a delivery: every call and every object that it can do without
        # counts a thousand times.
        same: list[Item] = []
        padded = EMPTY
        while flushing:
            for _ in range(min(FLUSHES_PER_CLOCK, len(flushing))):
                outbox = flushing.popleft()
                items = outbox.items
                if not items or outbox.paused:
                    continue
                if outbox.size > limits.RECORD_CONTENT_BYTES_MAX:
                    outbox.flush(now)
                    continue
                if items != same:
                    same = items.copy()
                    padded = Padded(_joined(items))
                items.clear()
                outbox.size = outbox.answers = 0
                record = outbox.connection.seal_padded(padded, now)
                sent = write_past(outbox.fd, record)
                if sent < len(record):
                    outbox.stream.write_rest(record[sent:])
            now = clock()
            if now >= deadline and flushing:
                return None
        return now, now - self._started


def _long(outbox: Outbox) -> bool:
    return outbox.answers > SHORT_BYTES


def _joined(items: list[Item]) -> bytes:
    """Return what one record has."""
    return _content(items[0]) if len(items) == 1 else b"".join(map(_content, items))


def _content(item: Item) -> bytes:
    return item.content if type(item) is Batch else item  # type: ignore[return-value]


assert limits.ANSWERS_BYTES_MAX >= limits.RECORD_CONTENT_BYTES_MAX
