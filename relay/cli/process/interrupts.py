"""Whether an interrupt (SIGINT, Ctrl-C) raises an exception or ends the process.

In Python it always raises an exception. While modules are loaded, and while the interpreter exits,
nothing catches it: it causes a traceback, or several "Exception ignored in". At these times the
process ends by the signal instead, like programs without a handler. An ignored interrupt, as in the
background of a script, stays ignored.

This is the first module that a process loads. What it imports is loaded in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # that of ``typing``, which takes longer to load than all else here
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any


def end_at_interrupts() -> None:
    """From now on an interrupt ends the process, as for programs without a handler."""
    _replace(signal.default_int_handler, signal.SIG_DFL)


def end_as_process_1() -> None:
    """From now on TERM ends this process even if it is process 1 of a container.

    For process 1 the kernel ignores signals without a handler: a container stopped during its start
    would only be killed, after its whole grace period.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))


def let_signals_through() -> None:
    """Unblock signals that a parent blocked: otherwise TERM cannot stop the program.

    A blocked signal, unlike an ignored one, is not intentional: the mask is left over from the
    parent.
    """
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


class InterruptsRaised:
    """Within the context, an interrupt raises KeyboardInterrupt; then the old behaviour returns."""

    def __enter__(self) -> None:
        self._replaced = _replace(signal.SIG_DFL, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self._replaced:
            end_at_interrupts()


class EndedBySignal(BaseException):
    """A signal ends the command; see ``EndsRaised``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class EndsRaised:
    """Within the context, TERM and HUP raise ``EndedBySignal``, so that the command cleans up.

    Their default would end the process at once, and leave what it has begun to write. A second one
    still does, and an ignored one stays ignored.
    """

    def __enter__(self) -> None:
        self._numbers = [] if sys.platform == "win32" else [signal.SIGTERM, signal.SIGHUP]
        for number in tuple(self._numbers):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end)
            else:
                self._numbers.remove(number)

    def __exit__(self, *_: object) -> None:
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.__exit__()
        raise EndedBySignal(number)


def _replace(old: object, new: Any) -> bool:  # noqa: ANN401  # as signal.signal takes it
    if signal.getsignal(signal.SIGINT) is not old:
        return False
    try:
        signal.signal(signal.SIGINT, new)
    except ValueError:  # only the main thread of a program may do it
        return False
    return True
