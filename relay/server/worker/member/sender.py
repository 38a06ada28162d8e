"""The sender of a message, as ``forward`` knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from relay.chat.entries import Submission

OVERHEAD_BYTES: Final = 200
"""What a small send costs besides its body."""


class Sender:
    """Whose send it is: a session's sends. A base class: compiled, its calls are direct."""

    __slots__ = ("bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        """Sends that are not answered."""
        self.bytes = 0
        """Of their bodies."""

    def acknowledged(self, sends: list[Submission], epoch: bytes, seq: int) -> None:
        """Committed, to one log: the first as (epoch, seq), the others as the next seqs."""
        raise NotImplementedError

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """Not stored. ``arg``: see ErrorCode."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Stop reading: there is no credit."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """There is credit again."""
        raise NotImplementedError
