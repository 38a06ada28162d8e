"""Appends new messages of one producer in a row: nearly all that busy partitions store.

What they have in common is done once. It is a shortcut for ``decide.Decision.offer``, which decides
everything else. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay.chat.entries import Submission
from relay.chat.repeats import pushed
from relay.store.log import Outcome, Stored
from relay.store.state import SEQ_BITS, SEQ_MASK, EntryRow, ProducerEnd

_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""


def append_row(
    ends: list[ProducerEnd],
    batch: list[Submission],
    first: int,
    count: int,
    *,
    now_ms: int,
    pack: Callable[[tuple[object, ...]], bytes],
    entries: list[EntryRow],
    outcomes: list[Outcome],
) -> int:
    """Append from one submission on, up to one that is no message, no new one, or of another end.

    Or up to one that names another room (``Submission.identity``).

    The log must have an epoch of this generation, and no rules for messages.

    Args:
        ends: of the producers, as in ``View.ends``.
        batch: all submissions.
        first: the first of the row.
        count: how many submissions of the batch have an end.
        now_ms: the time of the entries, unless their log's last one is later.
        pack: converts the fields of an entry to the bytes sent to readers.
        entries: receives the rows.
        outcomes: receives the outcomes.

    Returns:
        The index of the submission that was not appended.
    """
    end = ends[first]
    log = end.log
    epoch, seq, row = log.epoch, log.seq, log.id << SEQ_BITS
    begun = log.begun
    time_ms = max(now_ms, log.time_ms)  # time never goes back in a log
    counter, stack = end.counter, end.stack
    index = first
    while index < count and seq < SEQ_MASK:
        submission = batch[index]
        identity = submission.identity
        if (
            submission.counter != counter + 1
            or ends[index] is not end
            or submission.extra is not None
            or submission.kind
            or (identity and identity != epoch and identity != begun)
        ):
            break
        try:
            entry = (submission.log, epoch, seq + 1, seq, time_ms) + submission[1:8]  # noqa: RUF005
            packed = pack(entry)
        except (ValueError, TypeError, OverflowError):
            break  # ``Decision`` returns why
        outcomes.append(_new(Stored, (epoch, seq + 1, seq, packed)))
        seq += 1
        counter += 1
        chain, jump, stack = pushed(stack, counter, seq)
        entries.append((row | seq, time_ms, chain, jump, packed))
        index += 1
    if index > first:
        log.seq, log.time_ms = seq, time_ms
        end.counter, end.stack = counter, stack
    return index
