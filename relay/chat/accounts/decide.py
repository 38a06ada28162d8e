"""Decisions about accounts: (state, request, now) -> the event to store, None, or a refusal.

None: the effect exists already, and repeating the request succeeds. The caller has checked what a
connection proves (who asks, with which key) and that the requester may ask; signatures of links are
checked here, with the function passed in.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from relay import limits
from relay.chat import names
from relay.chat.accounts import chain, links
from relay.chat.accounts.account import Account
from relay.chat.accounts.events import (
    AccountEvent,
    Created,
    Disabled,
    Enabled,
    Linked,
    Named,
    Offered,
    Promoted,
    Removed,
    Reserved,
)
from relay.chat.accounts.links import Kind, LinkError, Verify
from relay.chat.accounts.refusal import Reason, Refused

Registration: TypeAlias = Literal["open", "invite", "closed"]
CLOSED: Final = "only operators add users to this server"
EVENTS_MAX: Final = 1024
"""Events of one account caused by its devices' renaming and offering: a chain alone has 256."""


class Registering(NamedTuple):
    """A request to create an account."""

    link: bytes
    """The root link."""
    token_hash: bytes
    """Of the invitation or reservation that was presented; empty: none."""
    invited: bool
    """True if an invitation is bound to this name and key."""
    operator: bool
    """True if that invitation creates an operator."""


class Policy(NamedTuple):
    """What the server allows."""

    registration: Registration
    server_id: bytes


def register(
    account: Account,
    request: Registering,
    policy: Policy,
    *,
    looks_alike: bool,
    verify: Verify,
    now_ms: int,
) -> Created | None:
    """Decide about a registration.

    Args:
        account: its present state; possibly unused.
        request: the request.
        policy: of the server.
        looks_alike: True if a similar handle exists.
        verify: checks signatures.
        now_ms: wall clock.

    Raises:
        Refused: with the reason.
    """
    try:
        link = links.parse(request.link)
        begun = chain.begun(link, verify)
    except LinkError as error:
        raise Refused(Reason.BAD_REQUEST, str(error)) from None
    if begun.handle != account.handle or begun.server_id != policy.server_id:
        raise Refused(Reason.BAD_REQUEST, "a link for another name or another server")
    if account.removed:
        raise Refused(Reason.NAME_TAKEN, "this name belonged to somebody else")
    if account.chain is not None:
        if link.body.subject in account.chain.devices:
            return None
        raise Refused(Reason.NAME_TAKEN, "this name belongs to somebody else")
    reservation = account.reservation
    if reservation is not None:
        if not reservation.admits(request.token_hash, now_ms):
            if reservation.is_for(request.token_hash):
                raise Refused(Reason.INVITATION_NEEDED, "the invitation to this name has expired")
            raise Refused(Reason.INVITATION_NEEDED, "this name needs the invitation made for it")
        return Created(request.link, reservation.operator, request.token_hash)
    if looks_alike:
        raise Refused(Reason.LOOKS_ALIKE, "this name looks like an existing one")
    if request.token_hash and not request.invited:
        # Also on an open server: the invitation may have been meant to create an operator.
        raise Refused(Reason.INVITATION_NEEDED, "this invitation is not valid, or no longer valid")
    if not request.invited and policy.registration != "open":
        if policy.registration == "closed":
            raise Refused(Reason.REGISTRATION_CLOSED, CLOSED)
        raise Refused(Reason.INVITATION_NEEDED, "this server requires an invitation")
    token_hash = request.token_hash if request.invited else b""
    return Created(request.link, request.invited and request.operator, token_hash)


