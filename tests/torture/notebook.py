"""What a reader records, and what it knows when it is restarted."""

from __future__ import annotations

from typing import TypedDict

from relay.chat.entries import Cursor
from relay.client.events import (
    Behind,
    Event,
    Gap,
    Joined,
    Live,
    LogEntry,
    RoomChanged,
    StateChanged,
    Unfollowed,
)
from relay.client.refusals import Refused
from tests.torture import programs
from tests.torture.programs import Role
from tests.torture.records import (
    Began,
    Hole,
    Lost,
    Placed,
    Recorder,
    Resumed,
    Seen,
    read_records,
)


class Start(TypedDict, total=False):
    """Arguments of ``join``."""

    since: int
    cursor: Cursor


def cursors_of(role: Role) -> dict[str, Cursor]:
    """Return a reader's cursors, by its history."""
    cursors: dict[str, Cursor] = {}
    for record in read_records(role.history):
        match record:
            case Began(log=log, epoch=epoch, seq=seq) | Seen(log=log, epoch=epoch, seq=seq):
                cursors[log] = Cursor(bytes.fromhex(epoch), seq)
            case Hole(log=log, end=(epoch, seq)):
                cursors[log] = Cursor(bytes.fromhex(epoch), seq)
            case _:
                pass
    return cursors


class Notebook:
    """A reader's history, for one connection of a client."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._late = "late" in role.option
        self._recorder = recorder
        self._cursors = cursors_of(role)

    def start(self, log: str) -> Start:
        """Return where to join a log; a resume is recorded."""
        cursor = self._cursors.get(log)
        if cursor is not None:
            self._recorder.write(Resumed(log, cursor.epoch.hex(), cursor.seq))
            return {"cursor": cursor}
        return {} if self._late else {"since": 0}

    def joined(self, joined: Joined) -> None:
        """Record where a log was joined for the first time."""
        if joined.room not in self._cursors:
            start = joined.start
            self._recorder.write(Began(joined.room, start.epoch.hex(), start.seq))

    def refused(self, log: str, error: Refused) -> None:
        """Record that a log was not joined."""
        self._recorder.write(Lost(f"join of {log}: {error}"))

    def note(self, event: Event) -> None:
        """Record an event."""
        write = self._recorder.write
        match event:
            case LogEntry(room=log, seq=seq, prev=prev, sender=sender):
                number = programs.number_of(event)
                digest = programs.digest_of(event.body) if number else 0
                write(Seen(log, event.epoch.hex(), seq, prev, sender, number, digest))
            case RoomChanged(room=log, seq=seq, prev=prev, sender=sender):
                write(Seen(log, event.epoch.hex(), seq, prev, sender, 0, 0))
            case Gap(room=log, start=start, end=end, reason=reason):
                places = (start.epoch.hex(), start.seq), (end.epoch.hex(), end.seq)
                write(Hole(log, *places, int(reason)))
            case Live(room=log, seq=seq):
                write(Placed(log, True, seq))
            case Behind(room=log, seq=seq):
                write(Placed(log, False, seq))
            case StateChanged():
                programs.note_state(self._recorder, event)
            case Unfollowed(room=log, detail=detail):
                write(Lost(f"{log}: {detail}"))
            case _:
                pass
