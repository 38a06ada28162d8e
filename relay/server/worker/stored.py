"""What is read from one log and makes no sense is the damage of that log, not of its partition.

Whoever asks about it is answered DAMAGED, an operator is told by a line, and the other logs go on.
A page that SQLite cannot read is another matter: the partition is refused (``member.damage``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from relay.chat import names
from relay.chat.rooms import state as rooms
from relay.errors import EnvelopeError
from relay.store.errors import LogDamaged
from relay.wire.packing import unpack_entry

if TYPE_CHECKING:
    from relay.chat.entries import Entry
    from relay.chat.rooms.state import Room

log = logging.getLogger("relay.worker")


def stored_entry(name: str, packed: bytes) -> Entry:
    """Return an entry of a log.

    Raises:
        LogDamaged: these bytes are none.
    """
    try:
        return unpack_entry(packed)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the entry is the reason
        raise LogDamaged(name, f"an entry cannot be read ({type(error).__name__})") from None


def stored_room(name: str, state: bytes) -> Room:
    """Return a room, from its packed state.

    Raises:
        LogDamaged: it is none.
    """
    try:
        return rooms.unpack(state)
    except EnvelopeError as error:
        raise LogDamaged(name, f"its state cannot be read: {error}") from None


def report_log(error: LogDamaged) -> None:
    """Tell the operator."""
    event = "room_unreadable" if names.is_room(error.log) else "account_unreadable"
    log.error(event, extra={"log": error.log, "reason": str(error)})
