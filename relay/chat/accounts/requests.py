"""The requests about an account or an invitation, and their encoding.

The encoding is the same between client and server (the content of ACCOUNT), between workers, and
from a tool that works on a data directory: a msgpack array ``[number, field, ...]``. The receiver
of a request from a connection checks who may make it; ``decide_request`` decides about it.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.chat.accounts import links
from relay.chat.fields import NAME, U63
from relay.chat.partition import PARTITIONS
from relay.codec import Shape
from relay.errors import EnvelopeError


class Register(NamedTuple):
    """Create the account. ``probe``: only check whether that would be granted."""

    link: bytes
    token_hash: bytes
    invited: bool
    operator: bool
    probe: bool


class Enrol(NamedTuple):
    """A new key requests what a device has approved; with its signature it becomes a device."""

    key: bytes
    signature: bytes


class Bind(NamedTuple):
    """Use an invitation for a name and a key."""

    token_hash: bytes
    handle: str
    key: bytes


class Release(NamedTuple):
    """Undo ``Bind``: the name belongs to somebody else."""

    token_hash: bytes
    handle: str
    key: bytes


class Extend(NamedTuple):
    """Add a link to the chain, or offer one."""

    link: bytes


class NameDevice(NamedTuple):
    """Set the label of a device."""

    key: bytes
    name: str


class Show(NamedTuple):
    """Return what is known about the account (``Shown``)."""


class ListNames(NamedTuple):
    """Return the names in a partition, in order, after ``after``."""

    partition: int
    after: str


class ListInvitations(NamedTuple):
    """Return the open invitations of a partition, some at a time (``answers.Invitations``)."""

    partition: int
    after: str


class Block(NamedTuple):
    """Refuse messages from an account. ``root``: of the account that is meant."""

    handle: str
    root: bytes


class Unblock(NamedTuple):
    """Accept messages from an account again."""

    handle: str


class Prefer(NamedTuple):
    """Choose who may write, and who may see when the user was last connected."""

    writers: int
    seen_by: int


class Preferences(NamedTuple):
    """Return the preferences and the blocked accounts (``Wanted``)."""


class Marks(NamedTuple):
    """Return the user's read marks, after the log ``after``."""

    after: str


class LastSeen(NamedTuple):
    """Return when this user was last connected, if the requester may know."""


class SeenBy(NamedTuple):
    """``LastSeen``, with the root of the requester."""

    root: bytes


class MayWrite(NamedTuple):
    """Would a new message of this account be taken?"""

    root: bytes


class TellInvited(NamedTuple):
    """This account was invited to a room: notify its sessions."""

    room: str
    root: bytes
    """Of the invited account."""
    by_root: bytes
    """Of the inviting account."""


class SetKeep(NamedTuple):
    """Choose how long the inbox keeps messages; 0: as in the server's settings."""

    age_s: int
    messages: int
    bytes: int


class Keep(NamedTuple):
    """Return the retention chosen with ``SetKeep`` (``answers.unpack_keep``)."""


class Invite(NamedTuple):
    """Create an invitation."""

    token_hash: bytes
    expires_ms: int
    operator: bool


class Add(NamedTuple):
    """Reserve a name for the holder of the token."""

    token_hash: bytes
    expires_ms: int
    operator: bool


class Reset(NamedTuple):
    """End the chain; the holder of the token begins a new one."""

    token_hash: bytes
    expires_ms: int


class Disable(NamedTuple):
    """End all sessions, and allow no new ones."""


class Enable(NamedTuple):
    """Allow logins again."""


class Remove(NamedTuple):
    """Remove the account permanently. Its name is never assigned again."""


class Promote(NamedTuple):
    """Make the account an operator, or an ordinary one."""

    operator: bool


Request: TypeAlias = (
    Register
    | Enrol
    | Bind
    | Release
    | Extend
    | NameDevice
    | Show
    | ListNames
    | ListInvitations
    | Block
    | Unblock
    | Prefer
    | Preferences
    | Marks
    | LastSeen
    | SeenBy
    | MayWrite
    | TellInvited
    | SetKeep
    | Keep
    | Invite
    | Add
    | Reset
    | Disable
    | Enable
    | Remove
    | Promote
)

