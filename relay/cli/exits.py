"""How a command ends: every exception becomes one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import TextIO

import click

from relay.errors import RelayError, StartError, UsageError
from relay.terminal.text import harmless


class Exit(IntEnum):
    """The exit codes of all commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """Also: the server's key is unknown, and nobody could be asked."""
    SERVER_KEY_CHANGED = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    """As a program that SIGPIPE ends: the reader of our output went away."""


class CommandError(RelayError):
    """A command gives up: its message, and the exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def guarded(command: Callable[[], object]) -> int:
    """Run a command; return its exit code. Says what went wrong, in one line, never a traceback."""
    _open_missing_streams()
    try:
        result = command()
        sys.stdout.flush()
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        report(error.format_message())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _discard(sys.stdout)
        return Exit.PIPE_CLOSED
    except RelayError as error:
        report(str(error))
        return exit_code(error)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        report(f"{where}{error.strerror or error}")
        return Exit.FAILED
    return result if isinstance(result, int) else Exit.OK


def exit_code(error: Exception) -> int:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, UsageError):
        return Exit.USAGE
    if isinstance(error, StartError):
        return error.exit_code
    if isinstance(error, CommandError):
        return error.code
    # Here, not above: help and version do without the client, and it is loaded when it failed.
    from relay.client.errors import ServerKeyMismatch, UnknownServerKey

    if isinstance(error, UnknownServerKey):
        return Exit.USAGE
    return Exit.SERVER_KEY_CHANGED if isinstance(error, ServerKeyMismatch) else Exit.FAILED


def report(message: str) -> None:
    """Print an error as ``relay: message`` on stderr; what it quotes may come from anywhere."""
    try:
        for line in message.split("\n"):
            print(f"relay: {harmless(line)}", file=sys.stderr, flush=True)
    except OSError:
        # Nobody can be told; the exit code still says it, and the interpreter must not try again.
        _discard(sys.stderr)


def _open_missing_streams() -> None:
    """Replace streams that our parent closed: otherwise a socket could take their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # open until the end


def _discard(stream: TextIO) -> None:
    """Let the interpreter flush into nothing at exit, instead of complaining about the pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
