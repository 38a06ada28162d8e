"""Pending output of one connection: its own bytes (answers) and references to shared batches.

An outbox counts the pending bytes of a connection (invariant "Falling behind"); only
``member.fanout``, which adds batches to it, also adds their size. Nothing is sealed before it can
be sent: a sealed record cannot be withdrawn, because the nonce sequence is implicit. The transport
holds at most the rest of one record that the kernel did not accept, the outbox at most
``OUTBOX_BYTES_MAX`` of references, and the kernel at most ``KERNEL_NOTSENT_LOWAT_BYTES`` of unsent
bytes.

A worker's ``Flusher`` writes all outboxes in a turn: answers first, then fan-out, in slices of
time. During a rush of logins (``rush``) it *sets aside* the outboxes of the clients that logged in
since it began, and writes them together, with pauses in between. Otherwise each login would make
the next one slower: a message to a room would be one more record for everyone who is back.
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
    from relay.server.worker.delivery.rush import Rush
    from relay.server.worker.delivery.stream import Stream
    from relay.server.worker.wakeup import Wakeup
    from relay.wire.cipher import SendCipher
    from relay.wire.connection import Connection

Item = bytes | Batch
SLICE_S: Final = 0.005
"""Time for writes per loop iteration before yielding (docs/architecture.md, "Slices")."""
ASIDE_SLICE_S: Final = 0.002
"""The same for outboxes that are set aside."""
ASIDE_REST: Final = 9.0
"""Pause after all of them were written, as a multiple of the time that this took: a tenth of the
time at most."""
ASIDE_REST_S_MAX: Final = 1.0
FLUSHES_PER_CLOCK: Final = 32
SHORT_BYTES: Final = 1024
"""Limit for the answers of a light user."""
JOINED_BYTES: Final = 1024
"""Answers are joined up to this size while the client does not read: short ones, of five bytes,
take ten times as much when each is an object of its own."""
EMPTY: Final = Padded(b"")


class Outbox(Sink):
    """Pending output of one connection: one record and one write per loop iteration, if it fits."""

    __slots__ = (
        "_answering", "_closed", "_connection", "_wakeup", "answers", "cipher", "items",
        "on_answers_read", "page_due", "queued", "rush", "size", "stream",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, stream: Stream, answering: deque[Outbox], wakeup: Wakeup
    ) -> None:
        """Create an empty outbox. Called by ``Flusher.outbox``.

        Args:
            connection: seals records.
            stream: the records are written to it.
            answering: the queue of outboxes with answers, which are flushed before others.
            wakeup: requests the turn that flushes.
        """
        super().__init__()
        self._connection = connection
        self.cipher: SendCipher | None = None
        """Seals records directly; None before the first one."""
        self.stream = stream
        self._answering = answering
        self._wakeup = wakeup
        self.queued = False
        """True while it is in the queue of those with answers."""
        self._closed = False
        self.items: list[Item] = []
        self.size = 0
        """Bytes of all items. ``fanout`` updates it directly when it adds batches: that is the hot
        loop."""
        self.answers = 0
        """Bytes of the connection's own items."""
        self.on_answers_read: Callable[[], None] | None = None
        """Called once, when the answers are down to ``ANSWERS_BYTES_MAX`` again."""
        self.rush = 0
        """Number of the rush in which the client logged in; 0: in none."""
        self.page_due = False
        """True while a page for this connection is queued (``catchup``)."""

    def put(self, content: bytes) -> None:
        """Queue whole envelopes for this connection alone. They are never dropped."""
        self.items.append(content)
        self.size += len(content)
        self.answers += len(content)

    def answer(self, envelope: bytes) -> None:
        """Queue an answer to this connection; it is sent at the end of this turn."""
        if self._closed:
            return
        size = len(envelope)
        items = self.items
        last = items[-1] if self.paused and items else None
        if type(last) is bytes and len(last) + size <= JOINED_BYTES:
            items[-1] = last + envelope
        else:
            items.append(envelope)
        self.size += size
        self.answers += size
        if not self.queued:
            self.queued = True
            self._answering.append(self)
            if not self._wakeup.scheduled:
                self._wakeup.request()

    def flush(self, now: float) -> None:
        """Seal and write as much as the stream accepts. Called once per turn, at its end."""
        items = self.items
        if not items or self.paused:
            return
        if self.size <= limits.RECORD_CONTENT_BYTES_MAX:
            # The usual case: everything fits one record.
            content = _joined(items)
            items.clear()
            self.size = self.answers = 0
            self._write(content, now)
            return
        start = 0
        while start < len(items) and not self.paused:
            start, content = self._next_record(start)
            self._write(content, now)
        self._keep(items[start:])
        # Answers above the limit never fit one record, so this path always sees them.
        if self.on_answers_read is not None and self.answers <= limits.ANSWERS_BYTES_MAX:
            called, self.on_answers_read = self.on_answers_read, None
            called()

    def seal(self, content: bytes, now: float) -> bytes:
        """Return a record, after whatever the connection has to send first."""
        record = self._connection.seal(content, now)
        self.cipher = self._connection.send_cipher
        return record

    def _write(self, content: bytes, now: float) -> None:
        """Seal and write one record."""
        cipher = self.cipher
        record = b""
        if cipher is not None and cipher.direct:
            record = cipher.seal_padded(Padded(content), now)
        if not record:
            record = self.seal(content, now)
        sent = write_past(self.fd, record)
        if sent < len(record):
            self.stream.write_rest(record[sent:])

    def _next_record(self, start: int) -> tuple[int, bytes]:
        """Join items from ``start`` while they fit one record. Return (index after them, bytes)."""
        parts = list(map(_content, self.items[start:]))
        count = count_fitting(map(len, parts), limits.RECORD_CONTENT_BYTES_MAX)
        return start + count, b"".join(parts[:count])

    def drop_batches(self) -> dict[str, Batch]:
        """Drop all shared batches. Return the first dropped batch of each log (its cursor).

        The connection's own answers stay, in order.
        """
        first: dict[str, Batch] = {}
        for item in self.items:
            if isinstance(item, Batch) and item.last != EVENT:
                first.setdefault(item.log, item)
        self._keep([item for item in self.items if not isinstance(item, Batch)])
        return first

    def close(self) -> None:
        """Drop everything, and accept nothing more."""
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

    def __init__(self, clock: Callable[[], float], wakeup: Wakeup, rush: Rush) -> None:
        self._clock = clock
        self._wakeup = wakeup
        self._rush = rush
        self.answering: deque[Outbox] = deque()
        """Outboxes with answers; written before all others."""
        self.flushing: deque[Outbox] = deque()
        """Outboxes of the current sweep that are not written yet. Only one sweep runs at a time."""
        self.before_pages: deque[Outbox] = deque()
        """Those of ``answering`` for which a page is due: it goes into the same record if it is
        read in this turn."""
        self._short_first = False
        self._started = 0.0
        self.dirty: list[Outbox] = []
        """Outboxes for the next sweep; empty before a distribution. ``fanout`` appends to it."""
        self.aside: deque[Outbox] = deque()
        """Outboxes that are set aside until ``aside_at``."""
        self.aside_at = 0.0
        self._aside_left = 0
        """Number of them that are being written now; the others were added since."""
        self._aside_s = 0.0
        """Time used for them."""

    def outbox(self, connection: Connection, stream: Stream) -> Outbox:
        """Return the outbox of a new connection."""
        return Outbox(connection, stream, self.answering, self._wakeup)

    def flush_answers(self, now: float) -> None:
        """Write a slice of the answers; another turn follows while there are more.

        One pass: operations that continue because answers were sent queue theirs for the next turn.
        """
        answering = self.answering
        self._short_first = not self._short_first
        if self._short_first and len(answering) > FLUSHES_PER_CLOCK:
            # Light users do not wait for heavy ones. Only every other time, so that many light
            # users cannot keep the others waiting for ever.
            ordered = sorted(answering, key=_long)
            answering.clear()
            answering.extend(ordered)
        deadline = 0.0
        left = len(answering)
        while left:
            for _ in range(min(FLUSHES_PER_CLOCK, left)):
                outbox = answering.popleft()
                if outbox.page_due:
                    self.before_pages.append(outbox)
                else:
                    outbox.queued = False
                    outbox.flush(now)
                left -= 1
            if left:
                now = self._clock()
                if deadline == 0.0:
                    deadline = now + SLICE_S
                elif now >= deadline:
                    return

    def flush_before_pages(self, now: float) -> None:
        """Write a slice of the answers that had to wait for pages, with or without these.

        When the head of a large room becomes known, all who wait for it are answered in one turn.
        """
        waiting = self.before_pages
        deadline = 0.0
        while waiting:
            for _ in range(min(FLUSHES_PER_CLOCK, len(waiting))):
                outbox = waiting.popleft()
                outbox.queued = False
                outbox.flush(now)
            now = self._clock()
            if deadline == 0.0:
                deadline = now + SLICE_S
            elif now >= deadline:
                return

    def begin(self, now: float) -> None:
        """Begin a sweep over the outboxes that batches were distributed to."""
        if now < self._rush.until:
            rush = self._rush.number
            for outbox in self.dirty:
                (self.aside if outbox.rush == rush else self.flushing).append(outbox)
        else:
            if self.aside:  # the rush has ended
                self.flushing.extend(self.aside)
                self.aside.clear()
                self._aside_left = 0
            self.flushing.extend(self.dirty)
        self.dirty.clear()
        self._started = now

    def flush(self) -> tuple[float, float] | None:
        """Write one slice of a sweep.

        Returns:
            None while some of it is left; then (the current time, the duration of the sweep), in
            seconds.
        """
        now = self._clock()
        now = self._write(self.flushing, len(self.flushing), now, now + SLICE_S)
        return None if self.flushing else (now, now - self._started)

    def flush_aside(self) -> bool:
        """Write one slice of the outboxes that are set aside, if their pause has ended.

        Returns True if there is more to write now.
        """
        began = self._clock()
        if not self._aside_left:
            if began < self.aside_at:
                return False
            self._aside_left = len(self.aside)
        left = len(self.aside)
        now = self._write(self.aside, self._aside_left, began, began + ASIDE_SLICE_S)
        self._aside_left -= left - len(self.aside)
        self._aside_s += now - began
        if self._aside_left:
            return True
        self.aside_at = now + min(ASIDE_REST * self._aside_s, ASIDE_REST_S_MAX)
        self._aside_s = 0.0
        return False

    def relieve(self, outbox: Outbox) -> None:
        """Write an outbox that is full because it was set aside: its client is not slow."""
        if outbox.rush and not outbox.paused:
            outbox.flush(self._clock())

    def _write(self, queue: deque[Outbox], count: int, now: float, deadline: float) -> float:
        """Write up to ``count`` outboxes, at least a few, until ``deadline``. Return the time."""
        # Most outboxes contain the same batches as the previous one, so work that is the same for
        # all is done once. This is the hot loop of a delivery: every avoidable call and object
        # counts a thousand times.
        same: list[Item] = []
        padded = EMPTY
        while count:
            few = min(FLUSHES_PER_CLOCK, count)
            count -= few
            for _ in range(few):
                outbox = queue.popleft()
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
                cipher = outbox.cipher
                record = cipher.seal_padded(padded, now) if cipher is not None else b""
                if not record:
                    record = outbox.seal(padded.content, now)
                sent = write_past(outbox.fd, record)
                if sent < len(record):
                    outbox.stream.write_rest(record[sent:])
            now = self._clock()
            if now >= deadline:
                break
        return now


def _long(outbox: Outbox) -> bool:
    return outbox.answers > SHORT_BYTES


def _joined(items: list[Item]) -> bytes:
    """Return the content of one record."""
    if len(items) > 1:
        return b"".join(map(_content, items))
    item = items[0]
    return item.content if type(item) is Batch else item  # type: ignore[return-value]


def _content(item: Item) -> bytes:
    return item.content if type(item) is Batch else item  # type: ignore[return-value]


assert limits.ANSWERS_BYTES_MAX >= limits.RECORD_CONTENT_BYTES_MAX
