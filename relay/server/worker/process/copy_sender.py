"""Forwards copies of direct messages like any other send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.server.worker.member.sender import Sender

if TYPE_CHECKING:
    from relay.chat.entries import Submission
    from relay.server.worker.home.copies import Copies


class CopySender(Sender):
    """The sender, for ``member.forward``, of this home's copies. It never pauses."""

    __slots__ = ("_copies",)

    def __init__(self, copies: Copies) -> None:
        super().__init__()
        self._copies = copies

    def acknowledged(self, sends: list[Submission], epoch: bytes, seq: int) -> None:
        """The recipient's log has them."""
        for submission in sends:
            self._copies.confirmed(submission)

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """Not stored yet."""
        self._copies.refused(submission, code)

    def pause_reading(self) -> None:
        """Do nothing: each flow has its window."""

    def resume_reading(self) -> None:
        """Do nothing."""
