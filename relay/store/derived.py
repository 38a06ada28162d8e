"""The rows beside ``entry`` that follow from an entry: these tables can be rebuilt from entries.

``decide`` derives the same from the submission. A copy of a direct message has no links to earlier
entries of its producer; its row stores the position of the original instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.chat.entries import Kind
from relay.chat.names import INBOX_PREFIX
from relay.store.log import Began, Stored
from relay.store.state import Changes, More

if TYPE_CHECKING:
    from relay.chat.entries import Entry, Submission
    from relay.store.log import Outcome


def copy_links(epoch: bytes, origin: int) -> tuple[int, int]:
    """Return (chain, jump) of a copy: the position in the sender's inbox. ``chain`` is negative."""
    return -origin, int.from_bytes(epoch, "big", signed=True)


def derive(more: More, log_id: int, entry: Entry, chain: int, jump: int) -> None:
    """Add to the tables what follows from one entry.

    Messages sent by the owner become pending again: the recipient's log recognises those it has.
    """
    seq = entry.seq
    if entry.kind == Kind.SYSTEM:
        more.controls.append((log_id, seq))
    elif entry.kind == Kind.MARK:
        place = entry.about_epoch, entry.about_seq
        more.marks.append((log_id, entry.body.decode(), *place, 0))
    elif chain < 0:
        epoch = jump.to_bytes(limits.EPOCH_BYTES, "big", signed=True)
        more.directs.append((log_id, entry.sender, seq, epoch, -chain))
    elif entry.to:
        more.directs.append((log_id, entry.to, seq, b"", 0))
        if entry.log != INBOX_PREFIX + entry.to:
            more.pending.append((log_id, seq))
    if entry.kind == Kind.EDIT and entry.about_seq:
        more.edits.append((log_id, entry.about_seq, seq))


def note_controls(batch: list[Submission], outcomes: list[Outcome], changes: Changes) -> None:
    """Note which entries of a batch that was decided on are of kind *system*."""
    more = changes.more = changes.more or More()
    for submission, outcome in zip(batch, outcomes, strict=False):
        if type(outcome) is Began:  # the message is none, and what was stored before it is one
            more.controls.append((changes.logs[submission.log].id, outcome.first.seq))
        elif submission.kind == Kind.SYSTEM and type(outcome) is Stored:
            more.controls.append((changes.logs[submission.log].id, outcome.seq))
