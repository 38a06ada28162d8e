"""The copies of direct messages on their way: whose they are."""

from __future__ import annotations

from typing import Any, cast

from relay.chat.entries import Submission
from relay.server.worker.member.sender import Sender
from relay.server.worker.process.copy_sender import CopySenders


class Way:
    """What is sent, and to whom the answers go; and what is confirmed. A ``Forward`` and Copies."""

    def __init__(self) -> None:
        self.sent: list[tuple[Sender, Submission]] = []
        self.confirmed = self.noted
        self.done: list[Submission] = []

    def submit(self, sender: Sender, run: list[Submission]) -> None:
        self.sent += [(sender, one) for one in run]

    def noted(self, copy: Submission) -> None:
        self.done.append(copy)

    def refused(self, copy: Submission, code: int) -> None:
        self.done.append(copy)


def test_each_person_is_a_sender_as_long_as_anything_is_on_its_way() -> None:
    """So the way to another worker is shared between people, as that of messages to rooms is."""
    way = Way()
    senders = CopySenders(cast("Any", way), cast("Any", way))
    for counter, name in enumerate(("ann", "ann", "bob"), 1):
        senders.send(Submission(f"@to-{counter}", name, b"", bytes(16), counter, 0, "", b""))
    (ann, first), (other, second), (bob, third) = way.sent
    assert ann is other
    assert ann is not bob
    ann.acknowledged([first], b"", 1)
    bob.refused(third, 1, 0, "")
    assert list(senders.by_handle) == ["ann"]
    ann.acknowledged([second], b"", 2)
    assert not senders.by_handle
    assert way.done == [first, third, second]
