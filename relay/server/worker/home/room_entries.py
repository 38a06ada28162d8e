"""The entry that a decision about a room becomes."""

from __future__ import annotations

import hashlib

from relay import limits
from relay.chat.entries import Kind, Submission
from relay.chat.rooms import events
from relay.chat.rooms.events import Event


def place(log: str, version: int) -> bytes:
    """Return the producer of the control entry after the one with the seq ``version``.

    Each has its own: no state is changed twice.
    """
    found = hashlib.sha256(f"relay/1 room {log} {version}".encode()).digest()
    return found[: limits.PRODUCER_BYTES]


def entry_of(log: str, version: int, event: Event, by: str, key_id: bytes) -> Submission:
    """Return what is to be stored.

    Args:
        log: the room.
        version: of the state that was decided on.
        event: what was decided.
        by: who asked; ``events.RELAY`` for what nobody has asked for.
        key_id: of the device that asked; empty: none did.
    """
    return Submission(
        log=log,
        sender=by,
        key_id=key_id,
        producer=place(log, version),
        counter=1,
        kind=int(Kind.SYSTEM),
        content_type=events.CONTENT_TYPE,
        body=events.pack(event),
    )
