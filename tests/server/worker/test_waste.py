"""Useless requests cost their sender waiting time, and other clients nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.aio import Client
from relay.limit_settings import Limits
from relay.server.metrics import Budget
from relay.server.worker.connection.budgets.source_usage import Source
from relay.server.worker.connection.budgets.token_bucket import WASTE_BURST_S, WASTE_OWED_S
from relay.server.worker.connection.budgets.waste import (
    CONTROL_UNITS,
    GAP_UNITS,
    REPEAT_UNITS,
    REQUEST_UNITS,
    THROTTLE_EXTRA_S,
    Waste,
    WasteState,
    of_request,
    of_send,
)
from relay.server.worker.connection.pauses import Pause
from relay.server.worker.refusals import Refusals
from relay.wire.cipher import RecordType
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Ack, Error, Join, Leave, Refused, Send
from relay.wire.identity import fingerprint
from tests.support.cluster import until
from tests.support.pair import server_key
from tests.support.standing_clock import StandingClock
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
UNKNOWN = msgpack.packb([99])
WINDOW = 1000


class Later:
    """Runs scheduled calls when the test asks for it."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, delay: float, callback: Callable[[], None]) -> object:
        self.due.append((delay, callback))
        return None

    def all(self) -> None:
        """Run all scheduled calls."""
        due, self.due = self.due, []
        for _, callback in due:
            callback()