def extend(account: Account, packed: bytes, verify: Verify) -> Linked | Offered | None:
    """Decide about a link of the account's chain, or an offer of one.

    Raises:
        Refused: with the reason.
    """
    held = account.chain
    if held is None:
        raise Refused(Reason.NOT_REGISTERED)
    try:
        link = links.parse(packed)
    except LinkError as error:
        raise Refused(Reason.BAD_REQUEST, str(error)) from None
    if link.hash == held.head:
        return None  # repeated: the answer was lost
    body = link.body
    try:
        held.check_next(body)
    except LinkError as error:
        moved = body.number != held.number + 1 or body.previous != held.head
        raise Refused(Reason.CHANGED if moved else Reason.BAD_REQUEST, str(error)) from None
    if not link.verified(verify):
        raise Refused(Reason.BAD_REQUEST, "a link with a wrong signature")
    if link.complete:
        return Linked(packed)
    assert body.kind is Kind.ADD
    if packed == account.offer:
        return None
    _check_room(account)
    return Offered(packed)


def name_device(account: Account, key: bytes, name: str) -> Named | None:
    """Decide the label of a device.

    Raises:
        Refused: with the reason.
    """
    if account.chain is None or key not in account.chain.devices:
        raise Refused(Reason.KEY_REFUSED, "this key is not a device of the account")
    if not names.is_display(name) or len(name.encode()) > limits.DEVICE_NAME_BYTES_MAX:
        raise Refused(Reason.BAD_REQUEST, "the name of the device has characters not allowed")
    if (key, name) in account.names:
        return None
    _check_room(account)
    return Named(key, name)


# --- by operators -------------------------------------------------------------------------------
def disable(account: Account) -> Disabled | None:
    """Decide about disabling an account: no logins until it is enabled."""
    _check_exists(account)
    return None if account.disabled else Disabled()


def enable(account: Account) -> Enabled | None:
    """Decide about enabling logins again."""
    _check_exists(account)
    return Enabled() if account.disabled else None


def add(account: Account, token_hash: bytes, expires_ms: int, operator: bool) -> Reserved | None:
    """Decide about reserving a free name for somebody, even if a similar one exists."""
    if account.chain is not None or account.removed:
        raise Refused(Reason.NAME_TAKEN, "this name belongs, or belonged, to somebody")
    return _reserved(account, token_hash, expires_ms, operator)


def reset(account: Account, token_hash: bytes, expires_ms: int) -> Reserved | None:
    """Decide about ending an account's chain, so that a token can begin a new one."""
    _check_exists(account)
    operator = account.operator or bool(account.reservation and account.reservation.operator)
    return _reserved(account, token_hash, expires_ms, operator)


def _reserved(
    account: Account, token_hash: bytes, expires_ms: int, operator: bool
) -> Reserved | None:
    held = account.reservation
    if held is not None and held.token_hash == token_hash:
        return None
    return Reserved(token_hash, expires_ms, operator)


def remove(account: Account) -> Removed | None:
    """Decide about removing an account permanently."""
    if account.removed:
        return None
    _check_exists(account)
    return Removed()


def promote(account: Account, operator: bool) -> Promoted | None:
    """Decide whether an account is an operator."""
    if account.chain is None:
        raise Refused(Reason.NOT_REGISTERED, "nobody has registered this name")
    return None if account.operator is operator else Promoted(operator)


def ended_keys(before: Account, event: AccountEvent) -> list[bytes] | None:
    """Return the device keys whose sessions an event ends; None: all of the account's."""
    match event:
        case Linked(link=packed):
            body = links.parse(packed).body
            return [body.subject] if body.kind is Kind.REMOVE else []
        case Disabled() | Removed() | Promoted(operator=False):
            return None  # operator rights end with the sessions that have them
        case Reserved():
            return None if before.chain is not None else []
        case _:
            return []


def returned_keys(before: Account, event: AccountEvent) -> list[bytes]:
    """Return the device keys that an event makes valid again."""
    match event:
        case Enabled():
            return [] if before.chain is None else list(before.chain.devices)
        case Created(link=packed):
            return [links.parse(packed).body.subject] if before.version else []
        case _:
            return []


def _check_exists(account: Account) -> None:
    if account.version == 0 or account.removed:
        raise Refused(Reason.NOT_REGISTERED, "there is no such account")


def _check_room(account: Account) -> None:
    if account.version >= EVENTS_MAX:
        raise Refused(Reason.LIMIT, "the account has been changed too often")
