"""Decides where a reader continues, given what the store knows of the log.

Invariant "Epochs are segments".
"""

from __future__ import annotations

from typing import NamedTuple

from relay.chat.entries import NO_EPOCH, Cursor, GapInfo, GapReason, Head
from relay.store.log import ResumePoint


class Segment(NamedTuple):
    """The log is in this epoch from ``first_seq`` on."""

    first_seq: int
    epoch: bytes


class LogView(NamedTuple):
    """The committed state of a log. ``end`` may be above the head that a worker has applied."""

    floor: int
    end: int
    segments: list[Segment]


def resume_point(view: LogView | None, cursor: Cursor, head: Head) -> ResumePoint:
    """Return where a reader with this cursor continues.

    Args:
        view: the log in the store, or None if there is no such log.
        cursor: the last entry that the reader has.
        head: the last entry that this worker shows (H of invariant "One seam").
    """
    view = view or LogView(0, 0, [])
    epochs = [segment.epoch for segment in view.segments]
    if cursor.epoch == NO_EPOCH:
        ended = None
    elif cursor.epoch in epochs[:-1]:
        ended = view.segments[epochs.index(cursor.epoch) + 1].first_seq - 1
    elif cursor.epoch in epochs:
        ended = None
    else:
        return _unknown_epoch(view, cursor, head)
    if ended is not None and cursor.seq > ended:
        return _gap(view, cursor, ended, GapReason.EPOCH)
    if cursor.seq > view.end:
        return _gap(view, cursor, head.seq, GapReason.AHEAD)
    if cursor.seq < view.floor:
        return _gap(view, cursor, view.floor, GapReason.RETENTION)
    # It may be above the head: then this worker is behind the reader's previous one.
    return ResumePoint(cursor.seq, None)


def _unknown_epoch(view: LogView, cursor: Cursor, head: Head) -> ResumePoint:
    """The store has lost the epoch, or was replaced by an older backup.

    The reader has what was in the backup. Later entries are in the newest epoch; if there were
    several new epochs, the entries of the older ones are part of the gap.
    """
    shown = [segment for segment in view.segments if segment.first_seq <= head.seq]
    after = shown[-1].first_seq - 1 if shown else 0
    return _gap(view, cursor, after, GapReason.EPOCH)


def _gap(view: LogView, cursor: Cursor, after: int, reason: GapReason) -> ResumePoint:
    after = max(after, view.floor)
    epoch = NO_EPOCH
    for segment in view.segments:
        if segment.first_seq <= after:
            epoch = segment.epoch
    return ResumePoint(after, GapInfo(cursor, Cursor(epoch, after), reason))
