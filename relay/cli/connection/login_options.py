"""The options that choose a name and a key to log in with, and their defaults.

At a terminal, without ``--name`` and ``--key``, the user is the same as last time at that server;
the first time, a key is created and the login name is claimed. Nothing else claims a name
automatically.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from relay.chat.names import is_guest
from relay.cli.arguments.names import checked_person, name_to_claim, person_name, program_name
from relay.cli.arguments.options import typed_path
from relay.cli.connection.passphrase import PASSPHRASE_VARIABLE, passphrase_for
from relay.client.devices.credentials import REGISTER_VARIABLE
from relay.client.devices.device_key import DeviceKey, PassphraseNeeded, contains
from relay.client.devices.key_files import KeyFiles
from relay.errors import UsageError
from relay.paths import from_variable
from relay.terminal.screens import stderr_notice

if TYPE_CHECKING:
    from relay.client.aio import Client

KEY_VARIABLE: Final = "RELAY_KEY"
_F = TypeVar("_F", bound=Callable[..., Any])


class Who(NamedTuple):
    """The user to log in as."""

    name: str | None
    """As given; None: not given."""
    key: Path | None
    """The given key file; None: the user's own."""
    program: bool
    """True for a script's command: without a key of the user, it gets a random name."""
    claims: bool
    """True at a terminal: claim the name, the first time."""


class Person(NamedTuple):
    """The user to log in as, at a known server."""

    name: str
    key: DeviceKey | None
    """None: the library finds or creates the user's own key for that name."""
    register: bool | None
    new: bool
    """True if the user has no key for this name at this server yet."""


def who_options(*, program: bool, guests: bool = False) -> Callable[[_F], _F]:
    """Add ``--name`` and ``--key``; the command gets them as ``who``.

    Args:
        program: see ``Who``.
        guests: whether a guest can use the command, if the server allows guests.
    """

    def add(command: _F) -> _F:
        @functools.wraps(command)
        def with_who(name: str | None, key: Path | None, **rest: object) -> object:
            claims = sys.stdin.isatty() and sys.stdout.isatty()
            given = key or from_variable(KEY_VARIABLE)
            return command(
                who=Who(checked_person(name, guests=guests), given, program, claims), **rest
            )

        wrapped: Any = with_who
        for option in (
            click.option(
                "--key",
                callback=typed_path,
                metavar="FILE",
                help="File of the device key to log in with.  [default: $RELAY_KEY, or your own key"
                " for this server]",
            ),
            click.option(
                "--name",
                metavar="NAME",
                help="Name to use.  [default: that of the key file; or the one that you used last"
                " at this server; or your login name]",
            ),
        ):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return add


def person_at(
    who: Who, files: KeyFiles, server_id: str | None, key: DeviceKey | None = None
) -> Person:
    """Return the user to log in as.

    Args:
        who: what was given.
        files: the user's own keys.
        server_id: of the server; None: not known yet.
        key: already loaded by the command; None: find it.

    Raises:
        UsageError: the key file cannot be used.
        click.UsageError: a name is needed, and there is nobody to ask for one.
    """
    if who.name is not None and is_guest(who.name):
        return Person(who.name, None, False, new=False)
    if who.key is not None:
        key = load_key(who.key)
        return Person(who.name or key.name or person_name(), key, False, new=False)
    own = [] if server_id is None else files.names(server_id)
    name = who.name or (own[0] if own else None)
    if name is None:
        claims_all = os.environ.get(REGISTER_VARIABLE, "") == "1"
        if who.program and claims_all:
            name = program_name()
        else:
            name = name_to_claim() if who.claims else person_name()
    encrypted = key
    if encrypted is None and server_id is not None and name in own:
        encrypted = _with_passphrase(files, server_id, name)
    return Person(name, encrypted, True if who.claims else None, new=name not in own)


def _with_passphrase(files: KeyFiles, server_id: str, name: str) -> DeviceKey | None:
    """Return the user's own key if its file has a passphrase; otherwise None.

    The passphrase is asked for here, not while a server waits.
    """
    path = files.path_of(server_id, name)
    try:
        DeviceKey.load(path)
    except PassphraseNeeded:
        return load_key(path)
    return None


def load_key(path: Path) -> DeviceKey:
    """Return the key in a file, with the passphrase given, or typed at the terminal.

    Raises:
        UsageError: it cannot be used.
    """
    try:
        return DeviceKey.load(path)
    except PassphraseNeeded:
        passphrase = passphrase_for(path)
        if passphrase is None:
            raise UsageError(
                f"key file {path} needs its passphrase: use a terminal, or name a file that has it"
                f" with {PASSPHRASE_VARIABLE}"
            ) from None
        return DeviceKey.load(path, passphrase)


def file_of(key: DeviceKey, kept: Path) -> Path | None:
    """Return the file that contains a key; None: none does.

    It is where it was created, or where it is kept since the server's id is known
    (``KeyFiles.follow``). There may be another key in both places.
    """
    created = [] if key.path is None else [key.path]
    return next((path for path in (*created, kept) if contains(path, key)), None)


def put_aside(who: Who, client: Client) -> None:
    """Have no command take a key by default that is no longer valid, and tell where it is."""
    server_id = client.server_id
    assert server_id is not None
    try:
        at = who.key or KeyFiles().ended(server_id, client.name)
    except UsageError as error:
        stderr_notice(f"its key is of no use any more, but stays the default: {error}")
        return
    if at is not None:
        stderr_notice(f"its key is of no use any more: {at}")


def new_key(path: Path, name: str, passphrase: str | None = None) -> DeviceKey:
    """Create a device key for a name, and return it once it is in a file.

    Raises:
        UsageError: it cannot be written.
    """
    key = DeviceKey.generate()
    key.name = name
    key.save(path, passphrase)
    return key
