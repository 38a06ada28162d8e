"""The log entries for decisions about rooms, and for requests about their entries."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from relay import limits
from relay.chat.entries import UNDECIDED, Cursor, Extra, Kind, Submission
from relay.chat.relations import FORMER
from relay.chat.rooms import events
from relay.chat.rooms.events import Event

if TYPE_CHECKING:
    from relay.bus.messages import Ask
    from relay.chat.rooms.rights import Actor


def place(log: str, version: int) -> bytes:
    """Return the producer of the control entry that follows the one with seq ``version``.

    Each has its own, so that no state is changed twice.
    """
    found = hashlib.sha256(f"relay/1 room {log} {version}".encode()).digest()
    return found[: limits.PRODUCER_BYTES]


def redaction_of(ask: Ask, by: Actor, target: Cursor, reason: str) -> Submission:
    """Return the submission for a redaction that was requested by a seq.

    All redactions of one entry have the same id, so a request repeated after a lost answer is
    recognised as a repeat.
    """
    named = f"relay/1 redaction {ask.log} {target.seq} {ask.by} {reason}".encode()
    return Submission(
        log=ask.log,
        sender=by.handle,
        key_id=ask.key_id,
        producer=hashlib.sha256(target.epoch + named).digest()[: limits.PRODUCER_BYTES],
        counter=1,
        kind=int(Kind.REDACTION),
        content_type="text/plain",
        body=reason.encode(),
        root=by.root,
        operator=by.operator,
        extra=Extra(
            about_epoch=target.epoch,
            about_seq=target.seq,
            verdict=FORMER if ask.subject else UNDECIDED,
        ),
    )


def entry_of(log: str, version: int, event: Event, by: str, key_id: bytes) -> Submission:
    """Return the submission to store.

    Args:
        log: the room.
        version: of the state that the decision was based on.
        event: the decision.
        by: who requested it; ``events.RELAY`` if nobody did.
        key_id: of the device that requested it; empty: none did.
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