_link = codec.binary(1, links.LINK_BYTES_MAX)
_hash = codec.binary(links.HASH_BYTES, links.HASH_BYTES)
_hash_or_none = codec.binary(0, links.HASH_BYTES)
_key = codec.binary(links.KEY_BYTES, links.KEY_BYTES)
SHAPES: Final[dict[int, Shape]] = {
    1: Shape(Extend, (_link,)),
    2: Shape(NameDevice, (_key, codec.text(limits.DEVICE_NAME_BYTES_MAX))),
    3: Shape(Show, ()),
    4: Shape(ListNames, (codec.uint(PARTITIONS - 1), codec.text(limits.NAME_CHARS_MAX))),
    5: Shape(Block, (NAME, _hash)),
    6: Shape(Unblock, (NAME,)),
    7: Shape(Prefer, (codec.uint(255), codec.uint(255))),
    8: Shape(Invite, (_hash, U63, codec.boolean)),
    9: Shape(Add, (_hash, U63, codec.boolean)),
    10: Shape(Reset, (_hash, U63)),
    11: Shape(Disable, ()),
    12: Shape(Enable, ()),
    13: Shape(Remove, ()),
    14: Shape(Promote, (codec.boolean,)),
    15: Shape(Preferences, ()),
    16: Shape(Marks, (codec.text(1 + limits.NAME_CHARS_MAX),)),
    17: Shape(LastSeen, ()),
    18: Shape(SetKeep, (U63, U63, U63)),
    19: Shape(Keep, ()),
    20: Shape(ListInvitations, (codec.uint(PARTITIONS - 1), codec.text(limits.NAME_CHARS_MAX + 1))),
    24: Shape(Register, (_link, _hash_or_none, codec.boolean, codec.boolean, codec.boolean)),
    25: Shape(Enrol, (_key, codec.binary(0, links.SIGNATURE_BYTES))),
    26: Shape(Bind, (_hash, NAME, _key)),
    27: Shape(MayWrite, (_hash,)),
    28: Shape(SeenBy, (_hash,)),
    29: Shape(TellInvited, (NAME, _hash, _hash_or_none)),
    30: Shape(Release, (_hash, NAME, _key)),
}
BETWEEN_WORKERS: Final = frozenset({Register, Enrol, Bind, MayWrite, SeenBy, TellInvited, Release})
"""What only workers request; clients register and enrol by separate envelopes, before the login."""
OF_CLIENTS: Final = {n: shape for n, shape in SHAPES.items() if shape.type not in BETWEEN_WORKERS}
OF_DEVICES: Final = frozenset(
    {
        Extend, NameDevice, Show, Block, Unblock, Prefer, Preferences, Marks, SetKeep, Keep, Remove,
    }
)  # fmt: skip
"""What a device may request about its own account."""
OF_OPERATORS: Final = frozenset(
    {Show, ListNames, ListInvitations, Invite, Add, Reset, Disable, Enable, Remove, Promote}
)
"""What an operator may request about any account."""
QUESTIONS: Final = frozenset({Show, ListNames, ListInvitations, Preferences, Marks, LastSeen, Keep})
"""Requests that change nothing."""
_NUMBER_OF: Final = {shape.type: number for number, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(SHAPES, count_max=1, array_max=limits.ENVELOPE_FIELDS_MAX)
REQUEST_BYTES_MAX: Final = 1024


def pack(request: Request) -> bytes:
    """Return a request's bytes."""
    return codec.pack((_NUMBER_OF[type(request)], *request))


def unpack(body: bytes) -> Request:
    """Return the request encoded in some bytes.

    Raises:
        EnvelopeError: they are invalid, or belong to a later version.
    """
    found = _SCHEMA.unpack(body)[0]
    if isinstance(found, codec.Unknown):
        raise EnvelopeError("an unknown request about an account")
    return cast("Request", found)
