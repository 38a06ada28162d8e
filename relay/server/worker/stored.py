"""Unpacks stored data of one log: if it is invalid, that log is damaged, not its partition.

Requests for the log are answered with DAMAGED, an event tells the operator (``damaged_logs``), and
the other logs stay available. A page that SQLite cannot read is different: the whole partition is
refused (``member.damage``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from relay.chat.rooms import state as rooms
from relay.errors import EnvelopeError
from relay.store.errors import LogDamaged
from relay.wire.packing import unpack_entry

if TYPE_CHECKING:
    from relay.chat.entries import Entry
    from relay.chat.rooms.state import Room


def stored_entry(name: str, packed: bytes) -> Entry:
    """Unpack an entry of a log.

    Raises:
        LogDamaged: the bytes are not a valid entry.
    """
    try:
        return unpack_entry(packed)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is raised, the entry is the cause
        raise LogDamaged(name, f"an entry cannot be read ({type(error).__name__})") from None


def readable(name: str, rows: Iterable[tuple[int, bytes]], after: int = 0) -> dict[int, Entry]:
    """Return, by seq, the entries of a log that a client which has ``after`` would take.

    A client that is sent another one ends for good, because its server broke the protocol.
    """
    found: dict[int, Entry] = {}
    before = after
    for seq, packed in rows:
        try:
            entry = unpack_entry(packed)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S110 - whatever is raised, the entry is the cause
            pass
        else:
            in_place = entry.prev == before if seq == before + 1 else entry.prev < seq
            if entry.seq == seq and entry.log == name and in_place:
                found[seq] = entry
        before = seq
    return found


def unreadable(name: str, rows: Sequence[tuple[int, bytes]], after: int = 0) -> set[int]:
    """Return the seqs of rows that are not ``readable``."""
    found = readable(name, rows, after)
    return {seq for seq, _ in rows if seq not in found}


def damage_of(name: str, unread: set[int]) -> LogDamaged:
    """Return the error for entries that are ``unreadable``: it names the first, on any page."""
    return LogDamaged(name, f"entry {min(unread)} cannot be read")


def _unpacked(_: str, state: bytes) -> Room:
    return rooms.unpack(state)


def stored_room(name: str, state: bytes, unpack: Callable[[str, bytes], Room] = _unpacked) -> Room:
    """Return the room in a packed state.

    Args:
        name: of the room.
        state: the bytes.
        unpack: unpacks them, or finds them unpacked (``home.rooms.unpacked``).

    Raises:
        LogDamaged: the bytes are not a valid state.
    """
    try:
        return unpack(name, state)
    except EnvelopeError as error:
        raise LogDamaged(name, f"its state cannot be read: {error}") from None
