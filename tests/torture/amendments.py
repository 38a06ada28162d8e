"""The part of the checker for edits, redactions, reactions, retention and conversations.

Pure: finds violated guarantees in the logs at the end, acknowledgements, and what readers got.

- acknowledged entries are in the log, once, unchanged, unless they were erased or removed;
- an edit is of its sender's own message, and no entry is about a message erased before it;
- the target of a redaction is erased, with its edits, and not sent in answer to later requests;
- a reader gets every entry in order, except for gaps of what retention has removed, and a room
  keeps as many as configured;
- both inboxes have a conversation in the same order, about the same messages, erased alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from relay.chat.entries import GapReason, Kind
from relay.wire.envelopes import EntryMessage


class Finding(NamedTuple):
    """One violation."""

    fault: str
    """"lost", "doubled", "not-own", "about-erased", "not-erased", "served", "skipped", "gap",
    "removed", "copy"."""
    who: str
    seq: int


class Said(NamedTuple):
    """What the server has acknowledged."""

    who: str
    kind: int
    seq: int
    about_seq: int
    body: bytes


class Got(NamedTuple):
    """An entry that a reader got."""

    seq: int
    prev: int
    body: bytes
    """The body of a message or an edit, else empty."""


class Told(NamedTuple):
    """A gap that a reader got."""

    after: int
    to: int
    reason: int


def check_log(log: Sequence[EntryMessage], floor: int, sent: Sequence[Said]) -> Iterator[Finding]:
    """Check a log, from its floor on, against what was acknowledged, and for consistency."""
    by_seq = {entry.seq: entry for entry in log}
    for one in sent:
        entry = by_seq.get(one.seq)
        if one.seq <= floor:
            continue
        wanted = one.who, one.kind, one.about_seq, one.body
        if (
            entry is None
            or entry.sender != one.who
            or (
                entry.kind != Kind.ERASED
                and wanted
                != (
                    entry.sender,
                    entry.kind,
                    entry.about_seq,
                    entry.body,
                )
            )
        ):
            yield Finding("lost", one.who, one.seq)
    bodies = Counter(e.body for e in log if e.kind in (Kind.MESSAGE, Kind.EDIT, Kind.REDACTION))
    for entry in log:
        if bodies[entry.body] > 1:
            yield Finding("doubled", entry.sender, entry.seq)
        yield from _check_about(entry, by_seq.get(entry.about_seq))


def _check_about(entry: EntryMessage, target: EntryMessage | None) -> Iterator[Finding]:
    if target is None:
        return  # it was removed
    if entry.kind == Kind.REDACTION and target.kind != Kind.ERASED:
        yield Finding("not-erased", target.sender, target.seq)
    if entry.kind in (Kind.EDIT, Kind.REACTION) and target.kind == Kind.ERASED:
        erased_at = target.about_seq
        if erased_at < entry.seq:
            yield Finding("about-erased", entry.sender, entry.seq)
        elif entry.kind == Kind.EDIT:
            yield Finding("not-erased", entry.sender, entry.seq)
    if entry.kind == Kind.EDIT and target.sender != entry.sender:
        yield Finding("not-own", entry.sender, entry.seq)


def check_reader(
    who: str, history: Sequence[Got | Told], floor: int, kept: int = 0
) -> Iterator[Finding]:
    """Check what a reader got, from the beginning of a log to its end: order, floor, retention."""
    gaps = [one.to for one in history if isinstance(one, Told)]
    # With more of them, entries were removed during the read.
    if len(gaps) == 1 and len(history) - 1 < kept:
        yield Finding("removed", who, gaps[0])
    at = 0
    for one in history:
        if isinstance(one, Told):
            if one.reason != GapReason.RETENTION or one.to > floor or one.after != at:
                yield Finding("gap", who, one.to)
            at = one.to
        else:
            if one.prev != at or one.seq != at + 1:  # our sequence numbers have no gaps
                yield Finding("skipped", who, one.seq)
            at = one.seq


def check_served(who: str, got: Sequence[Got], erased_before: set[bytes]) -> Iterator[Finding]:
    """Check that a reader was not served what was erased before its request."""
    for one in got:
        if one.body in erased_before:
            yield Finding("served", who, one.seq)


def check_conversation(
    one: str, ones: Sequence[EntryMessage], other: str, others: Sequence[EntryMessage]
) -> Iterator[Finding]:
    """Compare both inboxes of a conversation."""
    places: dict[int, int] = {0: 0}
    pairs: list[tuple[EntryMessage, EntryMessage]] = []
    for sender, to in ((one, other), (other, one)):
        mine = [e for e in ones if (e.sender, e.to) == (sender, to)]
        theirs = [e for e in others if (e.sender, e.to) == (sender, to)]
        if len(mine) != len(theirs):
            yield Finding("copy", sender, abs(len(mine) - len(theirs)))
            return
        pairs += zip(mine, theirs, strict=True)
    places |= {a.seq: b.seq for a, b in pairs}
    for a, b in pairs:
        if (a.kind, a.body, places.get(a.about_seq)) != (b.kind, b.body, b.about_seq):
            yield Finding("copy", a.sender, a.seq)
