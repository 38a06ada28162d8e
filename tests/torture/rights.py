"""Permissions in rooms, compared with the log: the part of the checker for who may do what.

Pure: from the log at the end, and from what each reader got, to the violated guarantees.

- whatever is in the log, its sender might write, erase or change it as of the entry before it;
- a reader gets an entry only if it might read as of the entry before it, or later; and if it was
  live, as of the entry before it;
- no answer contains entries of a room together with those of an earlier room of its name;
- nothing is stored in another room of the name than its sender had joined (``meaning``), and nobody
  is shown entries of another one than they have joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from relay.chat.entries import Kind
from relay.chat.rooms import events
from relay.chat.rooms import state as states
from relay.chat.rooms.events import Role
from relay.chat.rooms.rights import Actor, Right, rank, rank_of, redaction_refusal, rights, role_of
from relay.chat.rooms.state import Room
from relay.wire.envelopes import EntryMessage

STRANGER: bytes = b"\xff" * 32
"""The root of an account that no entry names: any that is none of those."""
_MEANING: Final = re.compile(rb"for the room at ([0-9]+)")
NEEDS: Final[dict[type[events.Event], Right]] = {
    events.TopicSet: Right.TOPIC,
    events.TitleSet: Right.TOPIC,
    events.Invited: Right.INVITE,
    events.Kicked: Right.MODERATE,
    events.Banned: Right.MODERATE,
    events.Muted: Right.MODERATE,
    events.Freed: Right.MODERATE,
    events.Entered: Right.ENTER,
    events.RoleSet: Right.MANAGE,
    events.KindSet: Right.MANAGE,
    events.Closed: Right.MANAGE,
    events.KeepSet: Right.MANAGE,
    events.Deleted: Right.MANAGE,
}


class Finding(NamedTuple):
    """One violation."""

    fault: str
    """"wrote", "erased", "changed" or "read"; "former": entries of an earlier room of the name
    were shown; "strayed": something is stored in, or was shown from, another room of the name than
    the one that was joined; "chain": a list of devices is not one that was acknowledged, or an
    older one; "device": one that was removed could log in; "ticket": one was good twice."""
    who: str
    seq: int


class Seen(NamedTuple):
    """What a reader got."""

    seqs: Sequence[int]
    live: Sequence[int] = ()
    """Those of them that were delivered live."""
    answers: Sequence[Sequence[int]] = ()
    """Those that came together: on one page, or after one join."""
    stays: Sequence[tuple[int, Sequence[int]]] = ()
    """For each join by the program: where the log ended then, and those that came until it was no
    longer in the room, also after reconnections."""


def meaning(head: int) -> str:
    """Return what a text contains so that the checker knows for which room it was written.

    Args:
        head: where the log ended when the sender joined the room.
    """
    return f"for the room at {head}"


class History(NamedTuple):
    """A room's states: the one at index n holds after the entry n of the log (0: before all)."""

    rooms: list[Room]
    roots: dict[str, bytes]
    """Of the accounts that entries name."""

    def actor(self, who: str) -> Actor:
        """Return a user."""
        return Actor(who, self.roots.get(who, STRANGER))

    def may(self, who: str, right: Right, index: int) -> bool:
        """Return whether a user had a permission after so many entries."""
        return right in rights(self.rooms[index], self.actor(who))


def with_holes(entries: Iterable[EntryMessage]) -> list[EntryMessage | None]:
    """Return the log with these entries, and None where one was removed: the first is the number 1.

    Of a deleted room all is removed, from the beginning of the log on.
    """
    log: list[EntryMessage | None] = []
    for entry in entries:
        log += [None] * (entry.seq - 1 - len(log))
        log.append(entry)
    return log


def history_of(log: Sequence[EntryMessage | None]) -> History:
    """Return the states of a log."""
    room = Room()
    rooms = [room]
    roots: dict[str, bytes] = {}
    for entry in log:
        if entry is not None and (event := _event(entry)) is not None:
            room = states.applied(room, event, entry.sender, entry.seq)
            roots |= {name: one.root for name, one in room.people.items() if one.root}
        rooms.append(room)
    return History(rooms, roots)


