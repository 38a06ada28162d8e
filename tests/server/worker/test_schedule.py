"""Fair queueing between connections: who asks for little does not wait for who asks without end."""

from __future__ import annotations

from relay.server.worker.connection.commands import OPERATIONS
from relay.server.worker.connection.schedule import SLICE_S, UNITS, UNITS_PER_TURN, Schedule
from relay.server.worker.wakeup import Wakeup
from relay.wire.envelopes import Send

STEP_S = SLICE_S / 4


class Asking:
    """A connection that uses so many units in each turn, and has more. A ``schedule.Scheduled``."""

    def __init__(self, schedule: Schedule, clock: list[float], units: int, turns: int) -> None:
        self._schedule = schedule
        self._clock = clock
        self._units = units
        self._turns = turns
        self._finish = 0.0
        self.served = 0

    def arrive(self) -> None:
        """Bytes have come, and there was no time for them."""
        self._schedule.add(self, self._finish, self._units if self.served else 0)

    def take_turn(self, now: float) -> None:
        """Use a share of the worker's time."""
        self.served += 1
        self._clock[0] += STEP_S
        self._finish = self._schedule.charge(self._finish, self._units)
        if self.served < self._turns:
            self._schedule.add(self, self._finish, self._units)


def _schedule() -> tuple[Schedule, list[float]]:
    clock = [1.0]
    wakeup = Wakeup(lambda _: None)
    wakeup.bind(lambda: None)
    return Schedule(lambda: clock[0], wakeup), clock


def test_little_is_served_before_those_that_ask_without_end() -> None:
    """However many they are, and whenever it comes."""
    schedule, clock = _schedule()
    floods = [Asking(schedule, clock, UNITS_PER_TURN, 1000) for _ in range(100)]
    for flood in floods:
        flood.arrive()
    while not all(flood.served for flood in floods):
        schedule.run(clock[0])
    for arrival in range(50):
        honest = Asking(schedule, clock, 3, 1)
        honest.arrive()
        for _ in range(2):
            schedule.run(clock[0])
        assert honest.served == 1, f"waited at arrival {arrival}"


def test_those_that_ask_without_end_share() -> None:
    """None of them waits while others are served twice as often, nor for those that come new."""
    schedule, clock = _schedule()
    floods = [Asking(schedule, clock, UNITS_PER_TURN, 1000) for _ in range(20)]
    for flood in floods:
        flood.arrive()
    for _ in range(100):
        Asking(schedule, clock, UNITS_PER_TURN, 1).arrive()
        schedule.run(clock[0])
    served = [flood.served for flood in floods]
    assert min(served) >= 8
    assert max(served) - min(served) <= 1


def test_what_was_used_while_nobody_waited_is_no_debt() -> None:
    """A busy connection of an idle worker is not behind newcomers when it becomes crowded."""
    schedule, clock = _schedule()
    busy = Asking(schedule, clock, UNITS_PER_TURN, 1000)
    for _ in range(10):
        busy._finish = schedule.charge(busy._finish, UNITS_PER_TURN)
    for _ in range(10):
        Asking(schedule, clock, UNITS_PER_TURN, 1000).arrive()
    busy.arrive()
    for _ in range(4):
        schedule.run(clock[0])
    assert busy.served


def test_every_operation_but_a_send_has_its_price() -> None:
    """One that is forgotten would cost whoever floods as little as a send."""
    assert {kind for stage in OPERATIONS.values() for kind in stage} - {Send} == set(UNITS)
