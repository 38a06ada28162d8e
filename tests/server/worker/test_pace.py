"""Heavy users' share of a contended CPU, and that nobody else waits during their pauses."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

import msgpack
import pytest

from relay.limit_settings import Limits
from relay.server.worker.connection.budgets.admission import LOGINS_MANY
from relay.server.worker.connection.connections import LOGINS_PAUSE_S
from relay.server.worker.connection.schedule import SLICE_S
from relay.server.worker.process.loop.pace import (
    DECREASE,
    DELIVERIES_FOR_LOGINS,
    HEAVY_MIN,
    INCREASE_FOR_LOGINS,
    PART_FOR_LOGINS,
    PAUSE_S_MAX,
    SEEN_S,
    SHARE_FIRST,
    SHARE_MIN,
    SHORT_SLICE_S,
    Pace,
)
from relay.server.worker.process.parts import WorkerParts
from relay.server.worker.wakeup import TIMER_S, timer_s
from relay.wire.envelopes import Ack, Error, History, Page, Welcome
from tests.support.cluster import DEADLINE_S, until
from tests.support.pair import server_key
from tests.support.workers import Cluster, LocalAgent, TestClient

LOG = "lobby"
UNKNOWN = msgpack.packb([99]) * 1023
FLOODS = 2 * HEAVY_MIN
RECORDS = 1


def test_there_are_no_pauses_while_the_cpu_is_available() -> None:
    """A turn that took about as long as its CPU time is no sign of contention."""
    pace = Pace()
    for _ in range(1000):
        pace.served(5.0, SEEN_S * 1.2, SEEN_S, SEEN_S, HEAVY_MIN)
    assert pace.share == 1.0
    assert pace.until == 0.0
    assert pace.slice_s == SLICE_S


def test_heavy_users_pause_when_the_cpu_is_contended() -> None:
    """Their share shrinks with each decision, down to its minimum, and slices are short."""
    pace = Pace()
    parts = []
    for _ in range(20):
        pace.served(5.0, SEEN_S * 3, SEEN_S, SEEN_S, HEAVY_MIN)
        parts.append(pace.share)
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == SHARE_MIN
    assert pace.slice_s == SHORT_SLICE_S
    assert pace.until == 5.0 + min(SEEN_S * (1 / SHARE_MIN - 1), PAUSE_S_MAX)


def test_a_long_turn_does_not_cause_a_long_pause() -> None:
    """Something other than heavy users has made it long."""
    pace = Pace()
    pace.served(5.0, 3.0, 1.0, 1.0, HEAVY_MIN)
    assert pace.until == 5.0 + PAUSE_S_MAX


def test_heavy_users_get_all_of_the_cpu_again_in_the_end() -> None:
    """When the contention ends, their share grows, and the pauses become shorter and end."""
    pace = Pace()
    for _ in range(20):
        pace.served(5.0, SEEN_S * 3, SEEN_S, SEEN_S, HEAVY_MIN)
    pauses = []
    while pace.share < 1.0:
        pace.served(5.0, SEEN_S, SEEN_S, SEEN_S * 20, HEAVY_MIN)
        pauses.append(pace.until - 5.0)
    assert pauses == sorted(pauses, reverse=True)
    until = pace.until
    pace.served(9.0, SEEN_S, SEEN_S, SEEN_S, HEAVY_MIN)
    assert pace.until == until


def test_few_heavy_users_never_pause() -> None:
    """They are bulk loads of single users: short slices would cost more, and gain little."""
    pace = Pace()
    pace.served(5.0, SEEN_S * 3, SEEN_S, SEEN_S, HEAVY_MIN)
    until = pace.until
    assert until > 5.0
    pace.served(6.0, SEEN_S * 3, SEEN_S, SEEN_S, HEAVY_MIN - 1)
    assert pace.share == 1.0
    assert pace.slice_s == SLICE_S
    assert pace.until == until


def test_work_between_the_turns_of_heavy_users_counts() -> None:
    """A request of a heavy user also causes work for the home, at other times."""
    pace = Pace()
    pace.served(5.0, SEEN_S * 2, SEEN_S, SEEN_S * 1.5, HEAVY_MIN)
    assert pace.until == 5.0 + SEEN_S * 1.5 * (1 / pace.share - 1)


def test_the_share_is_at_most_what_was_available() -> None:
    """Not half of the whole, if a fifth was available."""
    pace = Pace()
    pace.served(5.0, SEEN_S * 5, SEEN_S, SEEN_S, HEAVY_MIN)
    assert pace.share == 0.2


def test_logins_start_with_a_share() -> None:
    """It doubles while the CPU is available, and grows slowly after the first contention."""
    pace = Pace()
    parts = []
    for _ in range(3):
        pace.served(5.0, SEEN_S, SEEN_S / 2, SEEN_S / 2, 0, HEAVY_MIN)
        parts.append(pace.share)
        pace.served(5.0, 0.0, SEEN_S / 2, SEEN_S / 2, 0, HEAVY_MIN)
    assert parts == [SHARE_FIRST, min(2 * SHARE_FIRST, 1.0), min(4 * SHARE_FIRST, 1.0)]
    pace.served(5.0, SEEN_S * 2, SEEN_S, SEEN_S, 0, HEAVY_MIN)
    missed = pace.share
    pace.served(5.0, SEEN_S, SEEN_S, SEEN_S, 0, HEAVY_MIN)
    assert pace.share == missed * (1 + INCREASE_FOR_LOGINS)
    pace.served(5.0, SEEN_S, SEEN_S, SEEN_S, 0, 0)
    assert pace.share == 1.0


@pytest.mark.parametrize("times", [2, 3, 4, 6])
def test_logins_get_a_part_of_what_is_available(times: int) -> None:
    """However often they have waited for the CPU: the worker is idle at times, whatever it gets.

    With a share that is fixed it would always wait for the CPU if it gets less than that.
    """
    pace = Pace()
    for _ in range(20):
        pace.served(5.0, SEEN_S * times, SEEN_S, SEEN_S, 0, HEAVY_MIN)
        assert pace.share == PART_FOR_LOGINS / times
        assert pace.until == 5.0 + min(SEEN_S * (1 / pace.share - 1), PAUSE_S_MAX)


def test_deliveries_do_not_hold_up_logins() -> None:
    """They are not what logins cause: they make the pauses no longer, but the slices."""
    pace, beside = Pace(), Pace()
    for delivered_s in (0.0, SEEN_S, 100 * SEEN_S):
        pace.served(5.0, SEEN_S * 3, SEEN_S, SEEN_S + delivered_s, 0, HEAVY_MIN, delivered_s)
        beside.served(5.0, SEEN_S * 3, SEEN_S, SEEN_S, 0, HEAVY_MIN)
        assert pace.until == pytest.approx(beside.until)
        least_s = min(delivered_s * DELIVERIES_FOR_LOGINS, SLICE_S)
        assert pace.slice_s == max(SHORT_SLICE_S, least_s)
        assert pace.light_slice_s == SHORT_SLICE_S


def test_deliveries_count_for_heavy_users() -> None:
    """Who comes and goes again and again causes them."""
    pace, without = Pace(), Pace()
    pace.served(5.0, SEEN_S * 3, SEEN_S, SEEN_S * 2, HEAVY_MIN, 0, SEEN_S)
    without.served(5.0, SEEN_S * 3, SEEN_S, SEEN_S * 2, HEAVY_MIN)
    assert pace.until == without.until


def test_pauses_are_at_least_as_long_as_a_timer() -> None:
    """Shorter ones are added up: none is lost."""
    pace = Pace()
    pace.served(5.0, SEEN_S * 2, SEEN_S, SEEN_S, HEAVY_MIN)
    assert pace.share == DECREASE
    until, pauses = pace.until, []
    for turn in range(1, 9):
        pace.served(5.0 + turn, TIMER_S / 4, TIMER_S / 4, TIMER_S / 4, HEAVY_MIN)
        if pace.until != until:
            until = pace.until
            pauses.append(until - 5.0 - turn)
    assert len(pauses) == 2
    assert min(pauses) > TIMER_S * 0.999


def test_a_timer_is_never_at_once() -> None:
    """Otherwise it would fire again and again until it is due."""
    for left_s in (-1.0, 0.0, TIMER_S / 10, TIMER_S / 2, TIMER_S, 1.0):
        assert round(1000 * timer_s(left_s)) >= 1
        assert left_s <= timer_s(left_s) <= max(left_s, 0.0) + TIMER_S


class Dear:
    """A CPU that others use most of the time. ``held`` ends that: no time is missing then."""

    def __init__(self) -> None:
        self.held = True
        self._cpu = 0.0
        self._at = time.thread_time()

    def cpu_clock(self) -> float:
        now = time.thread_time()
        self._cpu += (now - self._at) * (0.2 if self.held else 1000.0)
        self._at = now
        return self._cpu


async def test_the_cpu_time_of_deliveries_is_known_while_many_log_in(tmp_path: Path) -> None:
    """With a clock that only advances when something is delivered."""
    parts: list[WorkerParts] = []
    needs: dict[str, object] = {
        "cpu_clock": lambda: float(parts[0].member.fanout.deliveries) if parts else 0.0
    }
    async with Cluster(tmp_path, 1, needs=needs) as single:
        worker = single.workers[0]
        parts.append(worker.parts)
        turn = worker.parts.turn
        members = [await TestClient.login(worker, f"member{n}") for n in range(3)]
        for member in members:
            await member.join(LOG)
        for counter, many in enumerate((False, True), 1):
            turn.pace.logins_until = math.inf if many else 0.0
            members[0].send(LOG, counter)
            for member in members:
                await member.has(LOG, counter)
            assert turn.delivered_s == (len(members) if many else 0)


async def test_light_users_do_not_wait_for_the_pauses(tmp_path: Path) -> None:
    """Every turn of heavy users is followed by a pause, and a message is stored meanwhile."""
    dear = Dear()
    needs: dict[str, object] = {"cpu_clock": dear.cpu_clock}
    async with Cluster(tmp_path, 1, needs=needs, limits=Limits(waste_per_s=0)) as single:
        worker = single.workers[0]
        pace = worker.parts.turn.pace
        floods = [await TestClient.login(worker, f"flood{n}") for n in range(FLOODS)]
        honest = await TestClient.login(worker, "honest")
        await honest.join(LOG)
        honest.send(LOG, 1)
        await honest.acked(LOG, 1)
        for flood in floods:
            flood.transport.write(b"".join(flood.sealed(UNKNOWN) for _ in range(RECORDS)))
        counter = 1
        while pace.share != SHARE_MIN:  # a client with few requests is slowed down
            counter += 1
            honest.send(LOG, counter)
            await honest.acked(LOG, counter)
        answered = sum(len(flood.received) for flood in floods)
        assert answered < FLOODS * RECORDS * 1023, "the honest client waited for all of it"
        assert [type(one) for one in honest.received].count(Ack) == counter
        dear.held = False
        pace.share = 1.0
        for flood in floods:  # nobody is forgotten during a pause
            await flood.expect(Error, count=RECORDS * 1023)


async def test_pages_for_heavy_users_wait_during_pauses(tmp_path: Path) -> None:
    """A client that requests one page gets it meanwhile; one that requests many is heavy."""
    async with Cluster(tmp_path, 1) as single:
        worker = single.workers[0]
        turn, schedule = worker.parts.turn, worker.parts.services.schedule
        honest, greedy = [await TestClient.login(worker, name) for name in ("honest", "greedy")]
        honest.send(LOG, 1)
        await honest.acked(LOG, 1)
        for client in (honest, greedy):
            await client.join(LOG)
        turn.pace.until = time.monotonic() + 600.0
        greedy.send_envelopes(*[History(n, LOG, False, 0, 10) for n in range(1, 41)])
        await until(lambda: worker.parts.member.catchup.heavy, "the request for a page")
        honest.send_envelopes(History(1, LOG, False, 0, 10))
        await honest.expect(Page)
        assert not any(isinstance(one, Page) for one in greedy.received)
        assert schedule.busy == 1
        turn.pace.until = 0.0
        worker.parts.wakeup.request()
        await greedy.expect(Page, count=40)
        await until(lambda: not schedule.busy, "all to be done")


async def test_chatting_clients_do_not_wait_for_logins(tmp_path: Path) -> None:
    """Each step of many logins waits with heavy users, during their pauses."""
    async with Cluster(tmp_path, 1) as single:
        worker = single.workers[0]
        turn = worker.parts.turn
        honest = await TestClient.login(worker, "honest")
        worker.parts.services.budgets.admission.patience_s = (
            DEADLINE_S  # however slow the machine is
        )
        newcomers = [await TestClient.connect(worker) for _ in range(LOGINS_MANY)]
        turn.pace.until = time.monotonic() + 600.0
        for number, newcomer in enumerate(newcomers):
            newcomer.hello(f"new{number}")
        for counter in range(1, 6):
            honest.send(LOG, counter)
            await honest.acked(LOG, counter)
        assert not any(newcomer.received for newcomer in newcomers)
        turn.pace.until = 0.0
        worker.parts.wakeup.request()
        for newcomer in newcomers:
            await newcomer.expect(Welcome)


async def test_logins_do_not_pause_while_nobody_waits(tmp_path: Path) -> None:
    """Their pause ends when no process waits for a CPU; that of other heavy users does not."""
    waiting = True
    needs: dict[str, object] = {"nobody_waits": lambda: not waiting}
    async with Cluster(tmp_path, 1, needs=needs) as single:
        worker = single.workers[0]
        turn, schedule = worker.parts.turn, worker.parts.services.schedule
        worker.parts.services.budgets.admission.patience_s = DEADLINE_S
        newcomers = [await TestClient.connect(worker) for _ in range(LOGINS_MANY)]
        turn.pace.until = time.monotonic() + 600.0
        turn.pace.logins_until = math.inf
        for number, newcomer in enumerate(newcomers):
            newcomer.hello(f"new{number}")
        await until(lambda: schedule.waiting == LOGINS_MANY, "all to wait")
        waiting = False  # nothing else happens: the worker looks again by itself
        for newcomer in newcomers:
            await newcomer.expect(Welcome)


async def test_heavy_users_pause_even_if_nobody_waits(tmp_path: Path) -> None:
    """What was seen at one moment ends pauses of logins only: each of them happens once."""
    needs: dict[str, object] = {"nobody_waits": lambda: True}
    async with Cluster(tmp_path, 1, needs=needs) as single:
        worker = single.workers[0]
        turn = worker.parts.turn
        greedy = await TestClient.login(worker, "greedy")
        turn.pace.until = ends = time.monotonic() + 600.0
        greedy.send_envelopes(*[History(n, LOG, False, 0, 10) for n in range(1, 41)])
        await until(lambda: worker.parts.services.schedule.waiting, "it to wait")
        turn.run()
        assert turn.pace.until == ends
        turn.pace.logins_until = math.inf
        turn.run()
        assert turn.pace.until == 0.0


async def test_idle_connections_do_not_hold_up_logins(tmp_path: Path) -> None:
    """However many: nobody waits with heavy users because of clients that do nothing."""
    async with Cluster(tmp_path, 1) as single:
        worker = single.workers[0]
        schedule, connections = worker.parts.services.schedule, worker.parts.connections
        worker.parts.services.budgets.admission.patience_s = DEADLINE_S
        for _ in range(LOGINS_MANY):
            await TestClient.connect(worker)
        worker.parts.turn.pace.until = 0.0  # in case that the machine was busy
        assert not schedule.has_time_for_logins()
        assert connections.pause_s() == LOGINS_PAUSE_S
        worker.parts.services.budgets.admission.patience_s = 0.0
        assert schedule.has_time_for_logins()
        assert connections.pause_s() <= 0.0


async def test_a_connection_that_ends_before_its_turn_is_forgotten(tmp_path: Path) -> None:
    """Otherwise clients that connect and leave repeatedly would delay those that stay."""
    async with Cluster(tmp_path, 1) as single:
        worker = single.workers[0]
        connections, schedule = worker.parts.connections, worker.parts.services.schedule
        worker.parts.services.budgets.admission.patience_s = (
            DEADLINE_S  # however slow the machine is
        )
        newcomers = [await TestClient.connect(worker) for _ in range(LOGINS_MANY)]
        worker.parts.turn.pace.until = time.monotonic() + 600.0
        for number, newcomer in enumerate(newcomers):
            newcomer.hello(f"new{number}")
        await until(lambda: schedule.waiting == LOGINS_MANY, "all to wait")
        newcomers[0].transport.abort()

        def is_forgotten() -> bool:
            connections.check_deadlines(time.monotonic())
            return len(connections.sessions) < LOGINS_MANY

        await until(is_forgotten, "who left to be forgotten")
        worker.parts.turn.pace.until = 0.0
        worker.parts.wakeup.request()
        for newcomer in newcomers[1:]:
            await newcomer.expect(Welcome)


async def test_answers_of_the_key_agent_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They arrive many at a time, and each is half a millisecond of work."""
    answers, all_asked, asked = asyncio.Event(), asyncio.Event(), 0

    async def secret(_: LocalAgent, ciphertext: bytes, source: str) -> bytes:
        nonlocal asked
        asked += 1
        if asked > LOGINS_MANY:
            all_asked.set()
        await answers.wait()
        return server_key().unwrap(ciphertext)

    monkeypatch.setattr(LocalAgent, "secret", secret)
    async with Cluster(tmp_path, 1) as single:
        worker = single.workers[0]
        worker.parts.services.budgets.admission.patience_s = DEADLINE_S  # as above
        answers.set()
        honest = await TestClient.login(worker, "honest")
        answers.clear()
        coming = [asyncio.ensure_future(TestClient.connect(worker)) for _ in range(LOGINS_MANY)]
        await all_asked.wait()
        worker.parts.turn.pace.until = time.monotonic() + 600.0
        answers.set()
        for counter in range(1, 6):
            honest.send(LOG, counter)
            await honest.acked(LOG, counter)
        assert not any(one.done() for one in coming)
        worker.parts.turn.pace.until = 0.0
        worker.parts.wakeup.request()
        await asyncio.gather(*coming)


async def test_no_connection_is_accepted_during_a_pause(tmp_path: Path) -> None:
    """Accepting a connection is work as well. A few are accepted before each pause."""
    async with Cluster(tmp_path, 1) as single:
        connections = single.workers[0].parts.connections
        single.workers[0].parts.services.budgets.admission.patience_s = DEADLINE_S  # as above
        pace = single.workers[0].parts.turn.pace
        assert connections.pause_s() <= 0.0
        pace.until = time.monotonic() + 600.0
        assert connections.pause_s() > 0.0
        pace.until = 0.0
        for _ in range(LOGINS_MANY - 1):
            await TestClient.connect(single.workers[0])
        pace.until = 0.0  # in case that the machine was busy
        assert connections.pause_s() <= 0.0
        await TestClient.connect(single.workers[0])
        pace.until = 0.0
        assert connections.pause_s() == LOGINS_PAUSE_S
