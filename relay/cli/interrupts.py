"""When an interrupt (SIGINT, Ctrl-C) raises an exception, and when it ends the process.

To Python it always is an exception. While modules are loaded, and while the interpreter ends,
nobody catches it: it is a traceback, or several "Exception ignored in". The process ends of the
signal then, as programs do that have no handler. An interrupt that is ignored, as in the background
of a script, stays ignored.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def end_at_interrupts() -> None:
    """From now on an interrupt ends the process as it ends programs without a handler."""
    _replace(signal.default_int_handler, signal.SIG_DFL)


def end_as_process_1() -> None:
    """From now on TERM ends this process as it ends others, if it is process 1 of a container.

    The kernel lets no signal end that one before it has a handler: a container that is stopped
    while it begins would be killed, after all the time that it is given.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))


def let_signals_through() -> None:
    """Unblock what a parent blocked: a program that does not hear TERM cannot be stopped.

    A mask, unlike a signal that is ignored, is nobody's wish: it is left over from the parent.
    """
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Within, an interrupt raises KeyboardInterrupt; afterwards it is what it was before."""
    replaced = _replace(signal.SIG_DFL, signal.default_int_handler)
    try:
        yield
    finally:
        if replaced:
            end_at_interrupts()


def _replace(old: object, new: Any) -> bool:  # noqa: ANN401  # as signal.signal takes it
    main = threading.current_thread() is threading.main_thread()  # nobody else may
    if not main or signal.getsignal(signal.SIGINT) is not old:
        return False
    signal.signal(signal.SIGINT, new)
    return True
