"""The default name of a client: the login name, made valid."""

from __future__ import annotations

import functools
import getpass
import secrets
import sys
import unicodedata
from typing import Final

import click

from relay import limits
from relay.chat.names import (
    GUEST_PREFIX,
    INBOX_PREFIX,
    is_guest,
    is_handle,
    is_reserved,
    normal,
)
from relay.cli.console.printing import print_error_line

_SUFFIX_CHARS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_SUFFIX_LENGTH: Final = 6


def checked_person(name: str | None, *, guests: bool) -> str | None:
    """Return the canonical spelling of a user's name; None stays None.

    ``guests``: whether a guest's name, which begins with ``~``, is allowed.

    Raises:
        click.UsageError: it is invalid; the message explains what is valid.
    """
    if name is None or not name.startswith(GUEST_PREFIX):
        return checked_name(name)
    if not guests:
        raise click.UsageError(f"{name!r} is the name of a guest; this needs an account")
    if is_guest(canonical := normal(name)) and not is_reserved(canonical[1:]):
        return canonical
    raise click.UsageError(
        f"invalid name {name!r}: a guest's is '~' followed by an ordinary name, at most"
        f" {limits.NAME_CHARS_MAX} characters in all"
    )


def checked_name(name: str | None, kind: str = "name") -> str | None:
    """Return the canonical spelling of a typed name or room; None stays None.

    Raises:
        click.UsageError: it is invalid; the message explains what is valid.
    """
    if name is None:
        return None
    canonical = normal(name)
    if not is_handle(canonical):
        raise click.UsageError(
            f"invalid {kind} {name!r}: use 2 to {limits.NAME_CHARS_MAX} of a-z, 0-9, '_' and '-',"
            " beginning with a letter or digit"
        )
    if kind == "name" and is_reserved(canonical):
        raise click.UsageError(
            f"the name {name!r} is reserved, or looks like one that is; choose another"
        )
    return canonical


def checked_room(room: str) -> str:
    """Return the canonical spelling of a typed room, or raise click.UsageError."""
    return checked_name(room, "room name") or room


def checked_log(log: str) -> str:
    """Return the canonical spelling of a room, or of ``@`` and a name. Raises click.UsageError."""
    if log.startswith(INBOX_PREFIX):
        return INBOX_PREFIX + (checked_name(log[1:], "name of a person") or "")
    return checked_room(log)


def person_name() -> str:
    """Return the login name as a valid name; if there is none, or it is reserved, with a suffix."""
    name = _legal(_login_name())
    return name if _free(name) else _with_suffix(name or "user")


def name_to_claim() -> str:
    """Return the name to claim permanently if none was given.

    It is the login name; if that is not valid, another one is asked for at the terminal.

    Raises:
        click.UsageError: there is nobody to ask.
    """
    login = _login_name()
    name = _legal(login)
    if _free(name):
        return name
    if not sys.stdin.isatty():
        raise click.UsageError(f"your login name, {login!r}, cannot be a name here: give --name")
    return _typed_name(login)


@functools.cache  # a command that connects a second time does not ask again
def _typed_name(login: str) -> str:
    print_error_line(f"Your login name, {login}, cannot be a name here. Choose another.")
    return str(click.prompt("Name to register", value_proc=checked_name, err=True))


def _free(name: str) -> bool:
    return is_handle(name) and not is_reserved(name)


def program_name() -> str:
    """Return the login name with a random suffix, so that scripts never collide."""
    return _with_suffix(_legal(_login_name()) or "user")


def _with_suffix(name: str) -> str:
    suffix = "".join(secrets.choice(_SUFFIX_CHARS) for _ in range(_SUFFIX_LENGTH))
    return f"{name[: limits.NAME_CHARS_MAX - _SUFFIX_LENGTH - 1]}-{suffix}"


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user: usual in containers
        return ""


def _legal(login: str) -> str:
    """Return the valid part of a login name; may be empty."""
    plain = unicodedata.normalize("NFKD", login).encode("ascii", "ignore").decode().lower()
    kept = "".join(char if char.isalnum() or char in "_-" else "-" for char in plain)
    return kept.strip("-_")[: limits.NAME_CHARS_MAX]
