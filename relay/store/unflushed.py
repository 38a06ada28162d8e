"""Producers' last counters that are not in the table ``producer`` yet.

Writing a producer's row with each commit would add a second page to it and to each checkpoint. So a
log has a *tail*: its entries from the seq on that the table ``unflushed`` contains. The producers
of these entries are known from the entries themselves, which are read when the file is opened. A
tail is short: the commit that would make it too long *flushes* all its producers into the table.

Invariant "Once, in order". The last end of a producer is that of its last entry by seq, never the
greatest counter: a producer whose record was dropped starts again with 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import apsw

from relay.chat.entries import Entry
from relay.store.file.schema import rows
from relay.store.state import (
    SEQ_BITS,
    SEQ_MASK,
    Changes,
    Flush,
    ProducerRow,
    TailGrowth,
    row_id,
)

TAIL_MAX: Final = 64
"""Entries of a tail. Flushing one writes two pages, of which each message pays a share."""
ENTRIES_MAX: Final = 1024
"""For all tails of a partition: a few milliseconds of reading when it is opened."""
TAILS_MAX: Final = 32
"""With this many, no other log begins one. Tails are for few logs with many messages each: if there
are many logs with few messages between checkpoints, a tail ends before it has saved anything."""


@final
class Tail:
    """The entries of one log whose producers are not flushed."""

    __slots__ = ("ends", "entries", "first_seq", "readable")

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.entries = 0
        """Number of entries, including copies."""
        self.ends: dict[bytes, tuple[int, int]] = {}
        """The last counter and its seq, by producer."""
        self.readable = True
        """False if one of its entries is damaged: nothing is known about its producers."""


@final
class Unflushed:
    """The tails of a partition, as of its last commit."""

    def __init__(self, connection: apsw.Connection, unpack: Callable[[bytes], Entry]) -> None:
        """Read them.

        Args:
            connection: of the partition's writer.
            unpack: returns a packed entry, or raises any exception. A damaged page of entries does
                not raise.

        Raises:
            apsw.Error: they cannot be read. A page of entries that is damaged is no reason.
        """
        self.tail_max = TAIL_MAX
        self.entries_max = ENTRIES_MAX
        self.tails_max = TAILS_MAX
        self.entries = 0
        self._tails: dict[int, Tail] = {}
        for log_id, first_seq in rows(connection, "SELECT log_id, from_seq FROM unflushed"):
            tail = self._tails[log_id] = Tail(first_seq)
            _read(connection, log_id, tail, unpack)
            self.entries += tail.entries

    def last(self, log_id: int, producer: bytes) -> tuple[int, int] | None:
        """Return (counter, seq) of a producer's last entry in a tail; None: it is in none.

        Raises:
            apsw.CorruptError: it cannot be determined.
        """
        tail = self._tails.get(log_id)
        if tail is None:
            return None
        if not tail.readable:
            raise apsw.CorruptError("entries whose senders are not noted elsewhere are damaged")
        return tail.ends.get(producer)

    def tail_with_room(self, log_id: int) -> Tail | None:
        """Return the tail of a log if it has room for one more entry."""
        tail = self._tails.get(log_id)
        if tail is not None and (
            tail.entries + 1 >= self.tail_max
            or self.entries >= self.entries_max
            or not tail.readable
        ):
            return None
        return tail

    def grow(self, tail: Tail, producer: bytes, counter: int, seq: int) -> None:
        """Add a committed entry to a tail that had room for it."""
        tail.entries += 1
        self.entries += 1
        tail.ends[producer] = counter, seq

    def plan(self, changes: Changes) -> None:
        """Decide what a commit writes about its producers, and add it to the changes."""
        if len(changes.entries) == 1:  # the common case: one message
            row = changes.entries[0][0]
            one = TailGrowth(row >> SEQ_BITS, row & SEQ_MASK)
            one.entries = 1
            for key, end in changes.producers.items():
                if end.counter != end.committed:
                    one.producers.append((one.log_id, key[1], end.counter, end.stack[-1]))
            self._plan(one, changes)
            return
        spans: dict[int, TailGrowth] = {}
        for entry in changes.entries:
            log_id = entry[0] >> SEQ_BITS
            span = spans.get(log_id)
            if span is None:
                span = spans[log_id] = TailGrowth(log_id, entry[0] & SEQ_MASK)
            span.entries += 1
        for key, end in changes.producers.items():
            if end.counter != end.committed:
                log_id = end.log.id
                spans[log_id].producers.append((log_id, key[1], end.counter, end.stack[-1]))
        for span in spans.values():
            self._plan(span, changes)

    def _plan(self, span: TailGrowth, changes: Changes) -> None:
        log_id = span.log_id
        tail = self._tails.get(log_id)
        if tail is None:
            if not span.producers:  # only copies
                return
            small = span.entries < self.tail_max
            room = self.entries + span.entries <= self.entries_max
            tails = len(self._tails) + len(changes.tails_begun)
            if small and room and tails < self.tails_max:
                changes.tails_begun.append((log_id, span.first_seq))
                changes.tails_grown.append(span)
            else:
                changes.flush.producers += span.producers
            return
        fits = tail.entries + span.entries < self.tail_max
        if (fits and self.entries + span.entries <= self.entries_max) or not tail.readable:
            changes.tails_grown.append(span)
            return
        _add(changes.flush, log_id, tail)
        changes.flush.producers += span.producers  # after, and so instead of, earlier ends

    def apply(self, changes: Changes) -> None:
        """Update after a commit that was planned here."""
        if changes.flush.logs:
            self.flushed(changes.flush)
        for span in changes.tails_grown:
            tail = self._tails.get(span.log_id)
            if tail is None:
                tail = self._tails[span.log_id] = Tail(span.first_seq)
            tail.entries += span.entries
            self.entries += span.entries
            for row in span.producers:
                tail.ends[row[1]] = row[2], row[3]

    def all(self) -> Flush:
        """Return what to write so that no tail is left, except damaged ones."""
        flush = Flush()
        for log_id, tail in self._tails.items():
            if tail.readable:
                _add(flush, log_id, tail)
        return flush

    def upto(self, log_id: int, seq: int) -> Flush:
        """Return what to write so that the tail of a log begins after a seq."""
        flush = Flush()
        tail = self._tails.get(log_id)
        if tail is not None and tail.readable and tail.first_seq <= seq:
            _add(flush, log_id, tail)
        return flush

    def flushed(self, flush: Flush) -> None:
        """Update after the flush was committed."""
        for (log_id,) in flush.logs:
            self.entries -= self._tails.pop(log_id).entries


def _add(flush: Flush, log_id: int, tail: Tail) -> None:
    flush.logs.append((log_id,))
    producers: list[ProducerRow] = flush.producers
    for producer, (counter, seq) in tail.ends.items():
        producers.append((log_id, producer, counter, seq))


def _read(
    connection: apsw.Connection, log_id: int, tail: Tail, unpack: Callable[[bytes], Entry]
) -> None:
    try:
        found = rows(
            connection,
            "SELECT id, chain, packed FROM entry WHERE id BETWEEN ? AND ? ORDER BY id",
            (row_id(log_id, tail.first_seq), row_id(log_id, SEQ_MASK)),
        )
        tail.entries = len(found)
        for row, chain, packed in found:
            if chain >= 0:  # otherwise a copy of a direct message (``derived.copy_links``)
                entry = unpack(packed)
                if entry.seq != row & SEQ_MASK:
                    tail.readable = False  # the entry of another place
                tail.ends[entry.producer] = entry.counter, row & SEQ_MASK
    except apsw.CorruptError:
        tail.readable = False
    except apsw.Error:
        raise
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever the codec raises for bytes it did not make
        tail.readable = False
