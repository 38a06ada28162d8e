"""What members believe about who is present, whatever is collected while a room rests (invariant
"Presence is derived").
"""

from __future__ import annotations

from random import Random

import pytest

from relay.bus.messages import Batch, Event, Message, Presence, Who
from relay.chat.entries import Submission
from relay.server.worker.home.followers.rosters import GRACE_S, REST_S_MAX, Rosters
from relay.wire.envelopes import Roster
from relay.wire.packing import unpack_server

LOG = "lobby"
RESIDENTS = [f"resident{number}" for number in range(150)]
"""They stay: so the room rests for most of a second after a change."""
VISITORS = ["ada", "bob", "cyd", "dan", "eve"]
WAIT_S = GRACE_S + 2 * REST_S_MAX
"""After this time without changes nothing is waiting."""


class _Port:
    """The way to a worker; only its identity matters here."""

    index = 1
    generation = 1

    def send(self, message: Message) -> None:
        raise AssertionError(message)

    def submit(self, tag: int, sends: list[Submission]) -> None:
        raise AssertionError(sends)

    def publish(self, message: Batch | Event) -> None:
        raise AssertionError(message)


class _Room:
    """A room, the names that are present, and two members that believe what they are sent."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rosters = Rosters(bytes, lambda: self.now)
        self.ports = [_Port(), _Port()]
        self.connected: set[tuple[int, str]] = set()
        self.reader: set[str] = set()
        """What a member believes that only reads ROSTER."""
        self.asker: set[str] = set()
        """What a member believes that also asks WHO."""
        self.arrivals = self.departures = 0
        """Names that were sent as joined and as left."""
        self.asked = False
        for name in RESIDENTS:
            self.set(0, name, 1)
        self.send()

    @property
    def present(self) -> set[str]:
        return {name for _, name in self.connected}

    def set(self, worker: int, name: str, count: int) -> None:
        """Set how many connections of a name a worker has."""
        self.rosters.change(self.ports[worker], Presence(LOG, [[name, "", count]]))
        (self.connected.add if count else self.connected.discard)((worker, name))

    def lose(self, worker: int) -> None:
        """A worker dies."""
        self.rosters.drop(self.ports[worker])
        self.connected = {one for one in self.connected if one[0] != worker}

    def ask(self) -> None:
        """Ask WHO."""
        self.asker = {str(row[0]) for row in self.rosters.members(Who(1, LOG)).names}
        self.asked = True
        assert self.asker == self.present

    def send(self) -> None:
        """Send the changes that are due."""
        for event in self.rosters.changes():
            for envelope in unpack_server(event.content):
                assert isinstance(envelope, Roster)
                joined = {name for name, _ in envelope.joined}
                left = set(envelope.left)
                assert not joined & left
                if not self.asked:
                    assert left <= self.reader, "nobody believed it to be present"
                self.arrivals += len(joined)
                self.departures += len(left)
                self.reader = (self.reader | joined) - left
                self.asker = (self.asker | joined) - left
                assert envelope.total == len(self.reader)

    def wait(self, seconds: float) -> None:
        """Let time pass, and send what becomes due in it."""
        end = self.now + seconds
        while self.rosters.due_at <= end:
            self.now = max(self.now, self.rosters.due_at)
            self.send()
        self.now = end

    def settle(self) -> None:
        """Wait until nothing is waiting; all members must know who is present."""
        self.wait(WAIT_S)
        self.send()
        assert self.rosters.due_at == float("inf")
        assert self.reader == self.present
        assert self.asker == self.present


@pytest.mark.parametrize("asking", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_in_the_end_all_members_believe_what_is_true(seed: int, *, asking: bool) -> None:
    """Names come and go while others are collected, and while WHO is answered."""
    random = Random(seed)
    room = _Room()
    for _ in range(300):
        match random.randrange(12):
            case 0 | 1 | 2 | 3:
                room.set(random.randrange(2), random.choice(VISITORS), 1)
            case 4 | 5 | 6:
                room.set(random.randrange(2), random.choice(VISITORS), 0)
            case 7 if asking:
                room.ask()
            case 8:
                room.lose(1)
            case 9:
                room.settle()
            case 10:
                room.wait(random.choice((0.001, 0.2, 0.5)))
            case _:
                room.send()
    room.settle()


def test_an_arrival_that_was_not_sent_goes() -> None:
    """It is not sent at all, neither as joined nor as left, unless it returns."""
    room = _Room()
    room.set(0, "ada", 1)  # it is sent, and the room rests
    room.wait(WAIT_S)
    room.set(0, "bob", 1)
    room.send()
    room.set(0, "cyd", 1)
    room.set(0, "cyd", 0)
    arrivals = room.arrivals
    room.settle()
    assert (room.arrivals, room.departures) == (arrivals, 0)

    room.set(0, "dan", 1)
    room.send()
    room.set(0, "cyd", 1)
    room.set(0, "cyd", 0)
    room.set(0, "cyd", 1)
    room.settle()
    assert (room.arrivals, room.departures) == (arrivals + 2, 0)


def test_an_arrival_that_only_who_has_told_goes() -> None:
    """Who asked must learn that it has left."""
    room = _Room()
    room.set(0, "ada", 1)
    room.send()
    room.set(0, "bob", 1)
    room.ask()
    room.set(0, "bob", 0)
    assert "bob" in room.asker
    room.settle()
    assert room.departures == 1
