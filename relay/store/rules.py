"""The interface for deciding who may append, and what control entries mean.

The store keeps the state of a log as bytes, written in the same commit as the entry that changes
it. Only ``Rules`` interprets these bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay.chat.entries import Entry, Submission
    from relay.store.log import Denied
    from relay.store.state import LogEnd


class Kept(NamedTuple):
    """The state of a log after one of its control entries."""

    packed: bytes
    state: object
    """The decoded bytes, to be cached."""
    guarded: bool
    """True: ``Rules.before`` must be called for each message."""
    due_ms: int
    """When something in it expires; 0: never."""
    begins: bool
    """True if the entry is the first of a new epoch."""
    roles: tuple[tuple[str, bytes, int, bool], ...] = ()
    """(handle, root, role, lasting) of those whose role has changed; role 0: none any more."""


class Rules:
    """The rules of a partition. Pure: may be called in a thread."""

    def before(
        self, log: LogEnd, submission: Submission, target: Entry | None
    ) -> Submission | Denied | None:
        """Decide about a message that is next in turn.

        Args:
            log: the current log; only its ``state`` may be set, from ``packed_state``.
            submission: the message.
            target: the entry it is about; None if there is none.

        Returns:
            None: it is stored. Denied: it is not. A submission: this control entry is stored first.
        """
        raise NotImplementedError

    def began(self, log: LogEnd, submission: Submission) -> int:
        """Return the seq of the entry with which the room that has this name now began.

        0: it has none. Parameters as for ``before``. Raises EnvelopeError: its state is damaged.
        """
        raise NotImplementedError

    def gone(self) -> Denied:
        """Return the refusal of a submission that is for an earlier room of this name."""
        raise NotImplementedError

    def hidden(self, log: LogEnd, submission: Submission) -> Denied | None:
        """Return why the sender may not know what the log contains; None: the sender may know.

        Called when a submission's target is not valid. ``log`` as for ``before``.
        """
        raise NotImplementedError

    def after(self, log: LogEnd, submission: Submission) -> Kept | Denied | None:
        """Return the state of the log after its next control entry; None: no change."""
        raise NotImplementedError
