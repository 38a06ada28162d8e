"""Decides a request about an account or an invitation: an event to store, or an answer."""

from __future__ import annotations

from typing import Final, NamedTuple

from relay import codec
from relay.chat.accounts import answers, decide, invitation, links, preferences
from relay.chat.accounts.account import Account
from relay.chat.accounts.decide import Policy, Registering
from relay.chat.accounts.events import AccountEvent, InvitationEvent
from relay.chat.accounts.invitation import Invitation
from relay.chat.accounts.links import Verify
from relay.chat.accounts.refusal import Reason, Refused
from relay.chat.accounts.requests import (
    Add,
    Bind,
    Block,
    Disable,
    Enable,
    Enrol,
    Extend,
    Invite,
    Keep,
    MayWrite,
    NameDevice,
    Prefer,
    Preferences,
    Promote,
    Register,
    Release,
    Remove,
    Request,
    Reset,
    SeenBy,
    SetKeep,
    Show,
    TellInvited,
    Unblock,
)

_BY_THE_PERSON: Final = (Block, Unblock, Prefer, SetKeep)
TOLD: Final = b"\x01"
"""The answer to TellInvited: the user is told."""


class Context(NamedTuple):
    """What a decision needs in addition to the state and the request."""

    policy: Policy
    verify: Verify
    now_ms: int
    looks_alike: bool
    """A similar handle exists; only used by Register."""
    by: str
    """The requester: a handle, or "operator" for a tool."""
    knows: bool = False
    """Only for MayWrite: the user has written to the requester."""
    shares_room: bool = False
    """Only for MayWrite: they share a room in which the user is a permanent member."""
    full: bool = False
    """Only for MayWrite: the inbox is full."""
    online: bool = False
    """Only for SeenBy: the user has a session now."""
    seen_ms: int = 0
    """Only for SeenBy: when the user's last session began or ended; 0: unknown."""


LOST: Final = b"\x01"
"""Data of the refusal of ``Register`` if somebody else has the name, so that no account can ever be
created with the invitation as it was bound."""


class Decided(NamedTuple):
    """The decision about a request."""

    event: AccountEvent | InvitationEvent | None
    """To be stored; None: nothing, because the effect exists already."""
    data: bytes = b""
    """For the requester."""


def about_account(account: Account, request: Request, context: Context) -> Decided:
    """Decide a request about an account.

    Raises:
        Refused: with the reason.
    """
    if account.removed and isinstance(request, _BY_THE_PERSON):
        raise Refused(Reason.NOT_REGISTERED)  # from a session that is about to end
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
    closed = context.policy.registration == "closed"
    match request:
        case Invite():
            made = invitation.invite(state, request, context.by, context.now_ms, closed=closed)
            return Decided(made)
        case Bind():
            bound = invitation.bind(state, *request, now_ms=context.now_ms)
            assert state.invited is not None
            operator = state.invited.operator
            if closed and not operator:
                raise Refused(Reason.REGISTRATION_CLOSED, decide.CLOSED)
            return Decided(bound, bytes((operator,)))
        case Release():
            return Decided(invitation.release(state, *request))
        case _:
            raise Refused(Reason.BAD_REQUEST, "not about an invitation")
