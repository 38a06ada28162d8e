"""Forwards copies of direct messages like any other send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.server.worker.member.sender import Sender
from relay.server.worker.member.window import size_of

if TYPE_CHECKING:
    from relay.chat.entries import Submission
    from relay.server.worker.home.direct.copies import Copies
    from relay.server.worker.member.forward import Forward


class CopySenders:
    """The senders, for ``member.forward``, of this home's copies.

    One for each person whose messages they are: the way to another worker is shared between
    senders, and the copies of someone who writes to many must not hold up those of others.
    """

    def __init__(self, copies: Copies, forward: Forward) -> None:
        """Create without senders."""
        self.copies = copies
        self._forward = forward
        self.by_handle: dict[str, CopySender] = {}
        """Those of whom anything is not answered."""

    def send(self, copy: Submission) -> None:
        """Send a copy to the home of its log."""
        sender = self.by_handle.get(copy.sender)
        if sender is None:
            sender = self.by_handle[copy.sender] = CopySender(self, copy.sender)
        sender.unanswered += 1
        self._forward.submit(sender, [copy], size_of([copy]))


class CopySender(Sender):
    """The copies of one person's messages. It never pauses."""

    __slots__ = ("_handle", "_senders", "unanswered")

    def __init__(self, senders: CopySenders, handle: str) -> None:
        super().__init__()
        self._senders = senders
        self._handle = handle
        self.unanswered = 0
        """Number of copies in flight."""

    def acknowledged(self, sends: list[Submission], epoch: bytes, seq: int) -> None:
        """The recipient's log has them."""
        self._answered(len(sends))
        for submission in sends:
            self._senders.copies.confirmed(submission)

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """Not stored yet."""
        self._answered(1)
        self._senders.copies.refused(submission, code)

    def _answered(self, count: int) -> None:
        self.unanswered -= count
        if not self.unanswered:
            self._senders.by_handle.pop(self._handle, None)

    def pause_reading(self) -> None:
        """Do nothing: each flow has its window."""

    def resume_reading(self) -> None:
        """Do nothing."""