def _event(entry: EntryMessage) -> events.Event | None:
    if entry.kind != Kind.SYSTEM or entry.content_type != events.CONTENT_TYPE:
        return None
    return events.unpack(entry.body)


def check(
    log: Sequence[EntryMessage | None], seen: Mapping[str, Seen | Iterable[int]]
) -> Iterator[Finding]:
    """Yield every violation.

    Args:
        log: all of it, from its first entry on; None: this one was removed.
        seen: what each reader got, by name.
    """
    history = history_of(log)
    begun = _begun(log)
    for index, entry in enumerate(log):
        if entry is None or index < begun:
            continue
        fault = _fault(history, log, index, entry) if index > begun else ""
        if fault:
            yield Finding(fault, entry.sender, entry.seq)
        meant = _MEANING.search(entry.body)
        if meant is not None and int(meant[1]) < history.rooms[index].created:
            yield Finding("strayed", entry.sender, entry.seq)
    for reader, what in seen.items():
        yield from _check_reader(history, reader, what if isinstance(what, Seen) else Seen([*what]))


def _begun(log: Sequence[EntryMessage | None]) -> int:
    """Return where the first room begins of which nothing was removed; -1: the first of all."""
    if not log or log[0] is not None:
        return -1
    creations = (
        index
        for index, entry in enumerate(log)
        if entry is not None and isinstance(_event(entry), events.Created)
    )
    return next(creations, len(log))


def _fault(
    history: History, log: Sequence[EntryMessage | None], index: int, entry: EntryMessage
) -> str:
    """Return what its sender might not do; empty: nothing."""
    event = _event(entry)
    if event is not None:
        return "" if _may_change(history, index, entry.sender, event) else "changed"
    if entry.kind == Kind.REDACTION:
        return "" if _may_erase(history, log, index, entry) else "erased"
    # What was erased since had its sender's right to write as well.
    return "" if history.may(entry.sender, Right.WRITE, index) else "wrote"


def _may_change(history: History, index: int, who: str, event: events.Event) -> bool:
    room, actor = history.rooms[index], history.actor(who)
    if isinstance(event, events.Created):
        return room.deleted or index == 0
    if room.deleted:
        return False
    if isinstance(event, events.Left):
        return role_of(room, actor) is not Role.NONE
    handle = getattr(event, "handle", "")
    if who == events.RELAY:
        return isinstance(event, events.Freed) and room.people[handle].until_ms > 0
    if NEEDS[type(event)] not in rights(room, actor):
        return False
    person = room.people.get(handle)
    below = person is None or rank(room, actor) > rank_of(person.role)
    return below or (handle == who and isinstance(event, events.RoleSet))


def _may_erase(
    history: History, log: Sequence[EntryMessage | None], index: int, entry: EntryMessage
) -> bool:
    target = log[entry.about_seq - 1]
    if target is None:
        return True  # it was removed since
    author = target.sender
    room, actor = history.rooms[index], history.actor(entry.sender)
    if entry.about_seq <= room.floor:
        return False
    return redaction_refusal(room, actor, author, own=author == entry.sender) is None


def _check_reader(history: History, reader: str, seen: Seen) -> Iterator[Finding]:
    allowed = [n for n in range(len(history.rooms)) if history.may(reader, Right.READ, n)]
    last = max(allowed, default=-1)
    for seq in seen.seqs:
        if seq - 1 > last:
            yield Finding("read", reader, seq)
    for seq in seen.live:
        if not history.may(reader, Right.READ, seq - 1):
            yield Finding("read", reader, seq)
    for head, seqs in seen.stays:
        for seq in seqs:
            if seq < len(history.rooms) and max(head, 1) < history.rooms[seq].created:
                yield Finding("strayed", reader, seq)
                break  # what follows is in that room as well
    for answer in seen.answers:
        newest = max(answer, default=0)
        floor = history.rooms[newest - 1].floor if newest else 0
        for seq in answer:
            if seq <= floor:
                yield Finding("former", reader, seq)
