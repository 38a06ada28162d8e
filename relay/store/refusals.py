"""Why a submission is not stored, whoever sends it. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat.relations import differs
from relay.store.log import Denied, IdConflict, LogRefused, LogUnreadable, Repeated
from relay.store.state import DAMAGED, SEQ_MASK
from relay.store.stub import differs_from

if TYPE_CHECKING:
    from relay.chat.entries import Submission
    from relay.store.rules import Rules
    from relay.store.state import LogEnd, Original

TOO_MANY_EDITS: Final = LogRefused(
    f"a message is edited {limits.EDITS_MAX} times at most", limits.EDITS_MAX
)
LOG_DAMAGED: Final = LogUnreadable("what a message was checked against cannot be read")
FULL: Final = LogRefused(f"the log holds {SEQ_MASK} messages and takes no more")


def unpackable(error: Exception) -> LogRefused:
    """Return the refusal of what cannot be packed."""
    return LogRefused(f"it cannot be packed ({type(error).__name__})")


def as_repeat(found: Original, submission: Submission) -> Repeated | IdConflict | LogUnreadable:
    """Return the outcome of a submission whose counter was used before, for this entry."""
    if found is DAMAGED:
        return LogUnreadable("an earlier entry, which a sender has sent again, cannot be read")
    if found.seq and (
        differs_from(found.stub, submission.content)
        if found.stub
        else differs(found.entry, submission)
    ):
        return IdConflict(found.seq)
    return Repeated(found.epoch, found.seq)


def for_another_room(rules: Rules, log: LogEnd, identity: bytes) -> Denied | LogUnreadable | None:
    """Return why a message for one room is not stored in a log: another room has its name now.

    None: it is that room. Rooms that had one name one after another are in one log. Each began with
    an entry that also began an epoch. Its later epochs began because stored state was lost: it is
    the same room.

    Args:
        rules: of the partition.
        log: with ``begun``, if that is needed.
        identity: of a submission; not empty.
    """
    if identity == log.begun:
        return None
    if log.id:
        if identity == log.epoch:
            return None  # nothing was lost since that room began
        if log.begun is None:
            return LOG_DAMAGED  # it could not be read
    return rules.gone()
