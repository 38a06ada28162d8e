"""Signals as a queue: handlers only record the number; the loop acts on it."""

from __future__ import annotations

import os
import signal
from collections import deque
from types import FrameType
from typing import Final

from relay.server.system.start_signals import RESIZE, UPGRADE, WITHOUT_EFFECT, has_terminal, held

STOP: Final = (signal.SIGTERM, signal.SIGINT)
STOPS: Final = (*STOP, signal.SIGQUIT)
HANDLED: Final = (
    *STOPS, signal.SIGHUP, signal.SIGCHLD, UPGRADE, *WITHOUT_EFFECT,
)  # fmt: skip


class SignalQueue:
    """Catches signals and makes ``fd`` readable when there are any (the self-pipe trick)."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._numbers: deque[int] = deque()
        for number in (*HANDLED, *(() if has_terminal() else RESIZE)):
            # A program started by nohup continues to ignore HUP.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._numbers.append(number)

    def take(self) -> list[int]:
        """Return the signals since the last call, in order."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            pass
        numbers = []
        while self._numbers:
            numbers.append(self._numbers.popleft())
        return numbers

    def reset_in_child(self) -> None:
        """Restore the defaults. A terminal sends INT to all: only the supervisor handles it."""
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP, UPGRADE, *WITHOUT_EFFECT, *RESIZE):
            signal.signal(number, signal.SIG_IGN)
        os.close(self.fd)
        os.close(self._write_fd)


def name_of(number: int) -> str:
    """Return the name of a signal, for people."""
    return signal.Signals(number).name


def ignore() -> None:
    """Ignore all of them from now on: there is nothing left to stop.

    While the interpreter exits, it restores the default of each signal that has a handler. A second
    TERM, or a HUP, would then turn a clean stop into a failure.
    """
    for number in HANDLED:
        if number != signal.SIGCHLD:
            signal.signal(number, signal.SIG_IGN)


def block_all() -> set[signal.Signals]:
    """Block all signals, around a fork. Returns the mask to restore."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # type: ignore[return-value]


def restore(mask: set[signal.Signals]) -> None:
    """Restore the signal mask."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
