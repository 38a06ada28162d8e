"""A user's preferences: who may write to them, who is blocked, who sees when they were here."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from relay.chat.accounts.events import Blocked, KeepSet, Preferred, Unblocked
from relay.chat.accounts.refusal import Reason, Refused

if TYPE_CHECKING:
    from relay.chat.accounts.account import Account

BLOCKED_MAX: Final = 1000
"""People that one account blocks at a time."""
CHANGES_MAX: Final = 8192
"""Events of one account, blocking and unblocking included."""
NOT_ACCEPTED: Final = "this person takes no messages from you now"
"""In words that are the same whatever the reason is."""


class Writers(IntEnum):
    """Of whom somebody speaks."""

    ALL = 0
    """Everybody with an account."""
    KNOWN = 1
    """Those to whom the person has written."""
    NOBODY = 2
    ROOMS = 3
    """Those whom the person knows, and who share a room with lasting membership."""


def may_write(
    account: Account, sender: str, root: bytes, *, knows: bool, shares_room: bool, full: bool
) -> None:
    """Decide whether somebody may send a new message.

    Args:
        account: whose inbox.
        sender: who asks.
        root: of the sender's account.
        knows: the person has written to the sender before.
        shares_room: the two share a room in which the person is a lasting member.
        full: the inbox takes no more.

    Raises:
        Refused: NOT_REGISTERED; or NOT_ACCEPTED, for whatever reason: who asks learns only that.
    """
    if account.chain is None:
        raise Refused(Reason.NOT_REGISTERED, "nobody has this name")
    allowed = _is_among(account.writers, knows=knows, shares_room=shares_room)
    blocked = (sender, root) in account.blocked
    if not allowed or blocked or full or account.disabled:
        raise Refused(Reason.NOT_ACCEPTED, NOT_ACCEPTED)


def hears_of(account: Account, root: bytes, by: str, by_root: bytes) -> bool:
    """Tell whether a person is told at once what somebody else does with their account.

    Args:
        account: the person's.
        root: of the account that is meant: the name may have a new one by now.
        by: who has done it.
        by_root: of that account; empty: an operator, by no account of their own.
    """
    return (
        account.chain is not None and account.root == root and (by, by_root) not in account.blocked
    )


def sees(account: Account, asker: str, root: bytes, *, knows: bool, shares_room: bool) -> bool:
    """Tell whether somebody is told when the person was last here. As for ``may_write``.

    Raises:
        Refused: NOT_REGISTERED.
    """
    if account.chain is None:
        raise Refused(Reason.NOT_REGISTERED, "nobody has this name")
    allowed = _is_among(account.seen_by, knows=knows, shares_room=shares_room)
    return (allowed or asker == account.handle) and (asker, root) not in account.blocked


def _is_among(chosen: int, *, knows: bool, shares_room: bool) -> bool:
    """Tell whether somebody is one of those of whom a person has spoken."""
    return {
        Writers.ALL: True,
        Writers.KNOWN: knows,
        Writers.NOBODY: False,
        Writers.ROOMS: knows or shares_room,
    }[Writers(chosen)]


def block(account: Account, handle: str, root: bytes) -> Blocked | None:
    """Decide about taking no more messages of somebody.

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
    """Decide about taking messages of somebody again."""
    if all(blocked != handle for blocked, _ in account.blocked):
        return None
    return Unblocked(handle)


def prefer(account: Account, writers: int, seen_by: int) -> Preferred | None:
    """Decide who may write, and who sees when the person was last here.

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
