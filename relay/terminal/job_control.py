"""Ctrl-Z in raw mode: return the terminal to the shell, stop, and resume.

In raw mode the terminal sends no signals, so the key is handled here; ``kill -TSTP`` arrives the
same way. Before a ``kill -STOP`` the terminal could not be restored, and the shell has set its own
modes meanwhile: ours are set again when the program continues.
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

from relay.terminal.key_modes import KeyModes


class JobControl:
    """Stops and continues this process, whose terminal may show a prompt."""

    def __init__(self, modes: KeyModes) -> None:
        """``modes``: of the terminal, between prompts."""
        self._modes = modes

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals of job control on the running loop; none on Windows."""
        if sys.platform == "win32":
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTSTP, self.suspend)
        loop.add_signal_handler(signal.SIGCONT, self._continued)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTSTP)
            loop.remove_signal_handler(signal.SIGCONT)

    def suspend(self) -> None:
        """Stop until continued; return with the prompt about to be drawn again."""
        if sys.platform == "win32":
            return
        app = get_app_or_none()
        if app is None or not app.is_running:  # between two prompts
            with self._modes.lent():
                self._stop()
            return
        app.renderer.erase()
        # prompt_toolkit would set only what reading a line needs, and some shells never set the
        # rest themselves: Ctrl-S would no longer stop the output, for example.
        with app.input.detach():
            with self._modes.lent():
                self._stop()
            app.input.raw_mode().__enter__()  # left when the prompt ends
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
        self._modes.set_again()
        app = get_app_or_none()
        if app is None or not app.is_running:
            return
        app.input.raw_mode().__enter__()  # left when the prompt ends
        _draw(app)


def _draw(app: Application[Any]) -> None:
    app.renderer.reset()  # the cursor is wherever the shell left it
    app.invalidate()
