"""Where a chat shows messages and notices: the interface, and plain streams.

``PlainScreen`` is for pipes, files and ``relay tail``; ``prompt`` has the one with a line editor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from relay.client.events import LogEntry
from relay.terminal.output import Output
from relay.terminal.size import terminal_columns
from relay.terminal.view import body_text, clock, message_lines, notice_lines


class Screen(Protocol):
    """What a chat requires of its screen."""

    async def message(self, message: LogEntry, label: str = "") -> None:
        """Show a message; wait while the reader is slow. ``label``: see ``message_lines``."""

    def notice(self, text: str) -> None:
        """Show a notice of our own, at once or soon."""

    def talk_to(self, target: str) -> None:
        """Show the recipient of the next lines: a room, or ``@`` and a name."""

    def pending(self, waiting: list[str]) -> None:
        """Mark what the server has not accepted yet, oldest first; replaces the previous marks."""


class PlainScreen:
    """Messages on an output, notices on standard error."""

    def __init__(self, output: Output, stamp: Callable[[int], str] = clock) -> None:
        """Show messages on ``output`` with times formatted by ``stamp``."""
        self.output = output
        self.stamp = stamp

    async def message(self, message: LogEntry, label: str = "") -> None:
        """Show a message."""
        lines = message_lines(
            self.stamp(message.time_ms),
            message.sender,
            body_text(message.content_type, message.body),
            terminal_columns(self.output.fd),
            label,
        )
        await self.output.write("".join(f"{line.head}{line.text}\n" for line in lines))

    def notice(self, text: str) -> None:
        """Show a notice."""
        stderr_notice(text)

    def talk_to(self, target: str) -> None:
        """Do nothing: there is no prompt."""

    def pending(self, waiting: list[str]) -> None:
        """Do nothing: what was printed cannot be removed."""


def stderr_notice(text: str) -> None:
    """Show a notice on standard error."""
    lines = notice_lines(text, terminal_columns(sys.stderr.fileno()))
    sys.stderr.write("".join(f"{line.head}{line.text}\n" for line in lines))
    sys.stderr.flush()
