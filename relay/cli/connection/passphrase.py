"""The passphrase of a device's key: typed at a terminal, or in a file for programs."""

from __future__ import annotations

import functools
import os
import stat
import sys
from pathlib import Path
from typing import Final

import click

from relay.bounded_files import read_bounded
from relay.cli.connection.server_keys import CONSOLE_IN, open_console
from relay.cli.console.hidden_input import ask_hidden
from relay.errors import UsageError
from relay.paths import expanded

PASSPHRASE_VARIABLE: Final = "RELAY_KEY_PASSPHRASE"  # noqa: S105  # a name
"""The name of a file, or ``fd:NUMBER``, like the setting for the server's key."""
BYTES_MAX: Final = 4096
_DESCRIPTOR: Final = "fd:"


def passphrase_for(path: Path) -> str | None:
    """Return the passphrase of a key file; None: none is given, and there is nobody to ask.

    Raises:
        UsageError: the given one cannot be read.
    """
    given = _given()
    if given is not None or not _somebody_is_there():
        return given
    return _typed(path)


def _somebody_is_there() -> bool:
    """True at a terminal, also if input is piped: questions are asked at the terminal itself."""
    if sys.stdin.isatty():
        return True
    if not sys.stderr.isatty():
        return False
    try:
        with open_console(CONSOLE_IN, "r"):
            return True
    except OSError:
        return False


@functools.cache  # a command that connects a second time does not ask again
def _typed(path: Path) -> str:
    return ask_hidden(f"Passphrase of {path}")


def passphrase_for_new_key() -> str:
    """Return the passphrase for a key that is about to be created.

    Raises:
        click.UsageError: none is given, and there is nobody to ask.
        UsageError: the given one cannot be read.
    """
    given = _given()
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise click.UsageError(
            "--passphrase needs a terminal to ask at, and there is none: use one, or name a file"
            f" that has the passphrase with {PASSPHRASE_VARIABLE}"
        )
    return ask_hidden("Passphrase for the new key", twice=True)


def _given() -> str | None:
    named = os.environ.get(PASSPHRASE_VARIABLE, "").strip()
    return _read(named) if named else None


@functools.cache  # a pipe can be read once, and a command may need it again
def _read(named: str) -> str:
    number = named.removeprefix(_DESCRIPTOR)
    try:
        if number != named:
            if not number.isdecimal():
                raise ValueError("fd: and a number are expected")
            data = read_bounded(int(number), BYTES_MAX)
        else:
            path = expanded(named)
            status = path.stat()
            if os.name == "posix" and stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                raise ValueError(f"it is open to others; run: chmod 600 {path}")
            data = read_bounded(path, BYTES_MAX)
        text = data.decode().split("\n", 1)[0].removesuffix("\r")
        if not text:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{PASSPHRASE_VARIABLE}: cannot read {named}: {why}") from None
    return text