# --- the rule -----------------------------------------------------------------------------------
class Somebody:
    """A ``ThrottledReader``."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.wasted: WasteState | None = None
        self.throttled = False

    def begin_throttle(self) -> None:
        assert not self.throttled
        self.throttled = True

    def end_throttle(self) -> None:
        assert self.throttled
        self.throttled = False


class Model:
    """A ``Waste`` whose time the test sets."""

    def __init__(self, per_s: int, per_source: int = 0) -> None:
        self.now = 100.0
        self.limits = msgspec.convert(
            {
                "loopback_exempt": False,
                "waste_per_s": per_s,
                "waste_per_s_per_source": per_source,
            },
            Limits,
        )
        self.later = Later()
        self.refusals = Refusals()
        self.waste = Waste(lambda: self.now, self.later, self.limits, self.refusals)
        self.source = Source("192.0.2.1", self.limits)

    def rest(self) -> float:
        """Wait for the end of the next pause."""
        ((delay, callback),) = self.later.due
        self.later.due.clear()
        self.now += delay
        callback()
        return delay


@given(
    rate=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 64)), max_size=200),
)
def test_nobody_wastes_more_than_burst_and_rate(rate: int, steps: list[tuple[float, int]]) -> None:
    model = Model(rate)
    one = Somebody(model.source)
    began, wasted = model.now, 0
    for pause, units in steps:
        model.now += pause
        if one.throttled:
            assert THROTTLE_EXTRA_S < model.rest() <= WASTE_OWED_S + THROTTLE_EXTRA_S + 1.01
        model.waste.charge(one, units)
        wasted += units
        assert wasted <= rate * (WASTE_BURST_S + model.now - began) + 64 + 1e-3


def test_useless_requests_within_the_burst_are_not_throttled() -> None:
    """A window of messages that are refused because one is missing, for example."""
    model = Model(Limits().waste_per_s)
    one = Somebody(model.source)
    for _ in range(WINDOW):
        model.waste.charge(one, of_send(ErrorCode.EXPECTED))
    assert not one.throttled
    assert one.wasted is not None
    model.waste.sweep(one, model.now)
    assert one.wasted is not None, "it is not forgotten at once"
    model.now += WASTE_BURST_S
    model.waste.sweep(one, model.now)
    assert one.wasted is None, "nothing is kept for a client that wastes nothing any more"


def test_answers_during_a_pause_make_it_longer_but_not_endless() -> None:
    model = Model(10)
    one = Somebody(model.source)
    for _ in range(WINDOW):
        model.waste.charge(one, REPEAT_UNITS)
    first = model.rest()
    assert one.throttled
    second = model.rest()
    assert not one.throttled
    assert first + second <= 2 * (THROTTLE_EXTRA_S + 1.01) + WASTE_OWED_S
    assert model.refusals.counts[Budget.WASTE] == 1, "it is one pause"


def test_a_source_is_throttled_only_where_it_makes_useless_requests() -> None:
    """Many connections get no more than a few, and others of the same source are not throttled."""
    model = Model(10, per_source=20)
    many = [Somebody(model.source) for _ in range(10)]
    neighbour, stranger = Somebody(model.source), Somebody(Source("192.0.2.9", model.limits))
    for _ in range(10):
        for one in many:
            if not one.throttled:
                model.waste.charge(one, REPEAT_UNITS)
        model.waste.charge(stranger, CONTROL_UNITS)
    assert all(one.throttled for one in many)
    assert not stranger.throttled
    assert neighbour.wasted is None
    for bucket in model.source.buckets():
        assert bucket is None or not bucket.full(model.now), "short connections get no new burst"


def test_refusals_that_are_the_servers_fault_cost_nothing() -> None:
    for code in (ErrorCode.BUSY, ErrorCode.UNAVAILABLE, ErrorCode.DAMAGED):
        assert of_request(code) == of_send(code) == 0
        assert of_send(code, direct=True) == GAP_UNITS, "but two homes worked for it"
    assert of_request(ErrorCode.NOT_A_MEMBER) == REQUEST_UNITS


def test_zero_is_no_bound() -> None:
    model = Model(0)
    one = Somebody(model.source)
    for _ in range(100 * WINDOW):
        model.waste.charge(one, REPEAT_UNITS)
    assert not one.throttled


def test_a_pause_does_not_keep_an_ended_connection_in_memory() -> None:
    model = Model(1)
    one = Somebody(model.source)
    model.waste.charge(one, 1000)
    assert one.throttled
    model.waste.forget(one)
    model.later.all()
    assert one.throttled, "it is not woken"
    assert one.wasted is None


# --- over sockets -------------------------------------------------------------------------------
def of(single: Cluster) -> tuple[Worker, Later]:
    """The only worker, where pauses end when the test asks for it."""
    worker = single.workers[0]
    later = worker.parts.services.budgets.waste.later = Later()
    return worker, later


def throttled(single: Cluster, name: str) -> bool:
    return bool(single.session(name).reading.pauses & Pause.WASTE)


async def let_all_go_on(later: Later, done: Callable[[], object]) -> int:
    """End pauses at once until a condition holds; return how many."""
    ended = 0
    while not done():
        await until(lambda: later.due or done(), "a rest, or the end")
        ended += len(later.due)
        later.all()
    return ended


async def test_garbage_costs_its_sender_waiting_and_nothing_is_lost(single: Cluster) -> None:
    """It is not read for a while, stays connected, and gets every answer in the end, in order."""
    worker, later = of(single)
    flood = await TestClient.login(worker, "flood")
    for _ in range(2):
        flood.transport.write(flood.sealed(UNKNOWN * 500))
    flood.send(LOG, 1)
    await until(lambda: throttled(single, "flood"), "the rest")
    errors = [e for e in flood.received if isinstance(e, Error)]
    assert len(errors) < 500
    honest = await TestClient.login(worker, "honest")
    await honest.join(LOG)
    honest.send(LOG, 1)
    await honest.acked(LOG, 1)
    assert throttled(single, "flood")
    assert len([e for e in flood.received if isinstance(e, Ack)]) == 0
    worker._status.beat()
    assert worker._status._row.get("refused", Budget.WASTE) == 1
    single.session("flood").reading.wasted.bucket = None  # type: ignore[union-attr]
    later.all()
    await flood.acked(LOG, 1)
    assert [e.arg for e in flood.received if isinstance(e, Error)] == [99] * 1000
    assert not throttled(single, "flood")


async def test_a_window_that_is_resent_after_a_reconnect_costs_nothing(single: Cluster) -> None:
    """But the same connection knows which answers it has."""
    worker, _ = of(single)
    first = await TestClient.login(worker, "sender")
    sends = [Send(LOG, n, 0, "", b"x") for n in range(1, WINDOW + 1)]
    first.send_envelopes(*sends)
    await first.acked(LOG, WINDOW)
    again = await TestClient.login(worker, "sender", secret=first.secret)
    again.send_envelopes(*sends)
    await again.acked(LOG, WINDOW)
    acks = [(e.counter, e.seq) for e in again.received if isinstance(e, Ack)]
    assert acks == [(n, n) for n in range(1, WINDOW + 1)]
    assert single.session("sender").reading.wasted is None
    again.send_envelopes(*random.Random(3).sample(sends, 200))
    await until(lambda: throttled(single, "sender"), "the rest")
    await again.expect(Ack, count=WINDOW + 200)  # they were under way


async def test_repeats_in_many_rooms_are_recognised(single: Cluster) -> None:
    """With several rooms in turn, nobody is mistaken for a repeater, and repeats are found."""
    worker, _ = of(single)
    client = await TestClient.login(worker, "sender")
    rooms = [f"room{n}" for n in range(5)]
    for counter in range(1, 40):
        client.send_envelopes(*[Send(room, counter, 0, "", b"x") for room in rooms])
    await client.expect(Ack, count=39 * len(rooms))
    assert single.session("sender").reading.wasted is None
    client.received.clear()
    client.send_envelopes(Send(rooms[2], 39, 0, "", b"x"))
    await client.expect(Ack)
    assert single.session("sender").reading.wasted is not None


async def test_only_floods_of_pings_are_throttled(single: Cluster) -> None:
    worker, later = of(single)
    client = await TestClient.login(worker, "client")
    cipher = client.connection._send
    for _ in range(100):
        client.transport.write(cipher.seal(RecordType.PING, b"x"))
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    assert not throttled(single, "client")
    client.transport.write(b"".join(cipher.seal(RecordType.PONG, b"") for _ in range(2000)))
    client.send(LOG, 2)
    await until(lambda: throttled(single, "client"), "the rest")
    single.session("client").reading.wasted.bucket = None  # type: ignore[union-attr]
    later.all()
    await client.acked(LOG, 2)


async def test_refused_requests_are_charged_and_granted_ones_are_not(single: Cluster) -> None:
    worker, _ = of(single)
    client = await TestClient.login(worker, "client")
    rooms = [f"room{n}" for n in range(300)]
    client.send_envelopes(*[Join(1, room, None, 0, 0) for room in rooms])
    client.send_envelopes(*[Leave(2, room) for room in rooms])
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    assert single.session("client").reading.wasted is None
    client.send_envelopes(*[Leave(3, room) for room in rooms])
    await until(lambda: throttled(single, "client"), "the rest")


async def test_direct_messages_that_are_refused_for_now_are_charged(single: Cluster) -> None:
    """Otherwise a sender above the limit could repeat its questions forever."""
    worker, _ = of(single)
    client = await TestClient.login(worker, "client")
    direct = worker.parts.home.queues.direct
    assert direct is not None
    direct.permissions._ask = lambda *_: False  # as if it had asked for too much
    client.send("@nobody", 1)
    assert (await client.expect(Refused)).code == ErrorCode.BUSY
    assert single.session("client").reading.wasted is not None


async def test_the_end_of_a_throttled_connection_is_noticed(single: Cluster) -> None:
    """A socket that is not read reports no end, so it is checked."""
    worker, _ = of(single)
    client = await TestClient.login(worker, "client")
    client.transport.write(client.sealed(UNKNOWN * 500))
    await until(lambda: throttled(single, "client"), "the rest")
    client.disconnect()
    await client.gone(worker)


@pytest.mark.parametrize("per_s", [0, 1])
async def test_it_is_a_setting(tmp_path: Path, per_s: int) -> None:
    async with Cluster(tmp_path, 1, limits=Limits(waste_per_s=per_s)) as single:
        worker, later = of(single)
        client = await TestClient.login(worker, "client")
        client.transport.write(client.sealed(UNKNOWN * 100))
        if per_s:
            await until(lambda: throttled(single, "client"), "the rest")
        else:
            await client.expect(Error, count=100)
            assert not later.due


async def test_messages_after_a_refused_one_cost_no_budget(tmp_path: Path) -> None:
    """They cannot be stored before it; a client that floods all the same is throttled."""
    clock = StandingClock()
    limits = Limits(loopback_exempt=False, send_bytes_per_s=1000, waste_per_s=1)
    async with Cluster(tmp_path, 1, limits=limits, needs={"clock": clock}) as single:
        worker, _ = of(single)
        flood = await TestClient.login(worker, "flood", source="127.0.0.9")
        flood.send(LOG, 1, 600, size=900)
        await until(lambda: throttled(single, "flood"), "the rest")
        refused = [e for e in flood.received if isinstance(e, Refused)]
        assert [e.counter for e in refused] == list(range(3, len(refused) + 3))
        assert {e.code for e in refused} == {ErrorCode.BUSY}
        assert len(refused) < 500
        assert worker.parts.services.budgets.refusals.counts[Budget.WASTE] == 1
        other = await TestClient.login(worker, "other")
        other.send(LOG, 1)
        await other.acked(LOG, 1)
        assert throttled(single, "flood"), "not before its time"


async def test_messages_after_a_gap_are_not_paid_for(tmp_path: Path) -> None:
    """When there is budget again, it is for the missing message."""
    clock = StandingClock()
    limits = Limits(loopback_exempt=False, send_bytes_per_s=1000)
    async with Cluster(tmp_path, 1, limits=limits, needs={"clock": clock}) as single:
        worker, _ = of(single)
        client = await TestClient.login(worker, "client", source="127.0.0.9")
        client.send(LOG, 1, 3, size=900)
        refused = await client.expect(Refused)
        assert (refused.counter, refused.code) == (3, ErrorCode.BUSY)
        clock.forward(2.0)
        client.send(LOG, 4, 30, size=900)
        behind = [await client.expect(Refused, count=n) for n in range(2, 29)]
        assert {(e.code, e.arg) for e in behind} == {(ErrorCode.EXPECTED, 3)}
        client.send(LOG, 3, 4, size=900)
        assert (await client.expect(Ack, count=4)).counter == 4


async def test_the_client_library_is_never_throttled(tmp_path: Path) -> None:
    """It waits the given time, and everything is stored, in order."""
    limits = Limits(loopback_exempt=False, send_bytes_per_s=100_000)
    clock = StandingClock()  # until a message is refused, however long that takes
    async with Cluster(tmp_path, 1, limits=limits, needs={"clock": clock}) as single:
        worker, later = of(single)
        address = f"relay://{fingerprint(server_key().spki)}@127.0.0.1:{worker.port}"
        async with Client(address, name="bulk") as client:

            async def send() -> list[int]:
                posts = [await client.post(LOG, "x" * 200) for _ in range(800)]
                return [one.seq for one in await asyncio.gather(*posts)]

            sending = asyncio.create_task(send())
            refused = worker.parts.services.budgets.refusals.counts
            await until(lambda: refused[Budget.SEND_BYTES] > 0, "a refusal")
            clock.resume()
            assert await sending == list(range(1, 801))
        assert worker.parts.services.budgets.refusals.counts[Budget.WASTE] == 0
        assert not later.due


async def test_a_connection_throttled_before_its_login_makes_room(single: Cluster) -> None:
    """It does not wait for others."""
    stranger = await TestClient.connect(single.workers[0])
    [session] = single.workers[0].parts.connections.sessions
    await until(lambda: session.silent, "the next move to be the stranger's")
    for _ in range(1000):
        stranger.connection.ping(b"", 0.0)
    stranger._write()
    await until(lambda: bool(session.reading.pauses & Pause.WASTE), "a rest")
    assert session.silent
