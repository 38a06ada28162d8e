"""The answers to requests about accounts, packed."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

from relay import codec, limits
from relay.chat.accounts import links, preferences
from relay.chat.accounts.account import Account
from relay.chat.fields import EPOCH_OR_NONE, LOG, NAME, U63
from relay.errors import EnvelopeError

_key: Final = codec.binary(links.KEY_BYTES, links.KEY_BYTES)


class Device(NamedTuple):
    """One device of an account."""

    key: bytes
    name: str
    number: int
    """Of the link that added it."""


class Shown(NamedTuple):
    """What is known about an account."""

    state: str
    """"none", "active", "disabled", "reserved" or "removed"."""
    operator: bool
    expires_ms: int
    """When the token of a reserved name expires; otherwise 0."""
    links: int
    """Length of its chain."""
    devices: tuple[Device, ...]
    offered: bytes
    """The key that waits to sign its approval; empty: none."""


def state_of(account: Account) -> str:
    """Return the state of an account in one word."""
    if account.removed:
        return "removed"
    if account.disabled:
        return "disabled"
    if account.chain is not None:
        return "active"
    return "reserved" if account.reservation is not None else "none"


def packed_shown(account: Account) -> bytes:
    """Return the packed answer to ``Show``."""
    names = dict(account.names)
    chain, reservation = account.chain, account.reservation
    devices = {} if chain is None else chain.devices
    offered = links.parse(account.offer).body.subject if account.offer else b""
    return codec.pack(
        (
            state_of(account),
            account.operator or bool(reservation and reservation.operator),
            0 if reservation is None else reservation.expires_ms,
            0 if chain is None else chain.number + 1,
            [[key, names.get(key, ""), index] for key, index in devices.items()],
            offered,
        )
    )


class Invitation(NamedTuple):
    """An invitation that can still be used."""

    token_hash: bytes
    expires_ms: int
    """Since 1970; 0: never."""
    operator: bool
    """True if the account that uses it becomes an operator."""
    by: str
    """Who created it."""

    @property
    def order(self) -> tuple[bool, int, bytes]:
        """The sort key of lists: invitations that expire first come first."""
        return not self.expires_ms, self.expires_ms, self.token_hash


class Invitations(NamedTuple):
    """Some of the invitations of a partition."""

    some: tuple[Invitation, ...]
    after: str
    """Where the next part begins, in the order of their logs; empty: this is the last one."""


def packed_invitations(part: Invitations) -> bytes:
    """Return the packed answer to ``ListInvitations``."""
    return codec.pack((part.some, part.after))


INVITATIONS_MAX: Final = 16
"""In one answer; only this many are examined for it, since each has its own log."""
_INVITATIONS: Final = (
    codec.list_of(
        codec.tuple_of(
            codec.binary(links.HASH_BYTES, links.HASH_BYTES),
            U63,
            codec.boolean,
            codec.text(limits.NAME_CHARS_MAX),
        ),
        INVITATIONS_MAX,
    ),
    codec.text(1 + limits.NAME_CHARS_MAX),
)


def unpack_invitations(data: bytes) -> Invitations:
    """Return the answer to ``ListInvitations``.

    Raises:
        EnvelopeError: it is invalid.
    """
    rows, after = codec.unpack_array(data, _INVITATIONS, array_max=INVITATIONS_MAX)
    some = tuple(Invitation(*row) for row in cast("list[tuple[bytes, int, bool, str]]", rows))
    return Invitations(some, cast("str", after))


class Wanted(NamedTuple):
    """A user's settings for direct messages."""

    writers: preferences.Writers
    """Who may write to the user."""
    seen_by: preferences.Writers
    """Who may see when the user was last connected."""
    blocked: tuple[str, ...]
    """The names of accounts whose messages are refused."""


def packed_wanted(account: Account) -> bytes:
    """Return the packed answer to ``Preferences``."""
    blocked = sorted({handle for handle, _ in account.blocked})
    return codec.pack((account.writers, account.seen_by, blocked))


_WANTED: Final = (U63, U63, codec.list_of(NAME, preferences.BLOCKED_MAX))


def unpack_wanted(data: bytes) -> Wanted:
    """Return the answer to ``Preferences``.

    Raises:
        EnvelopeError: it is invalid.
    """
    writers, seen_by, blocked = codec.unpack_array(data, _WANTED, array_max=preferences.BLOCKED_MAX)
    try:
        choices = [preferences.Writers(cast("int", one)) for one in (writers, seen_by)]
    except ValueError:
        raise EnvelopeError("a choice of a later version") from None
    return Wanted(choices[0], choices[1], tuple(cast("list[str]", blocked)))


def unpack_keep(data: bytes) -> tuple[int, int, int]:
    """Return the answer to ``Keep``: seconds, messages, bytes.

    Raises:
        EnvelopeError: it is invalid.
    """
    age_s, messages, size = codec.unpack_array(data, (U63, U63, U63), array_max=3)
    return cast("int", age_s), cast("int", messages), cast("int", size)


_MARKS: Final = (
    codec.list_of(codec.tuple_of(LOG, EPOCH_OR_NONE, U63), limits.PAGE_ENTRIES_MAX),
    codec.boolean,
)


def unpack_marks(data: bytes) -> tuple[list[tuple[str, bytes, int]], bool]:
    """Return the answer to ``Marks``: (log, epoch, seq) each, and whether these are the last.

    Raises:
        EnvelopeError: it is invalid.
    """
    rows, end = codec.unpack_array(data, _MARKS, array_max=limits.PAGE_ENTRIES_MAX)
    marks = [(row[0], row[1], row[2]) for row in cast("list[list[Any]]", rows)]
    return marks, cast("bool", end)


_SHOWN: Final = (
    codec.text(16),
    codec.boolean,
    U63,
    U63,
    codec.list_of(codec.tuple_of(_key, codec.text(limits.DEVICE_NAME_BYTES_MAX), U63), 256),
    codec.binary(0, links.KEY_BYTES),
)


def unpack_shown(data: bytes) -> Shown:
    """Return the answer to ``Show``.

    Raises:
        EnvelopeError: it is invalid.
    """
    fields = codec.unpack_array(data, _SHOWN, array_max=256)
    state, operator, expires_ms, count, devices, offered = fields
    return Shown(
        cast("str", state),
        cast("bool", operator),
        cast("int", expires_ms),
        cast("int", count),
        tuple(Device(*row) for row in cast("list[tuple[bytes, str, int]]", devices)),
        cast("bytes", offered),
    )


class Seen(NamedTuple):
    """When a user was last connected, as far as the requester may know."""

    online: bool
    time_ms: int
    """When a session began or the last one ended, ms since 1970; 0: hidden or unknown."""


NOT_TOLD: Final = Seen(False, 0)


def packed_seen(seen: Seen) -> bytes:
    """Return the packed answer to ``LastSeen``."""
    return codec.pack(tuple(seen))


def unpack_seen(data: bytes) -> Seen:
    """Return the answer to ``LastSeen``.

    Raises:
        EnvelopeError: it is invalid.
    """
    online, time_ms = codec.unpack_array(data, (codec.boolean, U63), array_max=2)
    return Seen(cast("bool", online), cast("int", time_ms))
