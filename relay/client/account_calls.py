"""Requests about accounts, and their results, without I/O, for both clients."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from relay import limits
from relay.chat import names
from relay.chat.accounts import answers, invitation, links, preferences, requests
from relay.chat.accounts.chain import Chain, Pin
from relay.chat.accounts.links import Kind, LinkError
from relay.client import arguments
from relay.client.devices.device_key import DeviceKey, public_from_text, public_text
from relay.client.devices.proof import Key
from relay.client.errors import DeviceChainError
from relay.client.refusals import refused
from relay.wire.codes import ErrorCode

_ID: Final = re.compile(r"[0-9a-fA-F]{64}")
"""The id of an open invitation: its hash."""
Change: TypeAlias = Literal[
    "add", "add-operator", "reset", "disable", "enable", "remove", "promote", "demote"
]
"""A change by an operator to an account."""


class Device(NamedTuple):
    """One device of an account."""

    key: str
    """Its public key: 52 characters of a-z and 2-7."""
    label: str
    """The label given by its owner; empty if there is none, and for other accounts' devices."""
    removed: bool
    """True if it was removed."""


class Devices(NamedTuple):
    """The devices of an account, as proved by its signed chain."""

    name: str
    account: bytes
    """The hash of the chain's first link: a different one means a different account."""
    devices: tuple[Device, ...]
    links: int
    """The length of the chain; 256 at most."""


class User(NamedTuple):
    """What the server knows about an account."""

    name: str
    state: str
    """"none", "active", "disabled", "reserved" or "removed"."""
    operator: bool
    expires_ms: int
    """When the invitation of a reserved name expires, ms since 1970; otherwise 0."""
    devices: tuple[Device, ...]
    links: int
    """The length of its chain."""
    waiting: str
    """The key of a device that was approved and has not finished enrolling; empty: none."""


class OpenInvitation(NamedTuple):
    """An invitation that can still be used."""

    id: str
    """64 hexadecimal digits, by which it can be revoked. It cannot be used to register."""
    expires_ms: int
    """Since 1970; 0: never."""
    operator: bool
    """True if the account that uses it becomes an operator."""
    by: str
    """Who created it; "operator": the administrator of the server."""


Writers: TypeAlias = Literal["all", "known", "rooms", "nobody"]
"""A set of accounts: everybody; those to whom the user has written; these and the permanent members
of rooms in which the user is one, too; nobody."""


class Preferences(NamedTuple):
    """A user's settings for direct messages."""

    writers: str
    """Who may write to the user: one of ``Writers``, or a word of a later version."""
    seen_by: str
    """Who may see when the user was last connected: one of ``Writers``, or a later word."""
    blocked: tuple[str, ...]
    """The names whose messages are refused."""
    keep: tuple[int, int, int] = (0, 0, 0)
    """How long the inbox keeps messages: seconds, messages, bytes; 0: as in the server's settings.
    """


def as_preferences(data: bytes) -> Preferences:
    """Return a user's settings."""
    found = answers.unpack_wanted(data)
    return Preferences(found.writers.name.lower(), found.seen_by.name.lower(), found.blocked)


def check_writers(writers: str | None, seen_by: str | None) -> None:
    """Raise TypeError or ValueError for an invalid choice."""
    for name, choice in (("writers", writers), ("seen_by", seen_by)):
        if choice is not None:
            arguments.word(name, choice, get_args(Writers))


def prefer(writers: str, seen_by: str) -> requests.Prefer:
    """Return the request for a choice."""
    chosen = (preferences.Writers[word.upper()].value for word in (writers, seen_by))
    return requests.Prefer(*chosen)


def set_keep(keep: tuple[int, int, int]) -> requests.SetKeep:
    """Return the request for a choice. Raises TypeError, ValueError."""
    return requests.SetKeep(*arguments.bounds("keep", keep))


class DeviceList(NamedTuple):
    """A list of devices as seen at some time."""

    account: bytes
    """The hash of its first link: see ``Devices``."""
    number: int
    """How many times it had been changed."""
    head: bytes
    """The hash of its last link. Two lists with the same hash are the same."""


class DeviceChange(NamedTuple):
    """How an account's devices contradict what was seen before: for a person to decide about."""

    name: str
    detail: str
    """A description of what has happened."""
    before: DeviceList
    now: DeviceList
    devices: tuple[Device, ...]
    """The present devices."""


def device_change(found: tuple[str, Pin] | None, last: Chain) -> DeviceChange | None:
    """Return the question for a person, or None."""
    if found is None:
        return None
    detail, pin = found
    now = as_devices(last, {}).devices
    return DeviceChange(last.handle, detail, DeviceList(*pin), DeviceList(*last.pin), now)


def accepted(change: object) -> tuple[str, Pin]:
    """Return the account and the pin of an accepted change. Raises TypeError."""
    if not isinstance(change, DeviceChange):
        raise TypeError(f"change must be a DeviceChange, not {type(change).__name__}")
    return change.name, Pin(*change.now)


