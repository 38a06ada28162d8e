"""What may be asked about an account or an invitation, and how it travels.

Between client and server (the content of ACCOUNT), between workers, and from a tool that works on a
data directory, it is the same: a msgpack array ``[number, field, ...]``. Who may ask what is
decided by whoever takes the request from a connection; this module says what becomes of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.chat.accounts import decide, invitation, links
from relay.chat.accounts.account import Account
from relay.chat.accounts.decide import Policy, Registering
from relay.chat.accounts.events import AccountEvent, InvitationEvent
from relay.chat.accounts.invitation import Invitation
from relay.chat.accounts.links import Verify
from relay.chat.accounts.refusal import Reason, Refused
from relay.chat.fields import NAME, U63
from relay.chat.partition import PARTITIONS
from relay.codec import Shape
from relay.errors import EnvelopeError


class Register(NamedTuple):
    """Begin the account. ``probe``: only tell whether that would be granted."""

    link: bytes
    token_hash: bytes
    invited: bool
    operator: bool
    probe: bool


class Enrol(NamedTuple):
    """A new key asks for what an old device has approved; with its signature it is a device."""

    key: bytes
    signature: bytes


class Bind(NamedTuple):
    """Use an invitation for a name and a key."""

    token_hash: bytes
    handle: str
    key: bytes


class Extend(NamedTuple):
    """Add a link to the chain, or offer one."""

    link: bytes


class NameDevice(NamedTuple):
    """Call a device something."""

    key: bytes
    name: str


class Show(NamedTuple):
    """Tell what is known of the account (``Shown``)."""


class ListNames(NamedTuple):
    """Tell which names exist in a partition, in order, from behind ``after`` on."""

    partition: int
    after: str


class Invite(NamedTuple):
    """Make an invitation."""

    token_hash: bytes
    expires_ms: int
    operator: bool


class Add(NamedTuple):
    """Keep a name for whoever has the token."""

    token_hash: bytes
    expires_ms: int
    operator: bool


class Reset(NamedTuple):
    """End the chain; whoever has the token begins a new one."""

    token_hash: bytes
    expires_ms: int


class Disable(NamedTuple):
    """End all sessions, and allow none."""


class Enable(NamedTuple):
    """Allow logins again."""


class Remove(NamedTuple):
    """End the account for good. Its name is not given out again."""


class Promote(NamedTuple):
    """Make the account an operator's, or an ordinary one."""

    operator: bool


