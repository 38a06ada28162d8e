"""A user's preferences: who may write to them, who is blocked, who sees when they were here."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from relay.chat.accounts.events import Blocked, KeepSet, Preferred, Unblocked
from relay.chat.accounts.refusal import Reason, Refused

if TYPE_CHECKING:
    from relay.chat.accounts.account import Account

BLOCKED_MAX: Final = 1000
"""Accounts that one account may block."""
CHANGES_MAX: Final = 8192
"""Events of one account, including blocking and unblocking."""
NOT_ACCEPTED: Final = "this person does not accept messages from you now"
"""The same words whatever the reason is."""


class Writers(IntEnum):
    """A group of accounts."""

    ALL = 0
    """Everybody with an account."""
    KNOWN = 1
    """Those to whom the user has written."""
    NOBODY = 2
    ROOMS = 3
    """KNOWN, and permanent members of a room in which the user is one, too."""


def may_write(
    account: Account, sender: str, root: bytes, *, knows: bool, shares_room: bool, full: bool
) -> None:
    """Decide whether a new message may be sent.

    Args:
        account: the owner of the inbox.
        sender: the requester.
        root: of the sender's account.
        knows: True if the owner has written to the sender before.
        shares_room: True if they share a room in which the owner is a permanent member.
        full: True if the inbox is full.

    Raises:
        Refused: NOT_REGISTERED; or NOT_ACCEPTED, without revealing the reason.
    """
    if account.chain is None:
        raise Refused(Reason.NOT_REGISTERED, "there is no such user")
    allowed = _is_among(account.writers, knows=knows, shares_room=shares_room)
    blocked = (sender, root) in account.blocked
    if not allowed or blocked or full or account.disabled:
        raise Refused(Reason.NOT_ACCEPTED, NOT_ACCEPTED)


def hears_of(account: Account, root: bytes, by: str, by_root: bytes) -> bool:
    """Return True if a user is told at once what somebody else does with their account.

    Args:
        account: the user's.
        root: of the account that is meant: the name may have a new one by now.
        by: who has done it.
        by_root: of that account; empty: an operator, without an account.
    """
    return (
        account.chain is not None and account.root == root and (by, by_root) not in account.blocked
    )


def sees(account: Account, asker: str, root: bytes, *, knows: bool, shares_room: bool) -> bool:
    """Return True if somebody may see when the user was last connected. Args as ``may_write``.

    Raises:
        Refused: NOT_REGISTERED.
    """
    if account.chain is None:
        raise Refused(Reason.NOT_REGISTERED, "there is no such user")
    allowed = _is_among(account.seen_by, knows=knows, shares_room=shares_room)
    return (allowed or asker == account.handle) and (asker, root) not in account.blocked


def _is_among(chosen: int, *, knows: bool, shares_room: bool) -> bool:
    """Return True if somebody belongs to the chosen group."""
    return {
        Writers.ALL: True,
        Writers.KNOWN: knows,
        Writers.NOBODY: False,
        Writers.ROOMS: knows or shares_room,
    }[Writers(chosen)]


def block(account: Account, handle: str, root: bytes) -> Blocked | None:
    """Decide about refusing messages from an account.

    Raises:
        Refused: with the reason.
    """
    if (handle, root) in account.blocked:
        return None
    if handle == account.handle:
        raise Refused(Reason.BAD_REQUEST, "you cannot block yourself")
    if len(account.blocked) >= BLOCKED_MAX or account.version >= CHANGES_MAX:
        raise Refused(Reason.LIMIT, f"at most {BLOCKED_MAX} people are blocked")
    return Blocked(handle, root)


def unblock(account: Account, handle: str) -> Unblocked | None:
    """Decide about accepting messages from an account again."""
    if all(blocked != handle for blocked, _ in account.blocked):
        return None
    return Unblocked(handle)


def prefer(account: Account, writers: int, seen_by: int) -> Preferred | None:
    """Decide who may write, and who may see when the user was last connected.

    Raises:
        Refused: with the reason.
    """
    if {writers, seen_by} - set(Writers):
        raise Refused(Reason.BAD_REQUEST, "no such choice")
    if (writers, seen_by) == (account.writers, account.seen_by):
        return None
    if account.version >= CHANGES_MAX:
        raise Refused(Reason.LIMIT, "the account has been changed too often")
    return Preferred(writers, seen_by)


def set_keep(account: Account, keep: tuple[int, int, int]) -> KeepSet | None:
    """Decide how long the inbox keeps messages: seconds, messages, bytes; 0: as in its settings.

    Raises:
        Refused: with the reason.
    """
    if keep == account.keep:
        return None
    if account.version >= CHANGES_MAX:
        raise Refused(Reason.LIMIT, "the account has been changed too often")
    return KeepSet(*keep)
