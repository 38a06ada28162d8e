"""Who asks for little: by what came of him in the time since, and never who is not logged in."""

from __future__ import annotations

from pathlib import Path

from relay.server.worker.connection.schedule import (
    LIGHT_PER_S,
    OWED_S_MAX,
    QUANTUM,
    SAVED_S,
    UNITS_PER_TURN,
    Schedule,
)
from relay.wire.envelopes import Ack, History, Page, Send
from tests.support.cluster import until
from tests.support.standing_clock import StandingClock
from tests.support.workers import Cluster, TestClient

LOG = "lobby"
BURST = QUANTUM + 8
"""Messages at once: more than somebody may use who has not waited."""


class Waits:
    """One of the crowd, who always waits. A ``schedule.Scheduled``."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.done = False
        schedule.add(self, 0.0, 0)

    def take_turn(self, now: float) -> None:
        """Wait again, and have nothing."""
        if not self.done:
            self._schedule.add(self, 0.0, 0)


async def test_what_came_while_somebody_waited_makes_him_none_of_the_crowd(tmp_path: Path) -> None:
    """So much a second is little, in however many pieces it is read. More waits with the crowd."""
    clock = StandingClock()
    async with Cluster(tmp_path, 1, needs={"clock": clock}) as single:
        parts = single.workers[0].parts
        late, much, other = [
            await TestClient.login(single.workers[0], name) for name in ("late", "much", "other")
        ]
        for client in (late, much, other):
            client.send(LOG, 1)
            await client.acked(LOG, 1)
        burst = [Send(LOG, 3 + n, 0, "", b"x") for n in range(BURST)]
        more = [Send(LOG, 3 + BURST + n, 0, "", b"x") for n in range(2 * BURST)]
        crowd = Waits(single.session("other").services.schedule)
        parts.turn.pace.until = clock() + 600.0  # it rests
        clock.forward(2 * BURST / LIGHT_PER_S)
        for client in (late, much):
            client.send(LOG, 2)
            await client.acked(LOG, 2)
            client.send_envelopes(*burst)
            await client.acked(LOG, 2 + BURST)
        late.send(LOG, 3 + BURST)
        await late.acked(LOG, 3 + BURST)
        much.send_envelopes(*more)
        for counter in range(2, 7):
            other.send(LOG, counter)
            await other.acked(LOG, counter)
        acked = [one.counter for one in much.received if isinstance(one, Ack)]
        assert max(acked) < 2 + 3 * BURST
        crowd.done = True
        parts.turn.pace.until = 0.0
        parts.wakeup.request()
        await much.acked(LOG, 2 + 3 * BURST)


async def test_what_a_page_has_cost_counts_for_a_while(tmp_path: Path) -> None:
    """Who asks for one long page after the other is one of the crowd, though he waits for each."""
    clock = StandingClock()
    async with Cluster(tmp_path, 1, needs={"clock": clock}) as single:
        reader = await TestClient.login(single.workers[0], "reader")
        await reader.join(LOG)
        count = 4 * LIGHT_PER_S
        reader.send_envelopes(*[Send(LOG, n, 0, "", b"x") for n in range(1, count + 1)])
        await reader.acked(LOG, count)
        reading = single.session("reader").reading
        clock.forward(60.0)
        assert not reading.is_heavy
        number = 0
        while not reading.is_heavy:
            number += 1
            assert number <= 100
            reader.send_envelopes(History(number, LOG, False, 0, count))
            await reader.expect(Page, count=number)
        assert number > 1
        clock.forward(60.0)
        assert not reading.is_heavy


async def test_nobody_owes_what_he_has_sent_long_ago(tmp_path: Path) -> None:
    """Who has brought much, and then writes now and then, is none of the crowd a little later."""
    clock = StandingClock()
    async with Cluster(tmp_path, 1, needs={"clock": clock}) as single:
        loader = await TestClient.login(single.workers[0], "loader")
        count = 20 * LIGHT_PER_S
        for first in range(1, count, 1000):
            loader.send_envelopes(*[Send(LOG, first + n, 0, "", b"x") for n in range(1000)])
            await loader.acked(LOG, first + 999)
        reading = single.session("loader").reading
        assert reading.is_heavy
        clock.forward(OWED_S_MAX)
        assert not reading.is_heavy


async def test_the_steps_of_newcomers_are_no_lead_of_those_who_ask_for_little(
    tmp_path: Path,
) -> None:
    """A handshake's frames are short; but they wait with the crowd, and are of its part."""
    async with Cluster(tmp_path, 1) as single:
        await TestClient.login(single.workers[0], "somebody")
        schedule = single.session("somebody").services.schedule
        schedule.queue.lead_max = 1
        crowd = Waits(schedule)
        await TestClient.connect(single.workers[0])
        little = Waits(schedule)
        little.done = True
        schedule.add(little, 0.0, 1)
        assert schedule.light_first
        crowd.done = True


async def test_who_had_to_wait_for_long_stays_none_of_the_crowd(tmp_path: Path) -> None:
    """Though what has come meanwhile is more than anybody is served in one turn."""
    clock = StandingClock()
    async with Cluster(tmp_path, 1, needs={"clock": clock}) as single:
        parts = single.workers[0].parts
        late, other = [
            await TestClient.login(single.workers[0], name) for name in ("late", "other")
        ]
        late.send(LOG, 1)
        await late.acked(LOG, 1)
        crowd = Waits(single.session("other").services.schedule)
        parts.turn.pace.until = clock() + 600.0  # it rests
        clock.forward(SAVED_S)
        count = UNITS_PER_TURN + 100
        late.send_envelopes(*[Send(LOG, 2 + n, 0, "", b"x") for n in range(count)])
        session = single.session("late")
        await until(lambda: session.sends.count == count, "all of it to be read")
        assert not session.reading.is_heavy
        crowd.done = True
        parts.turn.pace.until = 0.0
        parts.wakeup.request()
        await late.acked(LOG, 1 + count)
        other.send(LOG, 1)
        await other.acked(LOG, 1)
