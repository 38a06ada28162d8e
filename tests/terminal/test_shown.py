"""What a screen remembers of the messages that it has shown."""

from __future__ import annotations

from relay.client.events import Message
from relay.terminal.shown import UNREAD_MAX, Shown
from tests.terminal.test_chat import EPOCH, Notices


async def test_many_who_write_while_nobody_is_there() -> None:
    """The last message of each waits for its read mark: a bounded number, the newest ones."""
    shown = Shown(Notices(), "alice", "lobby")
    for number in range(UNREAD_MAX + 10):
        name = f"p{number}"
        await shown.show(
            Message("@alice", EPOCH, number + 1, number, 0, name, b"", b"p" * 16, 1, 0,
                    "text/plain", b"hi", "alice")
        )  # fmt: skip
    assert len(shown.unread) == UNREAD_MAX
    assert next(iter(shown.unread)) == "@p10"
