"""The sender of a message, as used by ``forward``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from relay.chat.entries import Submission

OVERHEAD_BYTES: Final = 200
"""Cost of a small send in addition to its body."""


class Sender:
    """The sends of a session. A base class, not a Protocol: compiled, calls are direct."""

    __slots__ = ("bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        """Number of unanswered sends."""
        self.bytes = 0
        """Size of their bodies."""

    def acknowledged(self, sends: list[Submission], epoch: bytes, seq: int) -> None:
        """Committed to one log: the first as (epoch, seq), the others with the following seqs."""
        raise NotImplementedError

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """Not stored. ``arg``: see ErrorCode."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Stop reading: there is no credit."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Continue: there is credit again."""
        raise NotImplementedError
