"""Paths given by users, and the user's own directories, determined only when needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, Literal

from relay.errors import UsageError

_VARIABLES = {"data": "XDG_DATA_HOME", "config": "XDG_CONFIG_HOME"}
_SHOWN_CHARS_MAX: Final = 60


def expanded(text: str) -> Path:
    """Return a given path, with a leading ``~`` or ``~user`` replaced.

    Raises:
        UsageError: it is empty, or there is no such home directory.
    """
    if not text.strip() or "\0" in text:
        raise UsageError(f"expected a path, not {_cut(text)}")
    if text.startswith("~") and sys.platform != "win32" and os.environ.get("HOME") == "":
        raise UsageError(f"cannot expand {_cut(text)}: HOME is empty")
    path = os.path.expanduser(text)  # noqa: PTH111  # Path.expanduser raises RuntimeError
    if path.startswith("~"):
        raise UsageError(f"cannot expand {_cut(text)}: there is no such home directory")
    return Path(path)


def is_there(path: Path) -> bool:
    """Return True if a path exists. ``Path.exists`` raises OSError for too long a path."""
    return os.path.exists(path)  # noqa: PTH110


def given(path: str | os.PathLike[str]) -> Path:
    """Return a path that a program gave, expanded as by ``expanded``.

    Raises:
        TypeError: it is not a path.
        UsageError: it is empty, or there is no such home directory.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"expected a path as a str, not {type(text).__name__}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise UsageError(f"the path {_cut(text)} is not UTF-8 text") from None
    return expanded(text)


def _cut(text: str) -> str:
    """Return a path for an error: quoted and truncated."""
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "...")


def from_variable(variable: str) -> Path | None:
    """Return the path in an environment variable; None if it is empty or not set.

    Raises:
        UsageError: it cannot be expanded.
    """
    named = os.environ.get(variable, "")
    if not named.strip():
        return None
    try:
        return expanded(named)
    except UsageError as error:
        raise UsageError(f"{variable}: {error}") from None


def followed(path: Path) -> Path:
    """Return where a path leads: symbolic links are followed as far as possible.

    Before Python 3.13, ``Path.resolve`` raises RuntimeError at a link that leads back to itself.
    """
    return Path(os.path.realpath(path))


def user_directory(kind: Literal["data", "config"], remedy: str) -> Path:
    """Return Relay's directory below the user's data or configuration directory.

    Args:
        kind: of the directory.
        remedy: what to give instead if there is none, for the error.

    Raises:
        UsageError: there is no home directory, or XDG_DATA_HOME or XDG_CONFIG_HOME is not absolute.
    """
    if sys.platform != "win32":
        variable = _VARIABLES[kind]
        if given := os.environ.get(variable, "").strip():
            if not Path(given).is_absolute():
                raise UsageError(f"{variable}: expected an absolute path, not {given!r}")
        # Without a home directory the tilde stays; an empty one would make it the root directory.
        elif os.environ.get("HOME") == "" or not Path(os.path.expanduser("~")).is_absolute():  # noqa: PTH111
            raise UsageError(f"there is no home directory: set HOME, or {remedy}")
    # Imported here: most users give paths, and need no home directory for that.
    from platformdirs import user_config_path, user_data_path

    return (user_data_path if kind == "data" else user_config_path)("relay", appauthor=False)
