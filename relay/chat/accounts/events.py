"""The events in the logs of accounts and invitations: each is the body of one system entry."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.chat.accounts import links
from relay.chat.fields import NAME, U63
from relay.codec import Shape
from relay.errors import EnvelopeError

CONTENT_TYPE: Final = "relay/account"


class Created(NamedTuple):
    """The account's chain begins, at first or after a reset."""

    link: bytes
    operator: bool
    token_hash: bytes
    """Of the invitation used; empty: none."""


class Linked(NamedTuple):
    """The chain has one more link."""

    link: bytes


class Offered(NamedTuple):
    """A device has approved a new key, which has not signed yet."""

    link: bytes


class Named(NamedTuple):
    """The label of a device. Other users do not see it."""

    key: bytes
    name: str


class Disabled(NamedTuple):
    """No logins are allowed under this name."""


class Enabled(NamedTuple):
    """The account is no longer disabled."""


class Reserved(NamedTuple):
    """The name is reserved for the holder of the token; the previous chain has ended."""

    token_hash: bytes
    expires_ms: int
    operator: bool


class Removed(NamedTuple):
    """The account is removed; its name is never assigned again."""


class Promoted(NamedTuple):
    """Whether the account is an operator."""

    operator: bool


class Blocked(NamedTuple):
    """An account's messages are refused. The root distinguishes it from a later one of the name."""

    handle: str
    root: bytes


class Unblocked(NamedTuple):
    """The messages are accepted again, whatever the root."""

    handle: str


class Preferred(NamedTuple):
    """The user's preferences."""

    writers: int
    """Who may write: ``preferences.Writers``."""
    seen_by: int
    """Who may see when the user was last connected: ``preferences.Writers``."""


class KeepSet(NamedTuple):
    """How long the user's inbox keeps direct messages; 0: as in the server's settings."""

    age_s: int
    messages: int
    bytes: int


class Invited(NamedTuple):
    """An invitation was created."""

    token_hash: bytes
    expires_ms: int
    """0: it does not expire."""
    operator: bool
    """Whether the account that uses it becomes an operator."""
    by: str
    """Who created it."""


class Bound(NamedTuple):
    """The invitation is used up: it is valid only for this name and this key."""

    handle: str
    key: bytes


class Released(NamedTuple):
    """The name went to somebody else first: the invitation can be used again."""


AccountEvent: TypeAlias = (
    Created
    | Linked
    | Offered
    | Named
    | Disabled
    | Enabled
    | Reserved
    | Removed
    | Promoted
    | Blocked
    | Unblocked
    | Preferred
    | KeepSet
)
InvitationEvent: TypeAlias = Invited | Bound | Released
Event: TypeAlias = AccountEvent | InvitationEvent

_link = codec.binary(1, links.LINK_BYTES_MAX)
_hash = codec.binary(links.HASH_BYTES, links.HASH_BYTES)
_hash_or_none = codec.binary(0, links.HASH_BYTES)
_key = codec.binary(links.KEY_BYTES, links.KEY_BYTES)
SHAPES: Final[dict[int, Shape]] = {
    1: Shape(Created, (_link, codec.boolean, _hash_or_none)),
    2: Shape(Linked, (_link,)),
    3: Shape(Offered, (_link,)),
    4: Shape(Named, (_key, codec.text(limits.DEVICE_NAME_BYTES_MAX))),
    5: Shape(Disabled, ()),
    6: Shape(Enabled, ()),
    7: Shape(Reserved, (_hash, U63, codec.boolean)),
    8: Shape(Removed, ()),
    9: Shape(Promoted, (codec.boolean,)),
    10: Shape(Blocked, (NAME, _hash)),
    11: Shape(Unblocked, (NAME,)),
    12: Shape(Preferred, (U63, U63)),
    13: Shape(KeepSet, (U63, U63, U63)),
    16: Shape(Invited, (_hash, U63, codec.boolean, NAME)),
    17: Shape(Bound, (NAME, _key)),
    18: Shape(Released, ()),
}
_OP_OF: Final = {shape.type: op for op, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(SHAPES, count_max=1, array_max=limits.ENVELOPE_FIELDS_MAX)


def pack(event: Event) -> bytes:
    """Return the body of an event's entry."""
    return codec.pack((_OP_OF[type(event)], *event))


def unpack(body: bytes) -> Event:
    """Return the event in an entry's body.

    Raises:
        EnvelopeError: it is invalid.
    """
    event = _SCHEMA.unpack(body)[0]
    if isinstance(event, codec.Unknown):
        raise EnvelopeError(f"an event of a later version, with the number {event.op}")
    return cast("Event", event)


_RESERVED: Final = pack(Reserved(bytes(links.HASH_BYTES), 0, False))[:-2][: -links.HASH_BYTES]
"""How the body of each begins."""


def may_be_reset(packed: bytes) -> bool:
    """Return True if a packed entry may be a ``Reserved``: a cheap check."""
    return _RESERVED in packed
