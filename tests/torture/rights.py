"""Permissions in rooms, compared with the log: the part of the checker for who may do what.

Pure: from the log at the end, and from what each reader got, to the violated guarantees.

- after an entry that forbids it, no message of the user is in the log, until another one allows it;
- a reader gets an entry only if it might read as of the entry before it, or later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from relay.chat.entries import Kind
from relay.chat.rooms import events
from relay.chat.rooms import state as states
from relay.chat.rooms.rights import Actor, Right, rights
from relay.chat.rooms.state import Room
from relay.wire.envelopes import EntryMessage

STRANGER: bytes = b"\xff" * 32
"""The root of an account that no entry names: any that is none of those."""


class Finding(NamedTuple):
    """One violation."""

    fault: str
    """"wrote" or "read"; "chain": a list of devices is not one that was acknowledged, or an older
    one; "device": one that was removed could log in; "ticket": one was good twice."""
    who: str
    seq: int


class History(NamedTuple):
    """A room's states: the one at index n holds after the entry n of the log (0: before all)."""

    rooms: list[Room]
    roots: dict[str, bytes]
    """Of the accounts that entries name."""

    def may(self, who: str, right: Right, index: int) -> bool:
        """Return whether a user had a permission after so many entries."""
        actor = Actor(who, self.roots.get(who, STRANGER))
        return right in rights(self.rooms[index], actor)


def history_of(log: list[EntryMessage]) -> History:
    """Return the states of a log."""
    room = Room()
    rooms = [room]
    roots: dict[str, bytes] = {}
    for entry in log:
        if entry.kind == Kind.SYSTEM and entry.content_type == events.CONTENT_TYPE:
            event = events.unpack(entry.body)
            room = states.applied(room, event, entry.sender, entry.seq)
            roots |= {name: one.root for name, one in room.people.items() if one.root}
        rooms.append(room)
    return History(rooms, roots)


def check(log: list[EntryMessage], seen: Mapping[str, Iterable[int]]) -> Iterator[Finding]:
    """Yield every violation.

    Args:
        log: all of it, from its first entry on, without a gap.
        seen: by name of each reader, the sequence numbers that it got.
    """
    history = history_of(log)
    for index, entry in enumerate(log):
        if entry.kind == Kind.MESSAGE and not history.may(entry.sender, Right.WRITE, index):
            yield Finding("wrote", entry.sender, entry.seq)
    for reader, seqs in seen.items():
        lasts = [n for n in range(len(log) + 1) if history.may(reader, Right.READ, n)]
        last = max(lasts, default=-1)
        for seq in seqs:
            if seq - 1 > last:
                yield Finding("read", reader, seq)
