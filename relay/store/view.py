"""Reads what a decision needs, within a budget.

In the usual case everything is cached and nothing is read. Reads are counted and charged to the
submission that causes them: a new or uncached log or producer costs a few reads, the entry of a
used counter up to two for each level of the skip list (``chat.repeats``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import apsw

from relay import limits
from relay.chat.dedup import Place, place
from relay.chat.entries import Entry, Extra, Kind, Submission
from relay.chat.repeats import Descent
from relay.errors import EnvelopeError
from relay.store.committed import Committed
from relay.store.read_budget import ReadBudget
from relay.store.rules import Rules
from relay.store.state import (
    DAMAGED,
    NO_LOG,
    UNREADABLE,
    LogEnd,
    Original,
    ProducerEnd,
    ProducerKey,
    Target,
    View,
    row_id,
)
from relay.store.stub import is_stub

NEW_LOG_READS: Final = 24
"""The cost of creating a log: rows in four tables and two indexes, mostly on separate pages."""
STATE_BYTES_PER_READ: Final = 64
"""The cost of a log's state, where it is decoded, or changed and encoded again. Of a room of 1,500
people it is 75 kB, and a change takes as long as a thousand reads: a commit begins no second one.
"""
UnpackEntry = Callable[[bytes], Entry]
"""packed ENTRY -> the entry."""
REDACTION: Final = int(Kind.REDACTION)
EDIT_OR_REDACTION: Final = (int(Kind.EDIT), REDACTION)
MARK: Final = int(Kind.MARK)
SYSTEM: Final = int(Kind.SYSTEM)


def load(
    committed: Committed,
    batch: list[Submission],
    *,
    generation: int,
    unpack_entry: UnpackEntry,
    budget: ReadBudget | None,
    rules: Rules | None = None,
) -> View:
    """Return a view for the first submissions of a batch: at least one, if there is any.

    It covers all of them unless the budget is used up, or one is a copy about another copy of the
    batch, whose position in this log is known only once it is committed.

    Raises:
        apsw.Error: the file cannot be read.
    """
    view = View(generation)
    producers, ends = view.producers, view.ends
    originals: _Originals | None = None
    began = before = committed.reads
    copied: set[tuple[str, str, bytes, int]] = set()
    """The target logs of this batch's copies, with the inboxes and entries that they copy."""
    # Of the previous submission: consecutive ones often have the same producer and log.
    log, producer, end = "", b"", UNREADABLE
    for submission in batch:
        if budget is not None:
            before = committed.reads
            if before != began and _used_up(budget, before - began):
                break
        extra = submission.extra
        if extra is not None and extra.origin_seq:
            about = submission.log, extra.about_in, extra.about_epoch, extra.about_seq
            if about in copied:
                break
            copied.add((submission.log, submission.sender, extra.origin_epoch, extra.origin_seq))
            key = submission.log, submission.producer
            ends.append(_copied(view, committed, key, submission, extra, unpack_entry))
            if budget is not None:
                budget.spent.append(committed.reads - before)
            continue
        if submission.log is not log or submission.producer is not producer:
            log, producer = key = submission.log, submission.producer
            end = producers.get(key) or _producer(view, committed, key)
        if submission.identity and end.log.begun is None and rules is not None:
            _read_begun(view, committed, end.log, submission, rules)
        decided = end
        if submission.counter <= end.counter:
            if originals is None:
                committed.begin_reads()
                originals = _Originals(view, committed, unpack_entry)
            originals.read(end, submission)
        elif extra is not None and extra.about_seq and submission.kind != MARK:
            place = extra.about_epoch, extra.about_seq
            try:
                _look_at(view, committed, end.log, submission, place, unpack_entry)
            except apsw.CorruptError:
                decided = UNREADABLE  # affects one submission: what precedes it may be intact
        ends.append(decided)
        if submission.kind == SYSTEM and submission.counter > end.counter:
            committed.reads += len(end.log.packed_state) // STATE_BYTES_PER_READ
        if budget is not None:
            budget.spent.append(committed.reads - before)
    if originals is not None:
        committed.end_reads()
    return view


def _used_up(budget: ReadBudget, reads: int) -> bool:
    return reads >= budget.reads_max or time.monotonic() >= budget.until_s


def _producer(view: View, committed: Committed, key: ProducerKey) -> ProducerEnd:
    """Return the end of a producer, which a decision may modify, and add it to the view."""
    try:
        log = _log(view, committed, key[0])
        known = committed.producer(key, log.id) if log.id else None
    except apsw.CorruptError:
        return UNREADABLE  # affects one log: others may be intact
    counter, stack = (0, ()) if known is None else known
    found = view.producers[key] = ProducerEnd(log, counter, stack, counter)
    return found


def _log(view: View, committed: Committed, name: str) -> LogEnd:
    log = view.logs.get(name)
    if log is None:
        end = committed.log(name)
        if end is None:
            view.next_log_id = committed.next_log_id()
            committed.reads += NEW_LOG_READS
        elif end.guarded and end.state is None:  # the rules will decode it
            committed.reads += len(end.packed_state) // STATE_BYTES_PER_READ
        log = view.logs[name] = NO_LOG.copy() if end is None else end.copy()
    return log


