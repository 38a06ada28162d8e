"""Typing secrets at a terminal: they stay hidden, whatever signals arrive meanwhile.

``getpass`` turns the echo off and ignores signals. After a Ctrl-Z and "fg" the shell has turned it
on again, and the rest of a passphrase would be visible; a TERM would leave it off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import click

from relay.errors import UsageError

_AGAIN: Final = b"\n(what you type is not shown) "


def ask_hidden(text: str, *, twice: bool = False, default: str | None = None) -> str:
    """Return what is typed, without displaying it.

    Args:
        text: the prompt.
        twice: ask for it a second time.
        default: returned for an empty line; None: ask again.

    Raises:
        UsageError: the input is not text in the terminal's encoding.
    """
    try:
        with _echo_off():
            return str(
                click.prompt(
                    text,
                    hide_input=True,
                    confirmation_prompt=twice,
                    default=default,
                    show_default=False,
                    err=True,
                )
            )
    except UnicodeDecodeError as error:  # it contains what was typed: report none of it
        raise UsageError(
            f"what was typed is not {error.encoding.upper()} text: look at the settings of the"
            " terminal"
        ) from None


@contextlib.contextmanager
def _echo_off() -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    import termios

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:  # there is no terminal, and nothing to hide
        yield
        return
    before = termios.tcgetattr(terminal)

    def end(number: int, _: FrameType | None) -> None:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def suspend(number: int, frame: FrameType | None) -> None:
        hidden = termios.tcgetattr(terminal)
        end(number, frame)
        # Continued in the foreground; in the background this stops it again.
        signal.signal(number, suspend)
        termios.tcsetattr(terminal, termios.TCSADRAIN, hidden)
        os.write(terminal, _AGAIN)

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGTSTP: suspend,
        **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT), end),
    }
    ours = [number for number in handlers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        os.close(terminal)
