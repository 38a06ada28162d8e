"""The modes of the terminal while a chat reads keys, and between two of its prompts.

The line editor sets raw mode for each prompt and leaves it after each line. In the meantime, for a
few turns of the event loop, the kernel would treat keys as a shell's input: echo them among the
messages, drop what is longer than one of its lines, and obey Ctrl-U, Ctrl-S or Ctrl-D. A person
notices when several lines are pasted into a terminal that does not mark pastes, or in a busy room.

So the modes between prompts are those of a prompt, except that Ctrl-C and Ctrl-Z still send
signals: no key binding would see them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

if sys.platform != "win32":
    import termios

    _INPUT = termios.IXON | termios.IXOFF | termios.ICRNL | termios.INLCR | termios.IGNCR
    _LOCAL = termios.ECHO | termios.ICANON | termios.IEXTEN


class KeyModes:
    """The modes of one terminal; does nothing on Windows, and for anything but a terminal."""

    def __init__(self, fd: int) -> None:
        """Change nothing yet."""
        self._fd = fd
        self._before: list[Any] | None = None
        """The modes to restore; None: the terminal has its own."""

    def take(self) -> None:
        """Keep keys for the prompts. Repeating it is harmless."""
        if sys.platform == "win32" or self._before is not None:
            return
        with contextlib.suppress(termios.error):
            before = termios.tcgetattr(self._fd)
            self._before = before
            self._set()

    def give_back(self) -> None:
        """Restore the modes from before ``take``. Repeating it is harmless."""
        if sys.platform == "win32" or self._before is None:
            return
        before, self._before = self._before, None
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSANOW, before)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Restore the modes meanwhile: the shell has the terminal."""
        taken = self._before is not None
        self.give_back()
        try:
            yield
        finally:
            if taken:
                self.take()

    def set_again(self) -> None:
        """Set the modes again if the terminal is taken: a shell may have changed them.

        If it has, what it has set is what it gets back.
        """
        if sys.platform == "win32" or self._before is None:
            return
        with contextlib.suppress(termios.error):
            now = termios.tcgetattr(self._fd)
            if now[3] & termios.ICANON:
                self._before = now
        self._set()

    def _set(self) -> None:
        if sys.platform == "win32":
            return
        with contextlib.suppress(termios.error):
            modes = termios.tcgetattr(self._fd)
            modes[0] &= ~_INPUT
            modes[3] &= ~_LOCAL
            modes[6][termios.VMIN] = 1
            modes[6][termios.VTIME] = 0
            termios.tcsetattr(self._fd, termios.TCSANOW, modes)