def checked_name(value: object) -> str:
    """Return the canonical spelling of an account's name. Raises NameInvalid, TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"name must be a str, not {type(value).__name__}")
    name = names.normal(value)
    if not names.is_handle(name):
        raise refused(ErrorCode.NAME_INVALID, 0, "2 to 32 characters of a-z, 0-9, _ and -")
    return name


def as_devices(last: Chain, labels: dict[bytes, str]) -> Devices:
    """Return a chain as a program sees it."""
    active = [Device(public_text(key), labels.get(key, ""), False) for key in last.devices]
    gone = [Device(public_text(key), "", True) for key in sorted(last.removed)]
    return Devices(last.handle, last.root, (*active, *gone), last.number + 1)


def labels(data: bytes) -> dict[bytes, str]:
    """Return the labels of an account's devices, by key."""
    return {device.key: device.name for device in answers.unpack_shown(data).devices}


def as_user(name: str, data: bytes) -> User:
    """Return what the server knows about an account."""
    found = answers.unpack_shown(data)
    devices = tuple(Device(public_text(key), label, False) for key, label, _ in found.devices)
    waiting = public_text(found.offered) if found.offered else ""
    return User(name, found.state, found.operator, found.expires_ms, devices, found.links, waiting)


def link(last: Chain, kind: Kind, subject: bytes, key: Key | None) -> requests.Extend:
    """Return the request for one more link, signed by this device.

    Raises:
        DeviceChainError: the chain does not allow it.
    """
    if key is None:
        raise DeviceChainError("a guest has no devices")
    try:
        body = last.next_body(kind, subject, key.public).packed()
    except LinkError as error:
        raise DeviceChainError(str(error)) from None
    return requests.Extend(body + key.sign(body))


def paper_link(last: Chain, key: Key | None, paper: DeviceKey) -> requests.Extend:
    """Return the request that adds a recovery key; both keys are here, and both sign.

    Raises:
        DeviceChainError: the chain does not allow it.
    """
    offer = link(last, Kind.ADD, paper.public, key).link
    return requests.Extend(offer + paper.sign(links.parse(offer).signed))


def checked_key(value: object) -> DeviceKey:
    """Return a device key that the program holds. Raises TypeError."""
    if not isinstance(value, DeviceKey):
        raise TypeError(f"key must be a DeviceKey, not {type(value).__name__}")
    return value


def public_key(text: object) -> bytes:
    """Return the public key given as text.

    Raises:
        TypeError, UsageError.
    """
    if not isinstance(text, str):
        raise TypeError(f"key must be a str, not {type(text).__name__}")
    return public_from_text(text)


def new_token(days: float, now_ms: int | None = None) -> tuple[str, bytes, int]:
    """Create an invitation that is valid for some days.

    Args:
        days: how many.
        now_ms: the server's clock, by which it expires; None: it is that of this machine.

    Returns:
        Its text, to be passed on; its hash, for the server; when it expires, ms since 1970.
    """
    if not arguments.number("days", days, limits.INVITATION_DAYS_MAX):
        raise ValueError("days is 0; an invitation is valid for some time")
    token = secrets.token_bytes(limits.TOKEN_BYTES)
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    expires_ms = min(now_ms + int(days * 86_400_000), limits.U63_MAX)
    return invitation.token_text(token), invitation.hash_of(token), expires_ms


def as_invitations(found: Iterable[answers.Invitation]) -> list[OpenInvitation]:
    """Return invitations as a program sees them: those that expire first come first."""
    return [
        OpenInvitation(one.token_hash.hex(), one.expires_ms, one.operator, one.by)
        for one in sorted(found, key=lambda one: one.order)
    ]


def take_back(text: object) -> requests.Invite:
    """Return the request that revokes an invitation, given its text or its id.

    Raises:
        TypeError, ValueError: it is neither.
    """
    if not isinstance(text, str):
        raise TypeError(f"invitation must be a str, not {type(text).__name__}")
    if _ID.fullmatch(text.strip()):
        return requests.Invite(bytes.fromhex(text), 1, False)
    try:
        token = invitation.token_of(text)
    except ValueError:
        raise ValueError("invalid invitation: it must have 52 characters of a-z and 2-7") from None
    return requests.Invite(invitation.hash_of(token), 1, False)


def change(
    what: str, days: float, now_ms: int | None = None
) -> tuple[requests.Request, str | None]:
    """Return the request for a change, and the invitation that it creates, if any.

    Args:
        what: the change.
        days: how long the invitation is valid.
        now_ms: see ``new_token``.

    Raises:
        ValueError, TypeError: there is no such change; days is not a valid duration.
    """
    simple: dict[str, requests.Request] = {
        "disable": requests.Disable(),
        "enable": requests.Enable(),
        "remove": requests.Remove(),
        "promote": requests.Promote(True),
        "demote": requests.Promote(False),
    }
    if arguments.word("change", what, get_args(Change)) in simple:
        return simple[what], None
    text, token_hash, expires_ms = new_token(days, now_ms)
    if what == "reset":
        return requests.Reset(token_hash, expires_ms), text
    return requests.Add(token_hash, expires_ms, what == "add-operator"), text
