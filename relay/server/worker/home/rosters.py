"""Who follows a log, over all workers, and the changes that members are told.

Invariant "Presence is derived": a worker's part of a roster goes with its link. A join storm is a
few envelopes, not one per join and member: the changes of one turn are told together, and in a room
above ``ROSTER_NAMES_MAX`` names only the count, at most once in ``COUNT_INTERVAL_S``.

Members are told at once who came, but who left only after ``GRACE_S``: the clients of a worker that
died, or of a connection that broke, are mostly back by then, and nothing is told of them at all.

Nor is anybody told of everybody again when a log has another home. What members believe is not
known here then: they are told, once those who have lost their worker had the time to come back,
that the roster is another one, with its total and no names. Whoever wants the names asks (WHO).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from relay import limits
from relay.bus.link import Port
from relay.bus.messages import Event, Members, Presence, Who
from relay.chat.partition import partition_of
from relay.server.worker.grouped import Grouped
from relay.wire.envelopes import Roster as RosterEnvelope
from relay.wire.packing import pack

COUNT_INTERVAL_S: Final = 1.0
GRACE_S: Final = 1.0
"""How long a name that is gone may come back before its members are told that it left."""
DEPARTURES_MAX: Final = 50_000
"""Departures in their grace, in all logs of this home. With more of them the oldest are told."""


class Present(NamedTuple):
    """Somebody on one worker."""

    port: Port
    display: str
    connections: int


def _port_of(present: Present) -> Port:
    return present.port


class Roster:
    """The members of one log, and what changed since they were last told."""

    __slots__ = (
        "_listed", "anew", "asked_at", "changed", "incarnation", "leaving", "names", "settled_at",
        "told_at", "version",
    )  # fmt: skip

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.version = 0
        self.names: Grouped[str, Port, Present] = Grouped(_port_of)
        """By name, and by worker."""
        self.changed: set[str] = set()
        """Names to tell of: those that are here came, the others left."""
        self.leaving: dict[str, float] = {}
        """Names that are gone, and since when; members still believe that they are here."""
        self.asked_at = float("-inf")
        """When WHO was last answered: not with the names of ``leaving``."""
        self.told_at = float("-inf")
        self.settled_at = float("-inf")
        """Until then nobody is told who came: members may know them from another home."""
        self.anew = False
        """Members are to be told that this roster is another one."""
        self._listed: list[list[str | int]] | None = None
        """The answer to WHO until something changes: a large room takes a while to sort."""

    def listed(self) -> list[list[str | int]]:
        """Return the first ``ROSTER_NAMES_MAX`` names as MEMBERS has them. Not to be changed."""
        if self._listed is None:
            self._listed = [
                [name, self.display(name), self.connections(name)]
                for name in heapq.nsmallest(limits.ROSTER_NAMES_MAX, self.names)
            ]
        return self._listed

    @property
    def large(self) -> bool:
        """True for a room of which only the count is told."""
        return len(self.names) > limits.ROSTER_NAMES_MAX

    @property
    def empty(self) -> bool:
        """True if nobody is here, nor was within the grace."""
        return not self.names and not self.leaving

    def touch(self) -> None:
        """Something has changed."""
        self._listed = None

    def display(self, name: str) -> str:
        """Return the display name that a name goes by."""
        return next(iter(self.names.values(name))).display

    def connections(self, name: str) -> int:
        """Return how many connections of a name there are, on all workers."""
        return sum([present.connections for present in self.names.values(name)])


class Rosters:
    """The rosters of all logs that this home has and somebody follows."""

    def __init__(self, random_bytes: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self._random_bytes = random_bytes
        self._clock = clock
        self._logs: dict[str, Roster] = {}
        self.changed: dict[str, None] = {}
        """Logs with changes that their members have not been told of."""
        self._departures: deque[tuple[float, str, str]] = deque()
        """When, from which log, and who: the oldest first. Some have come back since."""
        self._settling: deque[tuple[float, str]] = deque()
        """When, and which log, whose home was another one: the oldest first."""
        self._of_port: dict[Port, set[str]] = {}
        self.due_at = float("inf")
        """When a change that waits (a departure, a large room's count) is to be told."""

    def change(self, port: Port, message: Presence) -> None:
        """Take a worker's changes."""
        roster = self._logs.get(message.log)
        if roster is None:
            roster = Roster(int.from_bytes(self._random_bytes(7), "big"))
            self._logs[message.log] = roster
            if message.again and message.changes:
                self._settle(message.log, roster)
        self._of_port.setdefault(port, set()).add(message.log)
        for name, display, count in message.changes:
            self._set(message.log, roster, port, str(name), str(display), int(count))
        self._forget_empty(message.log, roster)

    def drop(self, port: Port) -> None:
        """A worker is gone, and its part of every roster with it."""
        for log in self._of_port.pop(port, ()):
            self.leave(log, port)

    def forget(self, port: Port, partition: int) -> None:
        """A worker is about to report anew who is there in the logs of a partition."""
        for log in list(self._of_port.get(port, ())):
            if partition_of(log) == partition:
                self.leave(log, port)

    def forget_partition(self, partition: int) -> None:
        """Another worker is the home of these logs now: nobody is told anything from here."""
        gone = [log for log in self._logs if partition_of(log) == partition]
        for log in gone:
            del self._logs[log]
            self.changed.pop(log, None)
        for logs in self._of_port.values():
            logs.difference_update(gone)

    def leave(self, log: str, port: Port) -> None:
        """A worker follows a log no more."""
        self._of_port.get(port, set()).discard(log)
        roster = self._logs.get(log)
        if roster is None:
            return
        for name in [name for name in roster.names if roster.names.get(name, port)]:
            self._set(log, roster, port, name, "", 0)
        self._forget_empty(log, roster)

    def members(self, message: Who) -> Members:
        """Return who is here: at most ``ROSTER_NAMES_MAX`` names, and the total."""
        roster = self._logs.get(message.log)
        if roster is None:
            return Members(message.tag, 0, 0, 0, [])
        roster.asked_at = self._clock()
        total = len(roster.names)
        return Members(message.tag, roster.incarnation, roster.version, total, roster.listed())

    def changes(self) -> Iterator[Event]:
        """Yield one event for each log whose members are to be told now."""
        now = self._clock()
        self._end_graces(now)
        self.due_at = self._departures[0][0] + GRACE_S if self._departures else float("inf")
        if self._settling:
            self.due_at = min(self.due_at, self._settling[0][0])
        for log in list(self.changed):
            roster = self._logs.get(log)
            if roster is None or not (roster.changed or roster.anew):
                del self.changed[log]
                continue
            if roster.large and now < roster.told_at + COUNT_INTERVAL_S:
                self.due_at = min(self.due_at, roster.told_at + COUNT_INTERVAL_S)
                continue
            del self.changed[log]
            roster.told_at = now
            yield Event(log, pack(_told(log, roster)))

    def _end_graces(self, now: float) -> None:
        departures = self._departures
        while departures:
            gone_at, log, name = departures[0]
            if now < gone_at + GRACE_S and len(departures) <= DEPARTURES_MAX:
                break
            departures.popleft()
            roster = self._logs.get(log)
            if roster is not None and roster.leaving.get(name) == gone_at:
                del roster.leaving[name]
                self._note(log, roster, name)
                self._forget_empty(log, roster)

        settling = self._settling
        while settling and settling[0][0] <= now:
            _, log = settling.popleft()
            if log in self._logs:
                self._logs[log].anew = True
                self.changed[log] = None

    def _settle(self, log: str, roster: Roster) -> None:
        """Its members were told by another home who is here."""
        roster.settled_at = self._clock() + GRACE_S
        self._settling.append((roster.settled_at, log))
        self.due_at = min(self.due_at, roster.settled_at)

    def _set(
        self, log: str, roster: Roster, port: Port, name: str, display: str, count: int
    ) -> None:
        roster.touch()
        names = roster.names
        if count:
            new = name not in names
            names.add(name, Present(port, display, count))
            if new:
                self._came(log, roster, name)
        elif names.get(name, port) is not None and names.remove(name, port):
            self._went(log, roster, name)

    def _came(self, log: str, roster: Roster, name: str) -> None:
        gone_at = roster.leaving.pop(name, None)
        if self._clock() < roster.settled_at:
            return
        if gone_at is None or gone_at <= roster.asked_at:  # or somebody believes that it is gone
            self._note(log, roster, name)

    def _went(self, log: str, roster: Roster, name: str) -> None:
        if roster.large:
            self._note(log, roster, name)
            return
        now = self._clock()
        roster.changed.discard(name)
        roster.leaving[name] = now
        self._departures.append((now, log, name))
        too_many = len(self._departures) > DEPARTURES_MAX
        self.due_at = min(self.due_at, now if too_many else now + GRACE_S)

    def _note(self, log: str, roster: Roster, name: str) -> None:
        roster.changed.add(name)
        self.changed[log] = None

    def _forget_empty(self, log: str, roster: Roster) -> None:
        if roster.empty:
            del self._logs[log]


def _told(log: str, roster: Roster) -> RosterEnvelope:
    names = sorted(roster.changed)
    roster.changed.clear()
    anew, roster.anew = roster.anew, False
    roster.version += 1  # one for each ROSTER: a member that missed one sees the hole
    total = len(roster.names) + len(roster.leaving)  # as many as the members believe are here
    if anew or roster.large or len(names) > limits.ROSTER_NAMES_MAX:
        return RosterEnvelope(log, roster.incarnation, roster.version, total, [], [])
    joined = [[name, roster.display(name)] for name in names if name in roster.names]
    left = [name for name in names if name not in roster.names]
    return RosterEnvelope(log, roster.incarnation, roster.version, total, joined, left)
