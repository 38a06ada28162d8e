"""Reading what a decision needs to know, as far as a budget allows.

In the usual case everything is remembered and nothing is read. What is read is counted and charged
to the submission that it is read for: a new or forgotten log or producer costs a few reads, the
entry of a used counter up to two for each level of the skip list (``chat.repeats``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import apsw

from relay.chat.dedup import Place, place
from relay.chat.entries import Content, Submission
from relay.chat.repeats import Descent
from relay.store.committed import Committed
from relay.store.log import ReadBudget
from relay.store.state import (
    DAMAGED,
    NO_LOG,
    UNREADABLE,
    Original,
    ProducerEnd,
    ProducerKey,
    View,
    row_id,
)

NEW_LOG_READS: Final = 24
"""What beginning a log counts as: rows in four tables and two indexes, most of them on pages of
their own."""
UnpackContent = Callable[[bytes], Content]
"""packed ENTRY -> what it says."""


def load(
    committed: Committed,
    batch: list[Submission],
    *,
    generation: int,
    unpack_content: UnpackContent,
    budget: ReadBudget | None,
) -> View:
    """Return a view for the first submissions of a batch: one at least, if there is any.

    It is for all of them unless the budget is used up.

    Raises:
        apsw.Error: the file cannot be read.
    """
    view = View(generation)
    producers, ends = view.producers, view.ends
    originals: _Originals | None = None
    began = before = committed.reads
    for submission in batch:
        if budget is not None:
            before = committed.reads
            if before != began and _used_up(budget, before - began):
                break
        key = submission.log, submission.producer
        end = producers.get(key)
        if end is None:
            end = _producer(view, committed, key)
        if submission.counter <= end.counter:
            if originals is None:
                committed.begin_reads()
                originals = _Originals(view, committed, unpack_content)
            originals.read(end, submission)
        ends.append(end)
        if budget is not None:
            budget.spent.append(committed.reads - before)
    if originals is not None:
        committed.end_reads()
    return view


def _used_up(budget: ReadBudget, reads: int) -> bool:
    return reads >= budget.reads_max or time.monotonic() >= budget.until_s


def _producer(view: View, committed: Committed, key: ProducerKey) -> ProducerEnd:
    """Return the end of a producer, which a decision may change, and note it in the view."""
    name = key[0]
    try:
        log = view.logs.get(name)
        if log is None:
            end = committed.log(name)
            if end is None:
                view.next_log_id = committed.next_log_id()
                committed.reads += NEW_LOG_READS
            log = view.logs[name] = NO_LOG.copy() if end is None else end.copy()
        known = committed.producer(key, log.id) if log.id else None
    except apsw.CorruptError:
        return UNREADABLE  # the pages of one log: others may be whole
    counter, stack = (0, ()) if known is None else known
    found = view.producers[key] = ProducerEnd(log, counter, stack, counter)
    return found


class _Originals:
    """Finds the entries of counters that were used before."""

    def __init__(self, view: View, committed: Committed, unpack_content: UnpackContent) -> None:
        self._committed = committed
        self._unpack_content = unpack_content
        self._found = view.originals
        self._descents: dict[ProducerKey, Descent] = {}
        self._links: dict[int, tuple[int, int] | None] = {}
        """What was read of entries on the way down: the next descent often passes there."""

    def read(self, end: ProducerEnd, submission: Submission) -> None:
        """Read what a used counter was used for, unless it is too old to be looked for."""
        log, producer, counter = submission.log, submission.producer, submission.counter
        where = log, producer, counter
        if where in self._found or place(counter, end.counter) is not Place.USED:
            return
        log_id = end.log.id
        try:
            seq = self._descent(end, submission).find(
                counter, lambda at: self._links_of(row_id(log_id, at))
            )
            packed = self._committed.packed(row_id(log_id, seq)) if seq else None
        except apsw.CorruptError:
            # A page of old entries: the file's ends can be read, so what is new can be stored.
            self._found[where] = DAMAGED
            return
        if packed is None:
            self._found[where] = Original(0, end.log.epoch, None)
            return
        try:
            content = self._unpack_content(packed)
        except Exception:  # noqa: BLE001 - whatever the codec raises for bytes it did not make
            self._found[where] = DAMAGED
            return
        self._found[where] = Original(seq, self._committed.epoch_at(end.log, seq), content)

    def _descent(self, end: ProducerEnd, submission: Submission) -> Descent:
        key = submission.log, submission.producer
        descent = self._descents.get(key)
        if descent is None:
            descent = self._descents[key] = Descent(end.counter, end.stack[-1])
        return descent

    def _links_of(self, row: int) -> tuple[int, int] | None:
        if row not in self._links:
            self._links[row] = self._committed.links(row)
        return self._links[row]
