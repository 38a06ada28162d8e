"""Entries about other entries: replies, edits, redactions and reactions. Who may write which."""

from __future__ import annotations

import unicodedata
from enum import IntEnum
from typing import Final

from relay.chat.entries import Entry, Extra, Kind, Submission

REACTION_BYTES_MAX: Final = 32
"""An emoji with its modifiers, or a short word."""
WHAT: Final[dict[int, frozenset[int]]] = {
    Kind.MESSAGE: frozenset({Kind.MESSAGE, Kind.ERASED}),
    Kind.EDIT: frozenset({Kind.MESSAGE}),
    Kind.REACTION: frozenset({Kind.MESSAGE}),
    Kind.REDACTION: frozenset({Kind.MESSAGE, Kind.EDIT, Kind.REACTION}),
}
"""Of each kind, what it may be about. A reply may come after what it replies to was erased."""
OWN: Final = frozenset({Kind.EDIT, Kind.REDACTION})
"""Of one's own entries alone; but the rules of a room may let somebody redact those of others."""


class Refusal(IntEnum):
    """Why an entry is not taken; the numbers are those of the protocol's ErrorCode."""

    NONE = 0
    NOT_ALLOWED = 21
    NO_SUCH_ENTRY = 31


FORMER: Final = int(Refusal.NOT_ALLOWED)
"""The verdict about what an earlier account of the sender's name has written."""


def refusal(target: Entry | None, submission: Submission, extra: Extra, *, ruled: bool) -> Refusal:
    """Return why an entry may not be about another one.

    Args:
        target: what it is about, as it is in the log now; None: there is no such entry (any more).
        submission: offered to the log.
        extra: of the submission.
        ruled: who redacts what others wrote is judged elsewhere (``chat.rooms.rights``).
    """
    kind = submission.kind
    if target is None or target.kind not in WHAT.get(kind, frozenset()):
        return Refusal.NO_SUCH_ENTRY
    if extra.to and extra.to not in (target.to, target.sender):
        return Refusal.NO_SUCH_ENTRY  # of another conversation: nothing of it is told
    if kind not in OWN or is_own(target, submission):
        return Refusal.NONE
    if kind == Kind.REDACTION and ruled and not extra.to:
        return Refusal.NONE
    return Refusal.NOT_ALLOWED


def is_own(target: Entry, submission: Submission) -> bool:
    """Tell whether who offers something has written an entry, with whichever device."""
    if target.sender != submission.sender or is_former(submission):
        return False
    if submission.key_id:
        return bool(target.key_id)  # else it is from before there were accounts, or a guest's
    return target.producer == submission.producer  # a guest's name may have been another's before


def is_former(submission: Submission) -> bool:
    """Tell whether what something is about was found to be an earlier account's of that name."""
    return submission.extra is not None and submission.extra.verdict == FORMER


def is_offered(kind: int) -> bool:
    """Tell whether clients send entries of a kind: none that the server notes, none unknown."""
    return kind in WHAT or kind == Kind.MARK


def is_reaction(body: bytes) -> bool:
    """Tell whether a body is one of a reaction: short text without control characters."""
    if not 0 < len(body) <= REACTION_BYTES_MAX:
        return False
    try:
        return not any(unicodedata.category(char) == "Cc" for char in body.decode())
    except UnicodeDecodeError:
        return False


def differs(stored: Entry | None, again: Submission) -> bool:
    """Tell whether a submission under an id that was used has another content.

    What was erased counts as equal: its body is gone, and a resend of it must not come back.
    """
    if stored is None or stored.kind == Kind.ERASED:
        return False
    return stored.content != again.content
