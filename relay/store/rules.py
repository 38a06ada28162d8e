"""The interface by which a decision asks who may append, and what control entries mean.

The store keeps the state of a log as bytes, written in the same commit as the entry that has
changed it. What is in them is the business of ``Rules``.
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
    """The bytes, read: to be kept at hand."""
    guarded: bool
    """True: ``Rules.before`` is to be asked about each message."""
    due_ms: int
    """When something in it ends by itself; 0: nothing does."""
    begins: bool
    """The entry is the first of a new epoch."""
    roles: tuple[tuple[str, bytes, int], ...] = ()
    """(handle, root, role) of those whose role it has changed; 0: they have none any more."""


class Rules:
    """What a partition asks. Pure: it may be asked in a thread."""

    def before(
        self, log: LogEnd, submission: Submission, target: Entry | None
    ) -> Submission | Denied | None:
        """Judge a message that is next in turn.

        Args:
            log: the log as it is; ``state`` may be set from ``packed_state``, nothing else changed.
            submission: the message.
            target: what it is about; None: it is about nothing.

        Returns:
            None: it is stored. Denied: it is not. A submission: this control entry is stored first.
        """
        raise NotImplementedError

    def hidden(self, log: LogEnd, submission: Submission) -> Denied | None:
        """Return why who sends it is not told what is in the log, nor what is not; None: they are.

        It was found that it cannot be about what it is about. ``log`` as for ``before``.
        """
        raise NotImplementedError

    def after(self, log: LogEnd, submission: Submission) -> Kept | Denied | None:
        """Return what a control entry, the next of the log, makes of its state; None: nothing."""
        raise NotImplementedError
