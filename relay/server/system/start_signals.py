"""Signals while a server starts: before its modules are loaded, and until it handles them.

A parent may have blocked or ignored them; and a service manager, or a program that rotates logs or
changes settings, does not wait for the end of a start. Like ``relay.cli.process.interrupts``, this
is loaded first, so it imports nothing that takes long.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # that of ``typing``
if TYPE_CHECKING:
    from typing import Final

IGNORED: Final = (
    signal.SIGPIPE,  # a closed reader is reported as a write error
    signal.SIGXFSZ,  # and so is the limit on a file's size
    signal.SIGTTOU,  # a log line must not stop a server in the background
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGSTKFLT,
    signal.SIGWINCH,
    signal.SIGURG,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""Signals that mean nothing to a server; most of them would end it."""
UPGRADE: Final = signal.SIGUSR2
WITHOUT_EFFECT: Final = (signal.SIGUSR1,)
"""Logged without any effect. Log rotation programs send it to programs that write logs."""
RESIZE: Final = {signal.SIGTTIN: 1, signal.SIGTTOU: -1}
"""One more or one less. Only without a terminal: the kernel sends these signals to a background
program that reads from or writes to its terminal."""


def reset() -> None:
    """Unblock all signals that may end a start, and ignore those that mean nothing here.

    Signals that are handled get their handlers later, and some are held until then. The default of
    a signal that the parent ignored is restored, except for HUP: nohup ignores it on purpose.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, held())


def held() -> tuple[signal.Signals, ...]:
    """Return the signals that a server which is starting receives later, in its ``SignalQueue``.

    Their default is to end or stop the process. A start that checks large files takes minutes.
    """
    return signal.SIGHUP, UPGRADE, *WITHOUT_EFFECT, *(() if has_terminal() else RESIZE)


def has_terminal() -> bool:
    """Whether the process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
