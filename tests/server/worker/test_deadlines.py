"""Which connections are checked each second, and which only when a deadline is due."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.server.worker.connection.stages import Stage
from relay.server.worker.due_times import DueTimes
from relay.wire.codes import CloseCode
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker


@example([("put", 0, 1.0), ("put", 0, 5.0), ("take", 0, 2.0), ("take", 0, 6.0)])
@example([("put", 0, 1.0), ("remove", 0, 0.0), ("put", 1, 1.0), ("take", 0, 1.0)])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 5), st.floats(0, 20)),
            st.tuples(st.just("remove"), st.integers(0, 5), st.just(0.0)),
            st.tuples(st.just("take"), st.just(0), st.floats(0, 20)),
        )
    )
)
def test_due_times_as_if_all_were_looked_at(steps: list[tuple[str, int, float]]) -> None:
    due: DueTimes[int] = DueTimes()
    model: dict[int, int] = {}
    for what, item, when in steps:
        if what == "put":
            due.put(item, when)
            model[item] = int(when)
        elif what == "remove":
            due.remove(item)
            model.pop(item, None)
        else:
            taken = due.take(when)
            assert sorted(taken) == sorted(one for one, second in model.items() if second <= when)
            assert [model[one] for one in taken] == sorted(model[one] for one in taken)
            model = {one: second for one, second in model.items() if second > when}
        assert len(due) == len(model)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    async with Cluster(tmp_path, 1) as cluster:
        worker = cluster.workers[0]
        worker.sweeps = False
        yield worker


async def test_the_quiet_are_left_alone_until_their_keepalive(worker: Worker) -> None:
    client = await TestClient.login(worker, "ann")
    connections, now = worker.parts.connections, time.monotonic()
    watched = worker.parts.connections.deadlines.watched
    connections.check_deadlines(now)
    assert not watched
    keepalive_s = worker.parts.services.timing.ping_after_s
    for times in (1, 2, 3):  # two pings, which it has no time to answer
        connections.check_deadlines(now + times * (keepalive_s + 1))
    await client.until(lambda: client.closed, "the end")
    assert client.closed is not None
    assert client.closed.code == CloseCode.IDLE
    await until(lambda: not connections.sessions, "the end here")
    assert not watched


async def test_who_does_not_log_in_is_watched(worker: Worker) -> None:
    client = await TestClient.connect(worker)
    connections = worker.parts.connections
    await until(lambda: [one.stage for one in connections.sessions] == [Stage.HELLO], "its keys")
    for _ in range(2):
        connections.check_deadlines(time.monotonic())
        assert worker.parts.connections.deadlines.watched == connections.sessions
    connections.check_deadlines(time.monotonic() + worker.parts.services.login_s + 1)
    await client.until(lambda: client.closed, "the end")
    assert client.closed is not None
    assert client.closed.code == CloseCode.LOGIN_TIMEOUT


async def test_who_is_told_to_go_is_watched(worker: Worker) -> None:
    """It does not answer the close; that is noticed long before its keepalive."""
    client = await TestClient.login(worker, "ann")
    connections = worker.parts.connections
    connections.check_deadlines(time.monotonic())
    client.transport.pause_reading()
    assert connections.send_away(1) == 1
    for later_s in (3, 6):  # for its close, and for its last bytes
        connections.check_deadlines(time.monotonic() + later_s)
    await until(lambda: not connections.sessions, "the end here")


async def test_who_has_wasted_something_is_watched_until_it_is_forgotten(worker: Worker) -> None:
    await TestClient.login(worker, "ann")
    connections = worker.parts.connections
    watched = worker.parts.connections.deadlines.watched
    connections.check_deadlines(time.monotonic())
    (session,) = connections.sessions
    session.reading.waste(1)
    connections.check_deadlines(time.monotonic())
    assert watched == {session}
    connections.check_deadlines(time.monotonic() + 1000)
    assert session.reading.wasted is None
    assert not watched


@pytest.mark.parametrize("how", ["deadline", "stop", "eviction"])
async def test_what_ends_before_the_loop_has_connected_it(worker: Worker, how: str) -> None:
    """On a busy machine some seconds pass between the acceptance and the connection."""
    connections = worker.parts.connections
    stream = connections.admit("127.0.0.1")
    assert stream is not None
    (session,) = connections.sessions
    if how == "deadline":
        for seconds in (100, 200):
            connections.check_deadlines(time.monotonic() + seconds)
    elif how == "stop":
        session.close(CloseCode.GOING_AWAY, 1)
    else:
        session.make_room()
    assert session.stream.closing
    near, far = socket.socketpair()
    far.setblocking(False)
    loop = asyncio.get_running_loop()
    stream.own(near)
    await loop.connect_accepted_socket(lambda: stream, near)
    with far:
        assert await loop.sock_recv(far, 100) == b""
    await until(lambda: not connections.sessions, "the end")
