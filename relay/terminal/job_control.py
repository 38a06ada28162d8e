"""Ctrl-Z in raw mode: return the terminal to the shell, stop, and resume.

In raw mode the terminal sends no signals, so the key is handled here; ``kill -TSTP`` arrives the
same way. Before a ``kill -STOP`` the terminal could not be restored, and the shell has set its own
modes meanwhile: ours are set again when the program continues.

The shell gets exactly the modes that it gave. prompt_toolkit's ``cooked_mode`` only sets those that
reading a line needs: some shells never set the others themselves, and Ctrl-S would no longer stop
the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from prompt_toolkit.application import Application, get_app_or_none


class JobControl:
    """Stops and continues this process, whose terminal may show a prompt."""

    def __init__(self) -> None:
        self._given: list[Any] | None = None
        """The modes in which the shell gave us the terminal; None: it is none."""

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals of job control on the running loop; none on Windows."""
        if sys.platform == "win32":
            yield
            return
        loop = asyncio.get_running_loop()
        self._given = _modes()
        loop.add_signal_handler(signal.SIGTSTP, self.suspend)
        loop.add_signal_handler(signal.SIGCONT, self._continued)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTSTP)
            loop.remove_signal_handler(signal.SIGCONT)
            _set_modes(self._given)

    def suspend(self) -> None:
        """Stop until continued; return with the prompt about to be drawn again."""
        if sys.platform == "win32":
            return
        app = get_app_or_none()
        if app is None:  # between two prompts: the terminal is as the shell left it
            self._stop()
            return
        app.renderer.erase()
        own = _modes()
        with app.input.detach():
            _set_modes(self._given)
            self._stop()
            self._given = _modes()
            _set_modes(own)
        _draw(app)

    def _stop(self) -> None:
        if sys.platform == "win32":
            return
        loop = asyncio.get_running_loop()
        # With the default action the first signal stops the process; a second one is then
        # redundant.
        loop.remove_signal_handler(signal.SIGTSTP)
        loop.remove_signal_handler(signal.SIGCONT)
        os.kill(0, signal.SIGTSTP)  # the whole job: other processes may be part of the pipeline
        loop.add_signal_handler(signal.SIGTSTP, self.suspend)
        loop.add_signal_handler(signal.SIGCONT, self._continued)

    def _continued(self) -> None:
        """Take the terminal again after a stop that we could not prepare for."""
        if (app := get_app_or_none()) is not None:
            if _reads_lines(now := _modes()):  # otherwise it was not stopped
                self._given = now
            app.input.raw_mode().__enter__()  # left when the prompt ends
            _draw(app)


def _modes() -> list[Any] | None:
    """Return the modes of the terminal; None: it is none, or it is gone."""
    if sys.platform == "win32":
        return None
    import termios

    try:
        return termios.tcgetattr(sys.stdin.fileno())
    except (termios.error, OSError, ValueError):
        return None


def _set_modes(modes: list[Any] | None) -> None:
    if sys.platform == "win32" or modes is None:
        return
    import termios

    with contextlib.suppress(termios.error, OSError, ValueError):
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, modes)


def _reads_lines(modes: list[Any] | None) -> bool:
    if sys.platform == "win32" or modes is None:
        return False
    import termios

    local_modes: int = modes[3]
    return bool(local_modes & termios.ICANON)


def _draw(app: Application[Any]) -> None:
    app.renderer.reset()  # the cursor is wherever the shell left it
    app.invalidate()
