"""Invitations: single use, expiring, known to the server by their hash alone.

Each is a log of its own, ``!`` and the beginning of its hash, so it has a home; there it is bound
to a name and a key before the account exists. Binding it to the same ones again succeeds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final, NamedTuple

from relay import limits
from relay.chat.accounts.events import Bound, InvitationEvent, Invited
from relay.chat.accounts.refusal import Reason, Refused

PREFIX: Final = "!"
_LABEL: Final = b"relay/1 invitation"
_NAME_BYTES: Final = 16


class Invitation(NamedTuple):
    """What is known of an invitation."""

    version: int = 0
    invited: Invited | None = None
    bound: Bound | None = None


def hash_of(token: bytes) -> bytes:
    """Return what is stored of a token: SHA-256("relay/1 invitation" ‖ token)."""
    return hashlib.sha256(_LABEL + token).digest()


def token_text(token: bytes) -> str:
    """Return a token as a person passes it on: 52 characters of a-z and 2-7."""
    return base64.b32encode(token).decode().rstrip("=").lower()


def token_of(text: str) -> bytes:
    """Return the token of its text.

    Raises:
        ValueError: it is none.
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
    """Return the invitation that a whole log makes."""
    state = Invitation()
    for event in events:
        state = applied(state, event)
    return state


def applied(state: Invitation, event: InvitationEvent) -> Invitation:
    """Return the invitation after one event."""
    version = state.version + 1
    if isinstance(event, Invited):
        return Invitation(version, event, state.bound)
    return Invitation(version, state.invited, event)


def invite(
    state: Invitation, token_hash: bytes, expires_ms: int, operator: bool, by: str
) -> Invited | None:
    """Decide about a new invitation.

    Raises:
        Refused: another one has this log, which cannot happen by chance.
    """
    if state.invited is not None:
        if state.invited.token_hash == token_hash:
            return None
        raise Refused(Reason.BAD_REQUEST, "an invitation of this number exists")
    return Invited(token_hash, expires_ms, operator, by)


def bind(
    state: Invitation, token_hash: bytes, handle: str, key: bytes, now_ms: int
) -> Bound | None:
    """Decide about using an invitation for a name and a key.

    Raises:
        Refused: there is none, it has expired, or it was used.
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