def _read_begun(
    view: View, committed: Committed, log: LogEnd, submission: Submission, rules: Rules
) -> None:
    """Read with which epoch a room began, if it must be known (``refusals.for_another_room``).

    It stays unknown if the room's state is damaged, or a page of the epochs.
    """
    if not log.id or (submission.identity == log.epoch and log.generation == view.generation):
        return  # mostly: a room has one epoch
    if log.state is None:
        committed.reads += len(log.packed_state) // STATE_BYTES_PER_READ
    try:
        begun = committed.epoch_at(log, rules.began(log, submission))
    except (EnvelopeError, apsw.CorruptError):
        return  # affects one log: others may be intact
    log.begun = begun
    known = committed.remembered_log(submission.log)
    if known is not None:
        known.begun = begun  # ``log`` is a copy, and is dropped if nothing is stored


def _copied(
    view: View,
    committed: Committed,
    key: ProducerKey,
    submission: Submission,
    extra: Extra,
    unpack_entry: UnpackEntry,
) -> ProducerEnd:
    """As ``_producer``, for copies: the source inbox takes the role of a producer."""
    try:
        end = view.copies.get(key)
        if end is None:
            log = _log(view, committed, key[0])
            taken = (
                committed.taken(key, log.id, submission.sender, extra.origin_epoch) if log.id else 0
            )
            end = view.copies[key] = ProducerEnd(log, taken, (), taken)
        if extra.about_seq:
            place = extra.about_epoch, extra.about_seq
            if extra.about_in:
                seq = committed.copy_of(end.log.id, extra.about_in, *place) if end.log.id else 0
                place = committed.epoch_at(end.log, seq) if seq else b"", seq
                view.places[submission] = place
            _look_at(view, committed, end.log, submission, place, unpack_entry)
    except apsw.CorruptError:
        return UNREADABLE
    return end


def _look_at(
    view: View,
    committed: Committed,
    log: LogEnd,
    submission: Submission,
    place: tuple[bytes, int],
    unpack_entry: UnpackEntry,
) -> None:
    """Read the entry that a submission is about, and what is needed about its edits.

    For a redaction all edits; for another edit only their number, unless the sender's inbox has
    already accepted it.

    Raises:
        apsw.CorruptError: its edits are on a damaged page. An entry that cannot be read counts as
            missing.
    """
    epoch, seq = place
    where = submission.log, epoch, seq
    if log.id and 0 < seq <= log.seq and where not in view.targets:
        found = _target(committed, log, seq, unpack_entry)
        if found is not None and found.entry.epoch == epoch:
            view.targets[where] = found
    kind = submission.kind
    if kind not in EDIT_OR_REDACTION or where not in view.targets:
        return
    message = submission.log, seq
    if kind == REDACTION:
        if message not in view.edits:
            found_edits = [
                _target(committed, log, one, unpack_entry) for one in committed.edits(log.id, seq)
            ]
            view.edits[message] = [edit for edit in found_edits if edit is not None]
    elif message not in view.edit_counts and not (submission.extra and submission.extra.origin_seq):
        view.edit_counts[message] = committed.count_edits(log.id, seq, limits.EDITS_MAX)


def _target(
    committed: Committed, log: LogEnd, seq: int, unpack_entry: UnpackEntry
) -> Target | None:
    row = row_id(log.id, seq)
    try:
        packed = committed.packed(row)
    except apsw.CorruptError:  # a damaged page: as if not there
        return None
    try:
        return None if packed is None else Target(row, unpack_entry(packed))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever the codec raises for bytes it did not make
        return None


class _Originals:
    """Finds the entries of counters that were used before."""

    def __init__(self, view: View, committed: Committed, unpack_entry: UnpackEntry) -> None:
        self._committed = committed
        self._unpack_entry = unpack_entry
        self._found = view.originals
        self._descents: dict[ProducerKey, Descent] = {}
        self._links: dict[int, tuple[int, int] | None] = {}
        """Links of the entries visited: later searches often pass through the same ones."""

    def read(self, end: ProducerEnd, submission: Submission) -> None:
        """Read the entry that a used counter was used for, unless it is too old to search for."""
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
            epoch = end.log.epoch if packed is None else self._committed.epoch_at(end.log, seq)
        except apsw.CorruptError:
            # A damaged page of old entries or epochs: the file's ends can be read, so new messages
            # can be stored.
            self._found[where] = DAMAGED
            return
        if packed is None:
            self._found[where] = Original(0, epoch, None)
            return
        if is_stub(packed):
            self._found[where] = Original(seq, epoch, None, packed)
            return
        try:
            entry = self._unpack_entry(packed)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whatever the codec raises for bytes it did not make
            self._found[where] = DAMAGED
            return
        self._found[where] = Original(seq, epoch, entry)

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
