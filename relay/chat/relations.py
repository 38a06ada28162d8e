"""Entries about other entries: replies, edits, redactions and reactions, and who may write them."""

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
"""For each kind, the possible targets. A reply may arrive after its target was erased."""
OWN: Final = frozenset({Kind.EDIT, Kind.REDACTION})
"""Allowed only for one's own entries; but the rules of a room may allow redacting others."""


class Refusal(IntEnum):
    """Why an entry is refused; the numbers are those of the protocol's ErrorCode."""

    NONE = 0
    NOT_ALLOWED = 21
    NO_SUCH_ENTRY = 31


FORMER: Final = int(Refusal.NOT_ALLOWED)
"""The verdict if the target was written by an earlier account of the sender's name."""


def refusal(target: Entry | None, submission: Submission, extra: Extra, *, ruled: bool) -> Refusal:
    """Return why an entry may not be about another one.

    Args:
        target: the target, as it is in the log now; None: it does not exist (any more).
        submission: offered to the log.
        extra: of the submission.
        ruled: True if redactions of others' entries are checked elsewhere (``chat.rooms.rights``).
    """
    kind = submission.kind
    if target is None or target.kind not in WHAT.get(kind, frozenset()):
        return Refusal.NO_SUCH_ENTRY
    if extra.to and extra.to not in (target.to, target.sender):
        return Refusal.NO_SUCH_ENTRY  # in another conversation: reveal nothing about it
    if kind not in OWN or is_own(target, submission):
        return Refusal.NONE
    if kind == Kind.REDACTION and ruled and not extra.to:
        return Refusal.NONE
    return Refusal.NOT_ALLOWED


def is_own(target: Entry, submission: Submission) -> bool:
    """Return True if the submitter has written an entry, with any device."""
    if target.sender != submission.sender or is_former(submission):
        return False
    if submission.key_id:
        # otherwise it is from before there were accounts, or from a guest
        return bool(target.key_id)
    # a guest's name may have belonged to somebody else before
    return target.producer == submission.producer


def is_former(submission: Submission) -> bool:
    """Return True if the target was found to belong to an earlier account of that name."""
    return submission.extra is not None and submission.extra.verdict == FORMER


def is_offered(kind: int) -> bool:
    """Return True if clients may send entries of a kind."""
    return kind in WHAT or kind == Kind.MARK


def is_reaction(body: bytes) -> bool:
    """Return True if a body is valid for a reaction: short text without control characters."""
    if not 0 < len(body) <= REACTION_BYTES_MAX:
        return False
    try:
        return not any(unicodedata.category(char) == "Cc" for char in body.decode())
    except UnicodeDecodeError:
        return False


def differs(stored: Entry | None, again: Submission) -> bool:
    """Return True if a submission under a used id has different content.

    Erased content counts as equal: its body is gone, and a resend must not restore it.
    """
    if stored is None or stored.kind == Kind.ERASED:
        return False
    return stored.content != again.content
