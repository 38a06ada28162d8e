"""Parses the relay and room of a command line: [ADDRESS] [ROOM] [TEXT].

The address may be omitted if RELAY_ADDRESS contains one, and may be an alias. The meaning of the
arguments follows from their number, and from the form of the first one: no room's name contains a
dot, a colon or an ``@``. A name that begins with ``@`` is a user.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import click

from relay.chat.names import INBOX_PREFIX, is_room, normal
from relay.cli.arguments.aliases import Aliases, is_alias
from relay.client.address import PORT_DEFAULT, Address, parse_address
from relay.errors import UsageError

ADDRESS_VARIABLE: Final = "RELAY_ADDRESS"
_OF_ADDRESSES: Final = frozenset(":.@[/")


def split(
    typed: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> tuple[Address, list[str | None]]:
    """Return the address, and the arguments after it: None for omitted ones.

    Args:
        typed: the arguments of the command line.
        required: the names of the required ones after ADDRESS.
        optional: the names of the optional ones.

    Raises:
        click.UsageError: too many, or too few.
        UsageError: the address, the variable, or the file of aliases.
    """
    most = len(required) + len(optional)
    default = _default()
    rest = list(typed)
    doubt = ""
    if not default or len(rest) > most or (rest and _is_address(rest[0])):
        if not rest or rest[0].startswith(INBOX_PREFIX):
            raise _wrong(f"Missing argument 'ADDRESS', and {ADDRESS_VARIABLE} is not set.")
        address = resolved(rest.pop(0))
        doubt = perhaps_no_address(address)
    else:
        try:
            address = resolved(default)
        except UsageError as error:
            raise UsageError(f"{ADDRESS_VARIABLE}: {error}") from None
    if len(rest) < len(required):
        raise _wrong(f"Missing argument '{required[len(rest)]}'{doubt}.")
    if doubt and "ROOM" in required[:1] and not _is_place(rest[0]):
        raise _wrong(f"invalid room name {rest[0]!r}{doubt}")
    if len(rest) > most:
        extra = " ".join(rest[most:])
        many = "s" if len(rest) > most + 1 else ""
        raise _wrong(f"Got unexpected extra argument{many} ({extra})")
    return address, [*rest, *[None] * (most - len(rest))]


def perhaps_no_address(address: Address) -> str:
    """Return why a single word was taken for the address; empty if it certainly is one.

    A person who forgets the address, or who believes that RELAY_ADDRESS is set, typed a room.
    """
    if _default() or address != Address(address.host, PORT_DEFAULT, None):
        return ""
    if _is_address(address.host):
        return ""
    return f" ({address.host!r} is the ADDRESS here, because {ADDRESS_VARIABLE} is not set)"


def _is_place(text: str) -> bool:
    return text.startswith(INBOX_PREFIX) or is_room(normal(text))


def _default() -> str:
    return os.environ.get(ADDRESS_VARIABLE, "").strip()


def _wrong(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context(silent=True))


def resolved(text: str) -> Address:
    """Return the address for an alias or a typed address.

    Raises:
        UsageError: it is not an address; or the file of aliases.
    """
    return parse_address(_aliases().get(text, text) if is_alias(text) else text)


def _is_address(text: str) -> bool:
    if text.startswith("@"):
        return False
    if text.lower() == "localhost" or not _OF_ADDRESSES.isdisjoint(text):
        return True
    return is_alias(text) and text in _aliases()


def _aliases() -> dict[str, str]:
    try:
        aliases = Aliases.of_user()
    except UsageError:
        return {}  # without a home directory there are none
    return aliases.all()
