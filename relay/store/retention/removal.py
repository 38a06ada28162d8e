"""Removes entries from the beginning of a log. Their content goes; repeats are still recognised.

The log's ``floor`` is the last removed entry. The rows up to it stay, each with a hash instead of
its content, so that a resend is still recognised and distinguished from other content under the
same id. Entries of kind *system* stay complete, because the states of accounts and rooms result
from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import apsw

from relay.chat.entries import Kind
from relay.store.apply import ENTRY
from relay.store.file.schema import rows
from relay.store.log import Removed
from relay.store.state import SEQ_MASK, row_id
from relay.store.stub import STUB_OF_ERASED, stub_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.chat.entries import Entry
    from relay.store.view import UnpackEntry

ROWS_PER_STEP: Final = 128
BYTES_PER_STEP: Final = 512 * 1024
"""At least one entry. A step is one commit, of about a millisecond."""
_CONTROLS: Final = (
    "SELECT id, CAST(packed AS BLOB) "
    "FROM control JOIN entry ON entry.id=control.log_id << 40 | control.seq "
    "WHERE log_id=? AND seq<=? ORDER BY seq LIMIT ?"
)
_NEXT: Final = (
    "SELECT id, time_ms, chain, jump, CAST(packed AS BLOB), EXISTS "
    "(SELECT * FROM control WHERE log_id=entry.id >> 40 AND seq=entry.id & 0xFFFFFFFFFF) "
    "FROM entry WHERE id>? AND id<=? ORDER BY id LIMIT ?"
)
"""Last: whether it is listed as a control entry, which then stays even if it is unreadable."""


def remove(
    connection: apsw.Connection, name: str, upto: int, controls_upto: int, unpack: UnpackEntry
) -> Removed:
    """Remove the next entries of a log, inside the caller's transaction.

    Args:
        connection: of the partition's writer.
        name: of the log.
        upto: the last entry to remove. An entry that is still to be copied to another inbox stays,
            with everything after it; so does an entry that is the only record of its producer
            (``unflushed``).
        controls_upto: up to here those of kind *system* are removed, too: they belong to a room
            that has ended, or to a removed account. For an account, its read marks and the time of
            its last connection are removed with them. 0: none.
        unpack: returns a packed entry.

    Raises:
        apsw.Error: it cannot be read or written.
    """
    found = rows(connection, "SELECT id, floor FROM log WHERE name=?", (name,))
    if not found:
        return Removed(0, 0, 0)
    log_id, floor = found[0]
    pending = rows(connection, "SELECT min(seq) FROM pending WHERE log_id=?", (log_id,))[0][0]
    if pending is not None:
        upto = min(upto, pending - 1)
    for (from_seq,) in rows(connection, "SELECT from_seq FROM unflushed WHERE log_id=?", (log_id,)):
        upto = min(upto, from_seq - 1)
    stubs: list[tuple[int, int, int, int, bytes]] = []
    size, floor_ms, before = 0, 0, floor
    for row, time_ms, chain, jump, packed, control in rows(
        connection, _NEXT, (row_id(log_id, floor), row_id(log_id, upto), ROWS_PER_STEP)
    ):
        if not control and (stub := _stub(packed, unpack)) is not None:
            stubs.append((row, time_ms, chain, jump, stub))
            size += len(packed)
        floor, floor_ms = row & SEQ_MASK, time_ms
        if size >= BYTES_PER_STEP:
            break
    ended = rows(connection, _CONTROLS, (log_id, min(controls_upto, floor), ROWS_PER_STEP))
    # Not an UPDATE: SQLite would leave each stub on its entry's page, and no page would ever become
    # free. After a DELETE, pages can be merged.
    connection.executemany("DELETE FROM entry WHERE id=?", [(stub[0],) for stub in stubs])
    connection.executemany(ENTRY, stubs)
    for row, packed in ended:
        connection.execute(
            "UPDATE entry SET packed=? WHERE id=?", (_stub(packed, unpack, control=True), row)
        )
        size += len(packed)
    if ended:
        last = ended[-1][0] & SEQ_MASK
        connection.execute("DELETE FROM control WHERE log_id=? AND seq<=?", (log_id, last))
    gone = len(ended)
    if controls_upto:
        connection.execute("DELETE FROM mark WHERE log_id=?", (log_id,))
        gone += connection.changes()
        connection.execute("DELETE FROM fold WHERE log_id=?", (log_id,))
        gone += connection.changes()
    if floor != before:
        connection.execute(
            "UPDATE log SET floor=?, floor_ms=? WHERE id=?", (floor, floor_ms, log_id)
        )
    return Removed(floor, floor - before + gone, size)


def _stub(
    packed: bytes, unpack: Callable[[bytes], Entry], *, control: bool = False
) -> bytes | None:
    """Return the stub for a row; None: it is a control entry, which stays, unless ``control``.

    An entry that cannot be read is removed as an erased one: it must not keep the others. Those
    that are listed as control entries are kept by the caller: one wrong bit may hide a ban.
    """
    try:
        entry = unpack(packed)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
        return STUB_OF_ERASED
    return None if entry.kind == Kind.SYSTEM and not control else stub_of(entry)