Request: TypeAlias = (
    Register
    | Enrol
    | Bind
    | Extend
    | NameDevice
    | Show
    | ListNames
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
    8: Shape(Invite, (_hash, U63, codec.boolean)),
    9: Shape(Add, (_hash, U63, codec.boolean)),
    10: Shape(Reset, (_hash, U63)),
    11: Shape(Disable, ()),
    12: Shape(Enable, ()),
    13: Shape(Remove, ()),
    14: Shape(Promote, (codec.boolean,)),
    # Between workers alone; from clients they are envelopes of their own, before the login.
    24: Shape(Register, (_link, _hash_or_none, codec.boolean, codec.boolean, codec.boolean)),
    25: Shape(Enrol, (_key, codec.binary(0, links.SIGNATURE_BYTES))),
    26: Shape(Bind, (_hash, NAME, _key)),
}
OF_DEVICES: Final = frozenset({Extend, NameDevice, Show})
"""What a device may ask about its own account."""
OF_OPERATORS: Final = frozenset(
    {Show, ListNames, Invite, Add, Reset, Disable, Enable, Remove, Promote}
)
"""What an operator may ask about any account."""
_NUMBER_OF: Final = {shape.type: number for number, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(SHAPES, count_max=1, array_max=limits.ENVELOPE_FIELDS_MAX)
REQUEST_BYTES_MAX: Final = 1024


def pack(request: Request) -> bytes:
    """Return a request's bytes."""
    return codec.pack((_NUMBER_OF[type(request)], *request))


def unpack(body: bytes) -> Request:
    """Return the request of some bytes.

    Raises:
        EnvelopeError: they are none, or one of a later version.
    """
    found = _SCHEMA.unpack(body)[0]
    if isinstance(found, codec.Unknown):
        raise EnvelopeError("an unknown request about an account")
    return cast("Request", found)


class Context(NamedTuple):
    """What a decision needs besides the state and the request."""

    policy: Policy
    verify: Verify
    now_ms: int
    looks_alike: bool
    """Another handle that exists looks like this one; only Register asks."""
    by: str
    """Who asks: a handle, or "operator" for a tool."""


class Decided(NamedTuple):
    """What becomes of a request."""

    event: AccountEvent | InvitationEvent | None
    """To be stored; None: nothing, for it is so already."""
    data: bytes = b""
    """For who asked."""


def about_account(account: Account, request: Request, context: Context) -> Decided:
    """Decide a request about an account.

    Raises:
        Refused: with the reason.
    """
    match request:
        case Register():
            wanted = Registering(*request[:4])
            event = decide.register(
                account,
                wanted,
                context.policy,
                looks_alike=context.looks_alike,
                verify=context.verify,
                now_ms=context.now_ms,
            )
            return Decided(None if request.probe else event)
        case Enrol():
            return _enrol(account, request, context.verify)
        case Extend(link=link):
            return Decided(decide.extend(account, link, context.verify))
        case NameDevice(key=key, name=name):
            return Decided(decide.name_device(account, key, name))
        case Show():
            return Decided(None, shown(account))
        case Add():
            return Decided(decide.add(account, *request))
        case Reset():
            return Decided(decide.reset(account, *request))
        case Disable():
            return Decided(decide.disable(account))
        case Enable():
            return Decided(decide.enable(account))
        case Remove():
            return Decided(decide.remove(account))
        case Promote(operator=operator):
            return Decided(decide.promote(account, operator))
        case _:
            raise Refused(Reason.BAD_REQUEST, "not about an account")


def _enrol(account: Account, request: Enrol, verify: Verify) -> Decided:
    key, signature = request
    if account.chain is None:
        raise Refused(Reason.NOT_REGISTERED, "nobody has registered this name")
    if key in account.chain.devices:
        return Decided(None)
    if account.offer:
        body = links.parse(account.offer).body
        if body.subject == key and body.previous == account.chain.head:
            if not signature:
                return Decided(None, account.offer)
            return Decided(decide.extend(account, account.offer + signature, verify))
    raise Refused(Reason.KEY_REFUSED, "no device of the account has approved this key")


def about_invitation(state: Invitation, request: Request, context: Context) -> Decided:
    """Decide a request about an invitation.

    Raises:
        Refused: with the reason.
    """
    match request:
        case Invite():
            return Decided(invitation.invite(state, *request, by=context.by))
        case Bind():
            bound = invitation.bind(state, *request, now_ms=context.now_ms)
            assert state.invited is not None
            return Decided(bound, bytes((state.invited.operator,)))
        case _:
            raise Refused(Reason.BAD_REQUEST, "not about an invitation")


# --- the answer to Show -------------------------------------------------------------------------
class Device(NamedTuple):
    """One device of an account."""

    key: bytes
    name: str
    number: int
    """Of the link that added it."""


class Shown(NamedTuple):
    """What is known of an account."""

    state: str
    """"none", "active", "disabled", "reserved" or "removed"."""
    operator: bool
    expires_ms: int
    """When the token of a reserved name expires; else 0."""
    links: int
    """How many its chain has."""
    devices: tuple[Device, ...]
    offered: bytes
    """The key that waits to sign its approval; empty: none."""


def state_of(account: Account) -> str:
    """Say in one word how an account is."""
    if account.removed:
        return "removed"
    if account.disabled:
        return "disabled"
    if account.chain is not None:
        return "active"
    return "reserved" if account.reservation is not None else "none"


def shown(account: Account) -> bytes:
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
        EnvelopeError: it is none.
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
