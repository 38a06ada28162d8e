"""Light users: decided by what arrived since, and never a connection that is not logged in."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.schedule import (
    LIGHT_PER_S,
    OWED_S_MAX,
    QUANTUM,
    RECORD_UNITS,
    SAVED_S,
    UNITS_PER_TURN,
    Schedule,
)
from relay.wire.envelopes import Ack, History, Page, Send
from relay.wire.packing import pack
from tests.support.cluster import until
from tests.support.standing_clock import StandingClock
from tests.support.workers import Cluster, TestClient

LOG = "lobby"
BURST = QUANTUM + 8
"""Messages at once: more than a user may send who has not waited."""


class Waits:
    """A heavy user that always waits. A ``schedule.Scheduled``."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.done = False
        schedule.add(self, 0.0, 0)

    def take_turn(self, now: float) -> None:
        """Wait again, with nothing to do."""
        if not self.done:
            self._schedule.add(self, 0.0, 0)


async def test_what_arrives_while_a_light_user_waits_does_not_make_it_heavy(tmp_path: Path) -> None:
    """A light user may send so much per second, in any number of reads. More is heavy."""
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
        heavy = Waits(single.session("other").services.schedule)
        parts.turn.pace.until = clock() + 600.0  # heavy users are paused
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
        heavy.done = True
        parts.turn.pace.until = 0.0
        parts.wakeup.request()
        await much.acked(LOG, 2 + 3 * BURST)


async def test_the_cost_of_a_page_counts_for_a_while(tmp_path: Path) -> None:
    """A client that requests one long page after the other is heavy, although it waits for each."""
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


async def test_old_messages_are_no_debt(tmp_path: Path) -> None:
    """After a bulk load, a client that writes occasionally is soon light again."""
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


async def test_steps_before_the_login_do_not_count_as_light_users(
    tmp_path: Path,
) -> None:
    """The frames of a handshake are short; but they wait with heavy users, and count as theirs."""
    async with Cluster(tmp_path, 1) as single:
        await TestClient.login(single.workers[0], "somebody")
        schedule = single.session("somebody").services.schedule
        schedule.queue.lead_max = 1
        heavy = Waits(schedule)
        await TestClient.connect(single.workers[0])
        light = Waits(schedule)
        light.done = True
        schedule.add(light, 0.0, 1)
        assert schedule.queue.light_first
        heavy.done = True


async def test_a_light_user_that_had_to_wait_for_long_stays_light(tmp_path: Path) -> None:
    """Even if more has arrived meanwhile than one turn serves."""
    clock = StandingClock()
    async with Cluster(tmp_path, 1, needs={"clock": clock}) as single:
        parts = single.workers[0].parts
        late, other = [
            await TestClient.login(single.workers[0], name) for name in ("late", "other")
        ]
        late.send(LOG, 1)
        await late.acked(LOG, 1)
        heavy = Waits(single.session("other").services.schedule)
        parts.turn.pace.until = clock() + 600.0  # heavy users are paused
        clock.forward(SAVED_S)
        count = UNITS_PER_TURN
        assert count * (1 + RECORD_UNITS) < SAVED_S * LIGHT_PER_S
        late.send(LOG, 2, 1 + count)
        session = single.session("late")

        def read() -> int:
            acked = [one for one in late.received if isinstance(one, Ack)]
            return len(acked) - 1 + session.sends.count

        await until(lambda: read() == count, "all of it to be read")
        assert not session.reading.is_heavy
        heavy.done = True
        parts.turn.pace.until = 0.0
        parts.wakeup.request()
        await late.acked(LOG, 1 + count)
        other.send(LOG, 1)
        await other.acked(LOG, 1)


async def test_a_bulk_load_is_never_light(tmp_path: Path) -> None:
    """However long the client was idle: of hundreds with one each, some would always be light."""
    clock = StandingClock()
    async with Cluster(tmp_path, 1, needs={"clock": clock}) as single:
        parts = single.workers[0].parts
        much, other = [
            await TestClient.login(single.workers[0], name) for name in ("much", "other")
        ]
        for client in (much, other):
            client.send(LOG, 1)
            await client.acked(LOG, 1)
        session = single.session("much")
        heavy = Waits(single.session("other").services.schedule)
        parts.turn.pace.until = clock() + 600.0  # heavy users are paused
        clock.forward(SAVED_S)
        count = 2 * UNITS_PER_TURN
        much.send_envelopes(*[Send(LOG, 2 + n, 0, "", b"x") for n in range(count)])
        await until(lambda: session.reading.is_heavy, "it to be known as a heavy user")
        for counter in range(2, 7):
            other.send(LOG, counter)
            await other.acked(LOG, counter)
        assert not session.sends.count, "none of it is begun before its turn"
        heavy.done = True
        parts.turn.pace.until = 0.0
        parts.wakeup.request()
        await much.acked(LOG, 1 + count)


@pytest.mark.parametrize("records", [[40], [1] * 15])
async def test_a_bulk_load_behind_small_records(single: Cluster, records: list[int]) -> None:
    """Saved credit ends when the load arrives, though a part is used: no client is closed
    for that.
    """
    client = await TestClient.login(single.workers[0], "late")
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    session = single.session("late")
    schedule, reading = session.services.schedule, session.reading
    others = [Waits(schedule) for _ in range(40)]
    reading._paid_s -= SAVED_S  # idle for so long
    reading.pause(Pause.REQUEST)
    content, counter = b"", 2
    for count in [*records, 80]:
        run = [pack(Send(LOG, counter + n, 0, "", b"x")) for n in range(count)]
        content, counter = content + client.sealed(b"".join(run)), counter + count
    client.transport.write(content)
    await until(lambda: session.channel.connection.reader.pending >= len(content), "all to wait")
    reading.resume(Pause.REQUEST)
    schedule.run(time.monotonic(), 0.0)  # not among the light users, whose slice was over
    for other in others:
        other.done = True
    single.workers[0].parts.wakeup.request()
    await client.acked(LOG, counter - 1)


@pytest.mark.parametrize(
    ("reason", "much"),
    [(Pause.WINDOW, True), (Pause.CREDIT, True), (Pause.WASTE, True), (Pause.REQUEST, False)],
)
async def test_who_has_much_under_way_saves_nothing(
    single: Cluster, reason: int, much: bool
) -> None:
    """What it sends once some of that is answered waits with the heavy users."""
    client = await TestClient.login(single.workers[0], "client")
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    reading = single.session("client").reading
    reading.pause(reason)
    reading.resume(reason)
    assert reading.is_heavy is much
