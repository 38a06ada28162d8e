"""A chat at a terminal: a line to type on at the bottom, everything else above it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Final

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import in_terminal
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory

from relay.client.events import Message
from relay.errors import RelayError
from relay.terminal.screens import terminal_columns
from relay.terminal.view import Line, body_text, clock, message_lines, notice_lines

LINES_WAITING_MAX: Final = 2000
"""Lines that wait to be shown; more, and reading from the server waits, too."""
_HEAD_STYLE: Final = "bold"
_NOTICE_STYLE: Final = "ansicyan"


class Interrupted(RelayError):
    """Ctrl-C at the prompt."""


class PromptScreen:
    """Shows lines above the prompt, many at a time, and reads what is typed."""

    def __init__(self, room: str) -> None:
        """Prompt with the room's name."""
        self._session: PromptSession[str] = PromptSession(
            f"{room}> ",
            erase_when_done=True,  # what was said shows when the server has it
            history=InMemoryHistory(),
            interrupt_exception=Interrupted,
        )
        self._waiting: list[tuple[str, str]] = []
        self._lines = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def message(self, message: Message) -> None:
        """Show a message soon."""
        await self._room.wait()
        text = body_text(message.content_type, message.body)
        lines = message_lines(clock(message.time_ms), message.sender, text, self._columns())
        self._add(lines, _HEAD_STYLE, "")

    def notice(self, text: str) -> None:
        """Show a notice soon."""
        self._add(notice_lines(text, self._columns()), _NOTICE_STYLE, _NOTICE_STYLE)

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show lines while inside; on leaving, show what is left."""
        printer = asyncio.create_task(self._print())
        try:
            yield
        finally:
            printer.cancel()
            await asyncio.gather(printer, return_exceptions=True)
            self._flush()

    async def typed(self) -> AsyncIterator[str]:
        """Yield the lines that the person enters, until Ctrl-D.

        Raises:
            Interrupted: Ctrl-C.
        """
        while True:
            try:
                yield await self._session.prompt_async(handle_sigint=False)
            except EOFError:
                return

    def _columns(self) -> int:
        # One less: a terminal breaks the line by itself when the last column is filled.
        return (terminal_columns(sys.stdout.fileno()) or 80) - 1

    def _add(self, lines: list[Line], head_style: str, text_style: str) -> None:
        for line in lines:
            self._waiting += [(head_style, line.head), (text_style, line.text), ("", "\n")]
        self._lines += len(lines)
        self._more.set()
        if self._lines > LINES_WAITING_MAX:
            self._room.clear()

    async def _print(self) -> None:
        while True:
            await self._more.wait()
            async with in_terminal():
                self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._lines = self._waiting, [], 0
        self._more.clear()
        self._room.set()
        if waiting:
            print_formatted_text(FormattedText(waiting), end="")
