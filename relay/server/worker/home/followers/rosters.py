"""Who follows a log, on all workers, and the changes that members are told.

Invariant "Presence is derived": a worker's part of a roster disappears with its link. After members
were sent changes, the next ones are collected for ``REST_S_PER_NAME`` times the number of names: a
roster of up to 1,000 names costs at most 200 envelopes per second, all members together, and people
who come one after the other do not cause one for each of them and each member. In a room with more
than ``ROSTER_NAMES_MAX`` names only the count is sent. It is at most ``REST_S_MAX`` old.

Arrivals are sent at once, departures only after ``GRACE_S``: most clients of a worker that died, or
of a broken connection, are back by then, and nothing is sent about them.

When a log moves to another home, members are not sent all names again. The new home does not know
what they believe. Once clients that lost their worker had time to reconnect, members are told that
the roster is a new one, with its total and without names. A client that wants the names asks (WHO).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
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

REST_S_PER_NAME: Final = 0.005
"""Minimum time between two events of a room, for each of its names."""
REST_S_MAX: Final = 5.0
"""The same for a room of any size. When thousands come back at once, each event is one more record
for each of them."""
GRACE_S: Final = 1.0
"""How long a name that has gone may take to return before members are told that it left."""
LISTED_MAX: Final = 2 * limits.ROSTER_NAMES_MAX
"""Names that are kept in order. The answer to WHO needs half of them: so all names of a large room
are looked at once for many that leave."""
DEPARTURES_MAX: Final = 50_000
"""Departures within their grace period, in all logs of this home. Beyond this number the oldest are
sent."""


class Present(NamedTuple):
    """A user on one worker."""

    port: Port
    display: str
    connections: int


def _port_of(present: Present) -> Port:
    return present.port


def _name_of(row: list[str | int]) -> str:
    return str(row[0])


class Roster:
    """The members of one log, and the changes since they were last told."""

    __slots__ = (
        "_listed", "anew", "arrivals", "asked_at", "departures", "incarnation", "leaving", "names",
        "resting", "settled_at", "told_at", "version",
    )  # fmt: skip

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.version = 0
        self.names: Grouped[str, Port, Present] = Grouped(_port_of)
        """By name and by worker."""
        self.arrivals: dict[str, float] = {}
        """Names present whose arrival was not sent, and since when. ``-inf``: some members believe
        that the name was present all the time."""
        self.departures: set[str] = set()
        """Names that are not present, whose departure must be sent with the next changes."""
        self.leaving: dict[str, float] = {}
        """Names that have gone within the grace period, and since when. Members still believe that
        they are present: those whose arrival was not sent are never in here."""
        self.asked_at = float("-inf")
        """When WHO was last answered: that answer did not include the names in ``leaving``."""
        self.told_at = float("-inf")
        self.resting = False
        """True while changes are collected because members were sent some just before."""
        self.settled_at = float("-inf")
        """Until then no arrivals are sent: members may know them from another home."""
        self.anew = False
        """True if members must be told that this roster is a new one."""
        self._listed: list[list[str | int]] | None = None
        """The first names in order, as in MEMBERS: at most ``LISTED_MAX``; None: not known."""

    def listed(self) -> list[list[str | int]]:
        """Return the first ``ROSTER_NAMES_MAX`` names as in MEMBERS. The rows must not be modified.

        What a change costs does not depend on the size of the room: clients may come, go and ask
        again and again.
        """
        if self._listed is None:
            self._listed = [self._row(name) for name in heapq.nsmallest(LISTED_MAX, self.names)]
        return self._listed[: limits.ROSTER_NAMES_MAX]

    def _row(self, name: str) -> list[str | int]:
        return [name, self.display(name), self.connections(name)]

    @property
    def large(self) -> bool:
        """True for a room of which only the count is sent."""
        return len(self.names) > limits.ROSTER_NAMES_MAX

    @property
    def rested_at(self) -> float:
        """When members may be sent the next changes."""
        return self.told_at + min(REST_S_MAX, REST_S_PER_NAME * len(self.names))

    @property
    def untold(self) -> bool:
        """True if members must be sent something."""
        return bool(self.arrivals or self.departures or self.anew)

    @property
    def empty(self) -> bool:
        """True if nobody is present, or was within the grace period."""
        return not self.names and not self.leaving

    def touch(self, name: str) -> None:
        """Note that the connections of a name have changed."""
        listed = self._listed
        if listed is None:
            return
        at = bisect_left(listed, name, key=_name_of)
        known = at < len(listed) and listed[at][0] == name
        if name in self.names:
            if known:
                listed[at] = self._row(name)
            elif at < len(listed) or len(listed) == len(self.names) - 1:
                listed.insert(at, self._row(name))
                del listed[LISTED_MAX:]
        elif known:
            del listed[at]
            if len(listed) < min(limits.ROSTER_NAMES_MAX, len(self.names)):
                self._listed = None

    def display(self, name: str) -> str:
        """Return the display name for a name."""
        return next(iter(self.names.values(name))).display

    def connections(self, name: str) -> int:
        """Return how many connections a name has, on all workers."""
        return sum([present.connections for present in self.names.values(name)])


class Rosters:
    """The rosters of all followed logs of this home."""

    def __init__(self, random_bytes: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self._random_bytes = random_bytes
        self._clock = clock
        self._logs: dict[str, Roster] = {}
        self.changed: dict[str, None] = {}
        """Logs with changes that their members have not been told, except resting ones."""
        self._resting: list[tuple[float, str]] = []
        """A heap of (time, log): when their changes are sent. Some logs were forgotten since."""
        self._departures: deque[tuple[float, str, str]] = deque()
        """(time, log, name) of departures, oldest first. Some names have returned since."""
        self._settling: deque[tuple[float, str]] = deque()
        """(time, log) of logs that came from another home, oldest first."""
        self._of_port: dict[Port, set[str]] = {}
        self.due_at = float("inf")
        """When a waiting change (a departure, one of a resting log) must be sent."""

    def change(self, port: Port, message: Presence) -> None:
        """Apply a worker's changes."""
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
        """A worker has died: remove its part of every roster."""
        for log in self._of_port.pop(port, ()):
            self.leave(log, port)

    def forget(self, port: Port, partition: int) -> None:
        """A worker is about to report its members again for the logs of a partition."""
        for log in list(self._of_port.get(port, ())):
            if partition_of(log) == partition:
                self.leave(log, port)

    def forget_partition(self, partition: int) -> None:
        """Another worker is the home of these logs now: send nothing more about them."""
        gone = [log for log in self._logs if partition_of(log) == partition]
        for log in gone:
            del self._logs[log]
            self.changed.pop(log, None)
        for logs in self._of_port.values():
            logs.difference_update(gone)

    def leave(self, log: str, port: Port) -> None:
        """A worker no longer follows a log."""
        self._of_port.get(port, set()).discard(log)
        roster = self._logs.get(log)
        if roster is None:
            return
        for name in [name for name in roster.names if roster.names.get(name, port)]:
            self._set(log, roster, port, name, "", 0)
        self._forget_empty(log, roster)

    def members(self, message: Who) -> Members:
        """Return who is present: at most ``ROSTER_NAMES_MAX`` names, and the total."""
        roster = self._logs.get(message.log)
        if roster is None:
            return Members(message.tag, 0, 0, 0, [])
        roster.asked_at = self._clock()
        total = len(roster.names)
        return Members(message.tag, roster.incarnation, roster.version, total, roster.listed())

    def changes(self) -> Iterator[Event]:
        """Yield one event for each log whose members must be told now."""
        now = self._clock()
        self._end_graces(now)
        resting = self._resting
        while resting and resting[0][0] <= now:
            _, log = heapq.heappop(resting)
            if log in self._logs:
                self._logs[log].resting = False
                self.changed[log] = None
        for log in list(self.changed):
            del self.changed[log]
            roster = self._logs.get(log)
            if roster is None or not roster.untold:
                continue
            if now < roster.rested_at:
                roster.resting = True
                heapq.heappush(resting, (roster.rested_at, log))
                continue
            roster.told_at = now
            yield Event(log, pack(_told(log, roster)))
        self.due_at = min(
            self._departures[0][0] + GRACE_S if self._departures else float("inf"),
            self._settling[0][0] if self._settling else float("inf"),
            resting[0][0] if resting else float("inf"),
        )

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
                roster.departures.add(name)
                self._mark(log, roster)
                self._forget_empty(log, roster)

        settling = self._settling
        while settling and settling[0][0] <= now:
            _, log = settling.popleft()
            if log in self._logs:
                self._logs[log].anew = True
                self._mark(log, self._logs[log])

    def _settle(self, log: str, roster: Roster) -> None:
        """Prepare a roster whose members were told by another home who is present."""
        roster.settled_at = self._clock() + GRACE_S
        self._settling.append((roster.settled_at, log))
        self.due_at = min(self.due_at, roster.settled_at)

    def _set(
        self, log: str, roster: Roster, port: Port, name: str, display: str, count: int
    ) -> None:
        names = roster.names
        if count:
            new = name not in names
            names.add(name, Present(port, display, count))
            if new:
                self._came(log, roster, name)
        elif names.get(name, port) is not None and names.remove(name, port):
            self._went(log, roster, name)
        roster.touch(name)

    def _came(self, log: str, roster: Roster, name: str) -> None:
        now = self._clock()
        gone_at = roster.leaving.pop(name, None)
        believed = gone_at is not None or name in roster.departures
        roster.departures.discard(name)
        if now < roster.settled_at:
            return
        # otherwise somebody believes that it is gone
        if gone_at is None or gone_at <= roster.asked_at:
            roster.arrivals[name] = float("-inf") if believed else now
            self._mark(log, roster)

    def _went(self, log: str, roster: Roster, name: str) -> None:
        since = roster.arrivals.pop(name, None)
        if since is not None and since > roster.asked_at:
            return  # nobody knows that it was present
        if since is not None or roster.large:
            # No grace period for a name that only some believe to be present: the total of the next
            # changes could not be right for all members.
            roster.departures.add(name)
            self._mark(log, roster)
            return
        now = self._clock()
        roster.leaving[name] = now
        self._departures.append((now, log, name))
        too_many = len(self._departures) > DEPARTURES_MAX
        self.due_at = min(self.due_at, now if too_many else now + GRACE_S)

    def _mark(self, log: str, roster: Roster) -> None:
        if not roster.resting:
            self.changed[log] = None

    def _forget_empty(self, log: str, roster: Roster) -> None:
        if roster.empty:
            del self._logs[log]


def _told(log: str, roster: Roster) -> RosterEnvelope:
    joined, left = sorted(roster.arrivals), sorted(roster.departures)
    roster.arrivals.clear()
    roster.departures.clear()
    anew, roster.anew = roster.anew, False
    roster.version += 1  # increases with each ROSTER: a member that missed one sees the hole
    total = len(roster.names) + len(roster.leaving)  # as many as the members believe are present
    if anew or roster.large or len(joined) + len(left) > limits.ROSTER_NAMES_MAX:
        return RosterEnvelope(log, roster.incarnation, roster.version, total, [], [])
    shown = [[name, roster.display(name)] for name in joined]
    return RosterEnvelope(log, roster.incarnation, roster.version, total, shown, left)
