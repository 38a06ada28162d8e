"""Invitations: single use, with expiry, known to the server only by their hash.

Each has a log of its own, named ``!`` and the beginning of its hash, and so a home, which binds it
to a name and a key before the account exists. Binding it to the same ones again succeeds. If the
name then belongs to somebody else, no account can come of that, and the invitation is released.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final, NamedTuple

from relay import limits
from relay.chat.accounts.events import Bound, InvitationEvent, Invited, Released
from relay.chat.accounts.refusal import Reason, Refused
from relay.chat.accounts.requests import Invite

PREFIX: Final = "!"
_LABEL: Final = b"relay/1 invitation"
_NAME_BYTES: Final = 16


class Invitation(NamedTuple):
    """The state of an invitation."""

    version: int = 0
    invited: Invited | None = None
    bound: Bound | None = None


def hash_of(token: bytes) -> bytes:
    """Return the stored form of a token: SHA-256("relay/1 invitation" ‖ token)."""
    return hashlib.sha256(_LABEL + token).digest()


def token_text(token: bytes) -> str:
    """Return a token's text for people: 52 characters of a-z and 2-7."""
    return base64.b32encode(token).decode().rstrip("=").lower()


def token_of(text: str) -> bytes:
    """Return the token for its text.

    Raises:
        ValueError: it is invalid.
    """
    padded = text.strip().upper() + "=" * 4
    token = base64.b32decode(padded)
    if len(token) != limits.TOKEN_BYTES:
        raise ValueError("an invitation has 52 characters")
    return token


def log_of(token_hash: bytes) -> str:
    """Return the name of an invitation's log."""
    return PREFIX + token_hash[:_NAME_BYTES].hex()


def folded(events: Iterable[InvitationEvent]) -> Invitation:
    """Return the invitation described by a whole log."""
    state = Invitation()
    for event in events:
        state = applied(state, event)
    return state


def applied(state: Invitation, event: InvitationEvent) -> Invitation:
    """Return the invitation after one event."""
    version = state.version + 1
    if isinstance(event, Invited):
        return Invitation(version, event, state.bound)
    return Invitation(version, state.invited, event if isinstance(event, Bound) else None)


def is_end(event: object, now_ms: int) -> bool:
    """Return True if an invitation cannot be used after this event."""
    taken_back = isinstance(event, Invited) and 0 < event.expires_ms <= now_ms
    return taken_back or isinstance(event, Bound)


def is_open(state: Invitation, now_ms: int) -> bool:
    """Return True if it can still be used."""
    invited = state.invited
    if invited is None or state.bound is not None:
        return False
    return not invited.expires_ms or now_ms < invited.expires_ms


def invite(
    state: Invitation, request: Invite, by: str, now_ms: int, *, closed: bool
) -> Invited | None:
    """Decide about a new invitation; or, with an expiry in the past, about revoking one.

    Args:
        state: of the invitation.
        request: the request.
        by: the requester.
        now_ms: wall clock.
        closed: True if only invitations for operators may be created.

    Raises:
        Refused: with the reason; another one has this log, which cannot happen by chance.
    """
    held, (token_hash, expires_ms, operator) = state.invited, request
    if held is not None and held.token_hash != token_hash:
        raise Refused(Reason.BAD_REQUEST, "an invitation of this number exists")
    if not 0 < expires_ms <= now_ms:
        if held is not None:
            return None
        if closed and not operator:
            raise Refused(
                Reason.REGISTRATION_CLOSED,
                "registration is closed here: 'relay user add NAME' reserves a name, and prints the"
                " invitation to it",
            )
        return Invited(token_hash, expires_ms, operator, by)
    if held is None:
        raise Refused(
            Reason.INVITATION_NEEDED,
            "there is no such invitation; that for a reserved name ends when 'relay user add' makes"
            " another",
        )
    if state.bound is not None:
        used = f"this invitation has been used, for the name {state.bound.handle!r}"
        raise Refused(Reason.INVITATION_NEEDED, used)
    if 0 < held.expires_ms <= now_ms:
        return None
    return Invited(token_hash, expires_ms, held.operator, by)


def bind(
    state: Invitation, token_hash: bytes, handle: str, key: bytes, now_ms: int
) -> Bound | None:
    """Decide about using an invitation for a name and a key.

    Raises:
        Refused: it does not exist, has expired, or was used.
    """
    invited = state.invited
    if invited is None or not hmac.compare_digest(invited.token_hash, token_hash):
        raise Refused(Reason.INVITATION_NEEDED, "this invitation is not valid")
    if state.bound is not None:
        if state.bound == Bound(handle, key):
            return None
        raise Refused(Reason.INVITATION_NEEDED, "this invitation has been used")
    if invited.expires_ms and now_ms >= invited.expires_ms:
        raise Refused(Reason.INVITATION_NEEDED, "this invitation has expired")
    return Bound(handle, key)


def release(state: Invitation, token_hash: bytes, handle: str, key: bytes) -> Released | None:
    """Decide about releasing an invitation: no account can be created any more as it was bound.

    Raises:
        Refused: it does not exist.
    """
    invited = state.invited
    if invited is None or not hmac.compare_digest(invited.token_hash, token_hash):
        raise Refused(Reason.INVITATION_NEEDED, "this invitation is not valid")
    return Released() if state.bound == Bound(handle, key) else None
