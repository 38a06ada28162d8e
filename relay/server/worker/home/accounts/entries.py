"""The log entries for decisions about accounts."""

from __future__ import annotations

import hashlib
from typing import Final

from relay import limits
from relay.chat.accounts import events
from relay.chat.entries import Kind, Submission

OPERATOR: Final = "operator"
"""The sender of entries that no user's device requested. A reserved name, so it is no handle."""


def entry_of(log: str, version: int, event: events.Event, by: str, key_id: bytes) -> Submission:
    """Return the submission to store.

    Its id depends on the version of the state that the decision was based on, so no state is
    changed twice.

    Args:
        log: of the account or invitation.
        version: number of events in the state.
        event: the next event.
        by: who requested it.
        key_id: of the device that requested it; empty for ``OPERATOR``.
    """
    place = hashlib.sha256(f"relay/1 account {log} {version}".encode()).digest()
    return Submission(
        log=log,
        sender=by,
        key_id=key_id,
        producer=place[: limits.PRODUCER_BYTES],
        counter=1,
        kind=int(Kind.SYSTEM),
        content_type=events.CONTENT_TYPE,
        body=events.pack(event),
    )
