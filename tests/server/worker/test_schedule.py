"""Fair queueing between connections: light users do not wait for heavy ones."""

from __future__ import annotations

from relay.server.worker.connection.requests.commands import OPERATIONS
from relay.server.worker.connection.schedule import (
    LIGHT_MAX,
    QUANTUM,
    ROUND,
    SLICE_S,
    UNITS,
    UNITS_PER_TURN,
    Schedule,
)
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
        """Bytes have arrived, and there was no time for them."""
        self._schedule.add(self, self._finish, self._units if self.served else 0)

    def take_turn(self, now: float) -> None:
        """Use a share of the worker's time."""
        self.served += 1
        self._clock[0] += STEP_S
        drained = self.served == self._turns
        queue = self._schedule.queue
        self._finish = queue.charge(self, self._finish, self._units, drained=drained)
        if not drained:
            self._schedule.add(self, self._finish, self._units)


def _schedule() -> tuple[Schedule, list[float]]:
    clock = [1.0]
    wakeup = Wakeup(lambda _: None)
    wakeup.bind(lambda: None)
    return Schedule(lambda: clock[0], lambda: clock[0], wakeup), clock


def test_light_users_are_served_before_heavy_ones() -> None:
    """However many those are, and whenever a light user comes."""
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


def test_heavy_users_share() -> None:
    """None waits while others are served twice, nor behind new ones without end."""
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
    """A busy connection of an idle worker is not behind new ones when the worker becomes busy."""
    schedule, clock = _schedule()
    busy = Asking(schedule, clock, UNITS_PER_TURN, 1000)
    for _ in range(10):
        busy._finish = schedule.queue.charge(busy, busy._finish, UNITS_PER_TURN, drained=False)
    for _ in range(10):
        Asking(schedule, clock, UNITS_PER_TURN, 1000).arrive()
    busy.arrive()
    for _ in range(4):
        schedule.run(clock[0])
    assert busy.served


def test_light_users_are_served_before_new_ones() -> None:
    """The use of a new connection is not known, and not assumed to be small."""
    schedule, clock = _schedule()
    for _ in range(100):
        Asking(schedule, clock, UNITS_PER_TURN, 1000).arrive()
    honest = Asking(schedule, clock, 3, 2)
    honest.served = 1  # it is known
    honest.arrive()
    schedule.run(clock[0])
    assert honest.served == 2


def test_a_client_that_waits_for_answers_has_no_debt() -> None:
    """A client with much more than an equal share of the heavy users is served at once."""
    schedule, clock = _schedule()
    floods = [Asking(schedule, clock, QUANTUM, 10_000) for _ in range(100)]
    for flood in floods:
        flood.arrive()
    honest = Asking(schedule, clock, LIGHT_MAX, 1)
    honest.served = 1
    schedule.run(clock[0])
    for _ in range(1000):
        honest._turns += 1
        honest.arrive()
        schedule.run(clock[0])
        assert honest.served == honest._turns
    assert min(flood.served for flood in floods) > 0


def test_light_users_get_half_at_most() -> None:
    """However many they are: heavy users continue."""
    schedule, clock = _schedule()
    floods = [Asking(schedule, clock, QUANTUM, 100_000) for _ in range(5)]
    for flood in floods:
        flood.arrive()
    many = [Asking(schedule, clock, LIGHT_MAX, 1) for _ in range(50)]
    for one in many:
        one.served = 1  # they are known
    for _ in range(1000):
        for one in many:
            if one.served == one._turns:
                one._turns += 1
                one.arrive()
        schedule.run(clock[0])
    much = sum(flood.served for flood in floods) * QUANTUM
    assert 0.9 < sum(one.served for one in many) * LIGHT_MAX / much < 1.1
    served = [flood.served for flood in floods]
    assert max(served) - min(served) <= 1


def test_light_users_do_not_wait_for_paused_heavy_ones() -> None:
    """However large their lead is: nothing has to be reserved for heavy users during a pause."""
    schedule, clock = _schedule()
    Asking(schedule, clock, QUANTUM, 1000).arrive()
    while (
        schedule.queue.light_first or not schedule.queue.has_light
    ):  # until they have had their half
        one = Asking(schedule, clock, LIGHT_MAX, 1)
        one.served, one._turns = 1, 2
        one.arrive()
        schedule.run_light(clock[0])
    schedule.run_light(clock[0])
    assert one.served == 1
    schedule.run_light(clock[0], heavy_paused=True)
    assert one.served == 2


def test_the_slice_of_light_users_is_cpu_time() -> None:
    """While other processes have the CPU, a turn serves no fewer of them."""
    clock = [1.0]
    wakeup = Wakeup(lambda _: None)
    schedule = Schedule(lambda: clock[0], lambda: clock[0] / 1000, wakeup)
    honest = [Asking(schedule, clock, 3, 2) for _ in range(100)]
    for one in honest:
        one.served = 1  # it is known
        one.arrive()
    schedule.run_light(clock[0])
    assert [one.served for one in honest] == [2] * 100


def test_nobody_overtakes_those_that_wait() -> None:
    """Once one connection waits, all wait: the queue determines the order."""
    schedule, clock = _schedule()
    assert schedule.has_time(clock[0])
    flood = Asking(schedule, clock, UNITS_PER_TURN, 3)
    flood.arrive()
    assert not schedule.has_time(clock[0])
    while schedule.waiting:
        schedule.run(clock[0])
    schedule.until = 0.0
    assert schedule.has_time(clock[0])


def test_shares_are_small_while_others_wait() -> None:
    """So a new request does not wait for long, and batches of an idle worker are large."""
    schedule, clock = _schedule()
    assert schedule.share == UNITS_PER_TURN
    for waiting in range(2, 101):
        Asking(schedule, clock, 3, 1).arrive()
        assert QUANTUM <= schedule.share <= UNITS_PER_TURN
        assert schedule.share == QUANTUM or schedule.share * waiting <= ROUND
    assert schedule.share == QUANTUM


def test_a_slice_is_used_up_while_anybody_waits() -> None:
    """Two heavy users are served repeatedly in a turn, not once per turn."""
    schedule, clock = _schedule()
    both = [Asking(schedule, clock, QUANTUM, 1000) for _ in range(2)]
    for one in both:
        one.arrive()
    schedule.run(clock[0])
    assert sum(one.served for one in both) >= SLICE_S / STEP_S


def test_every_operation_but_a_send_has_its_price() -> None:
    """A missing one would cost an attacker as little as a send."""
    assert {kind for stage in OPERATIONS.values() for kind in stage} - {Send} == set(UNITS)


def test_a_slice_that_no_turn_ended_is_over_when_nothing_came_for_long() -> None:
    """What arrives alone after a keepalive is handled at once."""
    schedule, clock = _schedule()
    assert schedule.has_time(clock[0])
    clock[0] += SLICE_S
    assert not schedule.has_time(clock[0])
    clock[0] += SLICE_S
    assert schedule.has_time(clock[0])
    assert schedule.has_time(clock[0] + SLICE_S / 2)


def test_a_slice_that_a_turn_will_end_lasts_until_then() -> None:
    """However long one operation of a flood takes: otherwise each would begin another slice."""
    schedule, clock = _schedule()
    assert schedule.has_time(clock[0])
    schedule._wakeup.request()
    clock[0] += 10 * SLICE_S
    assert not schedule.has_time(clock[0])
