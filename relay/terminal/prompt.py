"""A chat at a terminal: an input line at the bottom, everything else above it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_or_none
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyPressEvent
from prompt_toolkit.layout import Dimension
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import default_ui_style
from prompt_toolkit.utils import is_dumb_terminal

from relay.client.events import LogEntry
from relay.errors import RelayError
from relay.terminal.job_control import JobControl
from relay.terminal.key_modes import KeyModes
from relay.terminal.keys import chat_keys
from relay.terminal.size import COLUMNS_DEFAULT, terminal_columns
from relay.terminal.view import (
    NOTICE,
    Line,
    body_text,
    clock,
    message_lines,
    notice_line,
    notice_lines,
)

LINES_WAITING_MAX: Final = 200
"""Lines shown at once; then keys are processed before more are shown."""
DRAFT_SHARE: Final = 3
"""A draft fills at most one third of the terminal."""
DRAFT_LINES_SHOWN_MAX: Final = 50
"""Lines of a draft to show if the chat ends before it is sent."""
PENDING_LINES_MAX: Final = 5
"""Number of waiting lines to show; the others are only counted."""
_HEAD_STYLE: Final = "bold"
_NOTICE_STYLE: Final = "ansicyan"


class Interrupted(RelayError):
    """Ctrl-C at an empty prompt."""


class PromptScreen:
    """Shows lines above the prompt, all of a loop iteration at once, and reads typed lines."""

    def __init__(self, room: str) -> None:
        """Prompt with the room's name."""
        self._prompt = f"{room}> "
        self._pending: list[str] = []
        self._session: PromptSession[str] = PromptSession(
            self._message,
            erase_when_done=True,  # a message is shown when the server has it
            history=InMemoryHistory(),
            key_bindings=chat_keys(self._interrupt, lambda event: self._jobs.suspend()),
            output=_output(),
        )
        for window in self._session.layout.find_all_windows():
            if getattr(window.content, "buffer", None) is self._session.default_buffer:
                window.height = self._draft_height
        self._modes = KeyModes(sys.stdin.fileno())
        self._jobs = JobControl(self._modes)
        self._waiting: list[tuple[str, str]] = []
        self._lines = 0
        self._drafting = False
        """True while there is a prompt: its text is a draft."""
        self._due: asyncio.Handle | None = None
        """The flush at the end of this loop iteration; None: nothing waits."""

    async def message(self, message: LogEntry, label: str = "") -> None:
        """Show a message."""
        text = body_text(message.content_type, message.body)
        stamp = clock(message.time_ms)
        lines = message_lines(stamp, message.sender, text, self._columns(), label)
        self._add(lines, _HEAD_STYLE, "")
        if self._lines > LINES_WAITING_MAX:
            await asyncio.sleep(0)  # they are shown, and keys are read

    def notice(self, text: str) -> None:
        """Show a notice."""
        self._add(notice_lines(text, self._columns()), _NOTICE_STYLE, _NOTICE_STYLE)

    def talk_to(self, target: str) -> None:
        """Change the prompt from the next line on."""
        self._prompt = f"{target}> "

    def pending(self, waiting: list[str]) -> None:
        """Mark waiting lines between the output and the prompt, where the mark can be removed."""
        before, self._pending = self._pending, waiting
        if is_dumb_terminal():
            for text in waiting[len(before) :]:
                self.notice(text)
        elif self._session.app.is_running:
            self._session.app.invalidate()

    def _message(self) -> FormattedText:
        """Return the prompt before the draft."""
        prompt = ("", self._prompt)
        if is_dumb_terminal():
            return FormattedText([prompt])
        lines = [notice_line(text, self._columns()) for text in self._pending[:PENDING_LINES_MAX]]
        if more := len(self._pending) - len(lines):
            lines.append(f"{NOTICE}and {more} more")
        return FormattedText([*((_NOTICE_STYLE, f"{line}\n") for line in lines), prompt])

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Handle Ctrl-Z meanwhile; on leaving, show what is left."""
        with self._jobs.handled():
            try:
                yield
            finally:
                self._modes.give_back()
                self._tell_draft()
                self._flush()

    async def typed(self) -> AsyncIterator[str]:
        """Yield the lines that the user enters, until Ctrl-D.

        Raises:
            Interrupted: Ctrl-C without a draft.
        """
        self._modes.take()
        while True:
            self._drafting = True
            try:
                line = await self._session.prompt_async(
                    handle_sigint=False, set_exception_handler=False
                )
            except EOFError:
                self._modes.give_back()
                return
            self._drafting = False
            yield line

    def _interrupt(self, event: KeyPressEvent) -> None:
        """Discard the draft; without one, leave."""
        if event.current_buffer.text:
            event.current_buffer.reset(append_to_history=True)
            self.notice("draft discarded (Up brings it back); press Ctrl-C again to leave")
        else:
            event.app.exit(exception=Interrupted())

    def _tell_draft(self) -> None:
        """Show what was being typed when the chat ended: it is lost with the prompt."""
        lines = self._session.default_buffer.text.strip().split("\n") if self._drafting else [""]
        if not lines[0]:
            return
        more = len(lines) - DRAFT_LINES_SHOWN_MAX
        for line in lines[:DRAFT_LINES_SHOWN_MAX]:
            self.notice(f"not sent: {line}")
        if more > 0:
            self.notice(f"not sent: {more} more lines")

    def _draft_height(self) -> Dimension:
        """Limit the height of a draft: as high as the screen, it would displace everything else."""
        rows = self._session.app.output.get_size().rows
        return Dimension(max=max(rows // DRAFT_SHARE, 1))

    def _columns(self) -> int:
        return terminal_columns(sys.stdout.fileno()) or COLUMNS_DEFAULT - 1

    def _add(self, lines: list[Line], head_style: str, text_style: str) -> None:
        for line in lines:
            self._waiting += [(head_style, line.head), (text_style, line.text), ("", "\n")]
        self._lines += len(lines)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write what waits above the prompt, and draw the prompt again.

        Not with prompt_toolkit's ``run_in_terminal``: that leaves raw mode meanwhile, and keys
        pressed in it are echoed among the messages.
        """
        if self._due is not None:
            self._due.cancel()
            self._due = None
        waiting, self._waiting, self._lines = self._waiting, [], 0
        if not waiting:
            return
        app = self._session.app
        if app.is_running:
            app.renderer.erase()
        elif is_dumb_terminal() and (plain := get_app_or_none()) is not None:
            # prompt_toolkit runs another application here, which redraws nothing, and ends the
            # line itself when Enter has been pressed.
            draft = f"{self._prompt}{self._session.default_buffer.text}"
            waiting = [("", "\n"), *(waiting[:-1] if plain.is_done else [*waiting, ("", draft)])]
        print_formatted_text(
            app.output, FormattedText(waiting), default_ui_style(), color_depth=app.color_depth
        )
        if app.is_running:
            app.renderer.reset()
            app.invalidate()


def _output() -> Output | None:
    """Return the terminal, configured not to be asked for its cursor position.

    prompt_toolkit asks to know the room for menus; there are none here. The answer comes late: if
    something was printed meanwhile, the prompt is drawn over it. Terminals that do not answer would
    cause a warning in the chat.

    None leaves the choice to prompt_toolkit: it handles a dumb terminal differently, but only if it
    may choose.
    """
    if is_dumb_terminal():
        return None
    output = create_output()
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output
