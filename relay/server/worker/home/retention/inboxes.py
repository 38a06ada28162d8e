"""The retention that accounts have chosen for their inboxes, cached until their logs change."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.chat.accounts import events, snapshot
from relay.chat.names import INBOX_PREFIX
from relay.errors import EnvelopeError
from relay.wire.packing import unpack_entry

if TYPE_CHECKING:
    from relay.store.retention.removal_reader import RemovalReader

REMEMBERED_MAX: Final = 65_536
"""About 200 bytes each. Reading an inbox that is not cached takes 20 µs."""


class Inbox(NamedTuple):
    """What retention needs to know about an inbox."""

    keep: tuple[int, int, int] = (0, 0, 0)
    """The owner's choice: seconds, messages, bytes; 0: as in the settings."""
    removed: int = 0
    """The entry by which the account was permanently removed; 0: it was not."""


class Inboxes:
    """The inboxes of this worker's partitions. Not thread-safe."""

    def __init__(self) -> None:
        """Create with an empty cache."""
        self._remembered: dict[str, tuple[int, Inbox]] = {}

    def of(self, reader: RemovalReader, log: str) -> Inbox:
        """Return the retention of an inbox.

        Raises:
            StoreError: it cannot be read.
        """
        last = reader.last_control(log)
        seq, inbox = self._remembered.get(log, (0, Inbox()))
        if last != seq:
            inbox = _read(reader, log)
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[log] = last, inbox
        return inbox


def _read(reader: RemovalReader, log: str) -> Inbox:
    after, noted = reader.fold(log)
    keep, removed = (0, 0, 0), 0
    if after:
        try:
            account = snapshot.unpack(log[len(INBOX_PREFIX) :], noted)
        except EnvelopeError:
            after = 0  # the entries contain everything
        else:
            keep = account.keep
            if account.removed:  # stored by an older Relay, which did not record the removing entry
                after = 0
    for entry in map(unpack_entry, reader.controls(log, after)):
        if entry.content_type != events.CONTENT_TYPE:
            continue
        with contextlib.suppress(EnvelopeError):  # damaged: reported when the account is read
            match events.unpack(entry.body):
                case events.KeepSet() as chosen:
                    keep = (*chosen,)
                case events.Removed():
                    keep, removed = (0, 0, 0), entry.seq
                case _:
                    pass
    return Inbox(keep, removed)
