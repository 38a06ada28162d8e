"""What may be asked about an account or an invitation, and how it travels.

Between client and server (the content of ACCOUNT), between workers, and from a tool that works on a
data directory, it is the same: a msgpack array ``[number, field, ...]``. Who may ask what is
decided by whoever takes the request from a connection; this module says what becomes of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.chat.accounts import answers, decide, invitation, links, preferences
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


class Block(NamedTuple):
    """Take no more messages of somebody. ``root``: of the account that is meant."""

    handle: str
    root: bytes


class Unblock(NamedTuple):
    """Take messages of somebody again."""

    handle: str


class Prefer(NamedTuple):
    """Choose who may write, and who sees when the person was last here."""

    writers: int
    seen_by: int


class Preferences(NamedTuple):
    """Tell what was chosen, and who is blocked (``Wanted``)."""


class Marks(NamedTuple):
    """Tell up to where the person has read, from behind the log ``after`` on."""

    after: str


class LastSeen(NamedTuple):
    """Tell when this person was last here, if who asks may know."""


class SeenBy(NamedTuple):
    """``LastSeen``, with the root of who asks."""

    root: bytes


class MayWrite(NamedTuple):
    """Would a new message of this account be taken?"""

    root: bytes


class TellInvited(NamedTuple):
    """Somebody has invited this account to a room: tell whoever has a session of it."""

    room: str
    root: bytes
    """Of the account that was invited."""
    by_root: bytes
    """Of the account that has invited it."""


class SetKeep(NamedTuple):
    """Choose how long the inbox keeps messages; 0: as the server's settings say."""

    age_s: int
    messages: int
    bytes: int


class Keep(NamedTuple):
    """Tell what was chosen so (``answers.unpack_keep``)."""


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
    # Between workers alone; from clients they are envelopes of their own, before the login.
    24: Shape(Register, (_link, _hash_or_none, codec.boolean, codec.boolean, codec.boolean)),
    25: Shape(Enrol, (_key, codec.binary(0, links.SIGNATURE_BYTES))),
    26: Shape(Bind, (_hash, NAME, _key)),
    27: Shape(MayWrite, (_hash,)),
    28: Shape(SeenBy, (_hash,)),
    29: Shape(TellInvited, (NAME, _hash, _hash_or_none)),
}
OF_DEVICES: Final = frozenset(
    {
        Extend, NameDevice, Show, Block, Unblock, Prefer, Preferences, Marks, SetKeep, Keep, Remove,
    }
)  # fmt: skip
"""What a device may ask about its own account."""
OF_OPERATORS: Final = frozenset(
    {Show, ListNames, Invite, Add, Reset, Disable, Enable, Remove, Promote}
)
"""What an operator may ask about any account."""
QUESTIONS: Final = frozenset({Show, ListNames, Preferences, Marks, LastSeen, Keep})
"""What changes nothing."""
_BY_THE_PERSON: Final = (Block, Unblock, Prefer, SetKeep)
_NUMBER_OF: Final = {shape.type: number for number, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(SHAPES, count_max=1, array_max=limits.ENVELOPE_FIELDS_MAX)
REQUEST_BYTES_MAX: Final = 1024
TOLD: Final = b"\x01"
"""What is decided about TellInvited: the person is told."""


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
    knows: bool = False
    """Only for MayWrite: the person has written to who asks."""
    shares_room: bool = False
    """Likewise: they share a room in which the person is a lasting member."""
    full: bool = False
    """Likewise: the inbox takes no more."""
    online: bool = False
    """Only for SeenBy: the person has a session now."""
    seen_ms: int = 0
    """Likewise: when the person's last session began, or ended; 0: it is not known."""


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
    if account.removed and isinstance(request, _BY_THE_PERSON):
        raise Refused(Reason.NOT_REGISTERED)  # from a session that is just ending
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
            return Decided(None, answers.packed_shown(account))
        case MayWrite(root=root):
            preferences.may_write(
                account,
                context.by,
                root,
                knows=context.knows,
                shares_room=context.shares_room,
                full=context.full,
            )
            return Decided(None)
        case TellInvited(_, root, by_root):
            told = preferences.hears_of(account, root, context.by, by_root)
            return Decided(None, TOLD if told else b"")
        case SeenBy(root=root):
            told = preferences.sees(
                account,
                context.by,
                root,
                knows=context.knows,
                shares_room=context.shares_room,
            )
            seen = answers.Seen(context.online, context.seen_ms) if told else answers.NOT_TOLD
            return Decided(None, answers.packed_seen(seen))
        case Block(handle=handle, root=root):
            return Decided(preferences.block(account, handle, root))
        case Unblock(handle=handle):
            return Decided(preferences.unblock(account, handle))
        case Prefer():
            return Decided(preferences.prefer(account, *request))
        case Preferences():
            return Decided(None, answers.packed_wanted(account))
        case SetKeep():
            return Decided(preferences.set_keep(account, (*request,)))
        case Keep():
            return Decided(None, codec.pack(account.keep))
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
