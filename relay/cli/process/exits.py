"""The end of a command: every exception becomes one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, TextIO

import click

from relay import refused_calls
from relay.cli.process.interrupts import EndedBySignal, InterruptsRaised
from relay.cli.process.last_resort import debugging, described
from relay.errors import RelayError, StartError, UsageError
from relay.terminal.text import harmless

_HALF_LINE_CHARS: Final = 1000
"""The middle of a longer line of an expected error is left out. The line may quote an argument of
100 KB; the explanation comes before or after it."""


class Exit(IntEnum):
    """The exit codes of all commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """Also: the server's key is unknown, and there was nobody to ask."""
    SERVER_KEY_CHANGED = 3
    HUNG_UP = 129
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    """The reader of our output has closed it."""
    TERMINATED = 143


_SIGNALS: Final[dict[int, str]] = {
    Exit.HUNG_UP: "SIGHUP",
    Exit.INTERRUPTED: "SIGINT",
    Exit.PIPE_CLOSED: "SIGPIPE",
    Exit.TERMINATED: "SIGTERM",
}


class CommandError(RelayError):
    """A command fails with this message and exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def guarded(command: Callable[[], object]) -> int:
    """Run a command; return its exit code.

    Any failure is one line on stderr. With ``RELAY_DEBUG=1`` the traceback precedes it.
    """
    try:
        with InterruptsRaised():
            result = command()
            sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  # KeyboardInterrupt, a lost CancelledError
        if debugging():
            traceback.print_exc()
        return _told(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _settle(stream)
    return result if isinstance(result, int) else Exit.OK


@contextlib.contextmanager
def broken_pipes_passed() -> Iterator[None]:
    """Within the context, let a broken pipe pass through click, which would exit with status 1.

    click checks the number; ``guarded`` checks the class.
    """
    try:
        yield
    except BrokenPipeError as error:
        raise BrokenPipeError from error


def _told(error: BaseException) -> int:
    """Report what ended a command; return its exit code."""
    if isinstance(error, click.ClickException):
        if isinstance(error, click.UsageError) and error.ctx is not None:
            _print(error.ctx.get_usage())
        # One line: the library puts each possible choice on a line of its own, after a tab.
        report(error.format_message().replace("\n\t", " "))
        return error.exit_code
    if isinstance(error, click.Abort) and isinstance(error.__context__, EOFError):
        if sys.stderr.isatty():
            _print("")  # the cursor is after the question
        report("the input ended before an answer: nothing was done")
        return Exit.FAILED
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Exit.INTERRUPTED
    if isinstance(error, EndedBySignal):
        return 128 + error.number
    if isinstance(error, BrokenPipeError):
        return Exit.PIPE_CLOSED
    if isinstance(error, RelayError):
        report(str(error))
        return exit_code(error)
    if refused := refused_calls.reason(error):
        report(refused)
        return Exit.FAILED
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        report(f"{where}{error.strerror or error}")
        return Exit.FAILED
    report_internal(error)
    return Exit.FAILED


def exit_code(error: Exception) -> int:
    """Return the exit code for an error."""
    if isinstance(error, UsageError):
        return Exit.USAGE
    if isinstance(error, StartError):
        return error.exit_code
    if isinstance(error, CommandError):
        return error.code
    # Imported here: help and version do not need the client, and it is loaded if it failed.
    from relay.client.errors import ServerKeyMismatch, UnknownServerKey

    if isinstance(error, UnknownServerKey):
        return Exit.USAGE
    return Exit.SERVER_KEY_CHANGED if isinstance(error, ServerKeyMismatch) else Exit.FAILED


def end_by_signal(code: int) -> int:
    """If an exit code stands for a signal, end by that signal; otherwise return the code.

    A shell that runs a script stops at Ctrl-C only if the program died of the signal. If it exits
    by itself, with any status, the script continues.
    """
    name = _SIGNALS.get(code)
    if name is not None and sys.platform != "win32":
        number = signal.Signals[name]
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    return code


def report(message: str) -> None:
    """Print an error as ``relay: message`` on stderr; quoted parts may come from anywhere."""
    for line in message.split("\n"):
        if len(line) > 2 * _HALF_LINE_CHARS:
            line = f"{line[:_HALF_LINE_CHARS]}...{line[-_HALF_LINE_CHARS:]}"
        _print(f"relay: {harmless(line)}")


def report_internal(error: BaseException) -> None:
    """Print an unexpected exception as one line."""
    report(f"internal error: {described(error)}")


def _print(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # harmless already
    except OSError:
        _discard(sys.stderr)  # it cannot be reported; the exit code still shows it


def _settle(stream: TextIO) -> None:
    """Flush; what cannot be written must not be retried when the interpreter exits."""
    try:
        stream.flush()
    except OSError:
        _discard(stream)


def _discard(stream: TextIO) -> None:
    """Let the interpreter flush to nowhere at exit, instead of complaining about the pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
