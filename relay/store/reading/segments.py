"""Reads as many of a log's epochs as are needed to resume a reader.

A room may have been created many times, each time with a new epoch.
"""

from __future__ import annotations

from typing import Final

import apsw

from relay.chat.entries import NO_EPOCH, Cursor
from relay.store.file.schema import rows
from relay.store.reading.resume import LogView, Segment
from relay.store.state import SEQ_MASK, row_id

LOOKED_AT_MAX: Final = 1000
"""Segments to search on each side of a cursor if its epoch is not at the cursor. This happens if a
backup does not contain it, and for invented cursors."""
_BOUNDS: Final = (
    "SELECT floor, (SELECT max(id) FROM entry WHERE id BETWEEN ? AND ?) FROM log WHERE id=?"
)
_UPTO: Final = (
    "SELECT first_seq, epoch FROM epoch WHERE log_id=? AND first_seq<=? "
    "ORDER BY first_seq DESC LIMIT ?"
)
_EPOCH_UPTO: Final = f"SELECT first_seq, epoch FROM ({_UPTO}) WHERE epoch=?"  # noqa: S608 - all of it is above
_BEHIND: Final = (
    "SELECT first_seq, epoch FROM epoch WHERE log_id=? AND first_seq>? AND first_seq<=? "
    "ORDER BY first_seq LIMIT ?"
)
_EPOCH_BEHIND: Final = f"SELECT first_seq, epoch FROM ({_BEHIND}) WHERE epoch=?"  # noqa: S608 - likewise


def read_view(connection: apsw.Connection, log_id: int) -> LogView:
    """Return the bounds of a log, and its last segment."""
    first, last = row_id(log_id, 1), row_id(log_id, SEQ_MASK)
    floor, top = rows(connection, _BOUNDS, (first, last, log_id))[0]
    end = floor if top is None else max(floor, top & SEQ_MASK)
    # Read after the end of the log: what was committed in between is left out.
    return LogView(floor, end, _upto(connection, log_id, end))


def read_view_of(
    connection: apsw.Connection, log_id: int, cursor: Cursor, head_seq: int
) -> LogView:
    """Return the bounds of a log, and the segments that ``resume_point`` needs, in order.

    They are the last one, that of the cursor and the next, those of the floor and of the head, and
    the one before that.
    """
    view = read_view(connection, log_id)
    floor, end, newest = view
    known = cursor.epoch == NO_EPOCH or [cursor.epoch] == [segment.epoch for segment in newest]
    if known and floor <= cursor.seq <= end:
        return view  # the common case: it continues there, and no other segment matters
    found = {
        *newest,
        *_upto(connection, log_id, floor),
        *_upto(connection, log_id, min(head_seq, end), 2),
    }
    if not known:
        mine = _of_epoch(connection, log_id, cursor, end)
        if mine is not None:
            found |= {mine, *_behind(connection, log_id, mine.first_seq, end, 1)}
    return view._replace(segments=sorted(found))


def _of_epoch(connection: apsw.Connection, log_id: int, cursor: Cursor, end: int) -> Segment | None:
    seq = min(cursor.seq, end)
    for query, *bounds in (
        (_EPOCH_UPTO, seq, 1),
        (_EPOCH_UPTO, seq, LOOKED_AT_MAX),
        (_EPOCH_BEHIND, seq, end, LOOKED_AT_MAX),
    ):
        for row in rows(connection, query, (log_id, *bounds, cursor.epoch)):
            return Segment(*row)
    return None


def _upto(connection: apsw.Connection, log_id: int, seq: int, count: int = 1) -> list[Segment]:
    return [Segment(*row) for row in rows(connection, _UPTO, (log_id, seq, count))]


def _behind(
    connection: apsw.Connection, log_id: int, seq: int, end: int, count: int
) -> list[Segment]:
    return [Segment(*row) for row in rows(connection, _BEHIND, (log_id, seq, end, count))]
