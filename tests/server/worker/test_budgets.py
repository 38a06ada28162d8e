"""What one connection, one source and all together may use of a worker, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay import limits
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.client.aio import Client
from relay.limit_settings import Limits
from relay.server.metrics import Budget
from relay.server.worker.connection.session import Session
from relay.server.worker.process.storage import disk_reserve
from relay.wire import connection as wire
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Ack, Done, Error, Join, Members, Refused, Room, Send, Welcome, Who
from relay.wire.frames import FrameType, header
from relay.wire.identity import fingerprint
from relay.wire.packing import pack
from tests.support.cluster import DEADLINE_S, until
from tests.support.devices import hello, register
from tests.support.pair import server_key
from tests.support.standing_clock import StandingClock
from tests.support.workers import Cluster, LocalAgent, TestClient, Worker

HELLO_BYTES = 4096


@asynccontextmanager
async def one_worker(
    path: Path,
    *,
    max_connections: int = 1000,
    needs: dict[str, object] | None = None,
    **given: int | bool,
) -> AsyncIterator[Worker]:
    """A worker with the given settings of the section ``limits``.

    Tests that count what a rate allows pass ``needs`` with a clock that stands still.
    """
    settings = msgspec.convert({"loopback_exempt": False} | given, Limits)
    async with Cluster(
        path, 1, max_connections=max_connections, limits=settings, needs=needs
    ) as cluster:
        yield cluster.workers[0]


def no_time_passes() -> dict[str, object]:
    """For ``needs``: a clock that stands still."""
    return {"clock": StandingClock()}


class Visitor:
    """A socket that reads ServerHello, and then does what its test needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._ended = asyncio.ensure_future(self._read(reader))

    @classmethod
    async def come(cls, worker: Worker, source: str, first_bytes: bytes = b"") -> Visitor:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", worker.port, local_addr=(source, 0)
        )
        writer.write(first_bytes)
        return cls(reader, writer)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass

    @property
    def gone(self) -> bool:
        """True once the server has closed it."""
        return self._ended.done()

    def leave(self) -> None:
        self.writer.transport.abort()


def count(worker: Worker, budget: Budget) -> int:
    """Return what a budget has refused, as the metrics will have it."""
    worker._status.beat()
    return worker._status._row.get("refused", budget)


def held(visitors: list[Visitor]) -> int:
    return sum(not visitor.gone for visitor in visitors)


def reached(caplog: pytest.LogCaptureFixture, budget: Budget) -> list[dict[str, Any]]:
    """Return the log lines about a budget."""
    return [
        vars(record)
        for record in caplog.records
        if record.getMessage() == "budget_reached" and vars(record)["budget"] == budget
    ]


async def overloaded(client: TestClient) -> None:
    """Wait until the client is closed with OVERLOADED, and check the retry time."""
    await client.until(lambda: client.closed, "the close record")
    assert client.closed is not None
    assert (client.closed.code, client.closed.retry_after_s) == (CloseCode.OVERLOADED, 5)


async def talk(worker: Worker, name: str, source: str = "127.0.0.1") -> TestClient:
    """An honest client: it logs in, joins, and its message is acknowledged."""
    client = await TestClient.login(worker, name, source=source)
    await client.join("lobby")
    client.send("lobby", 1)
    await client.acked("lobby", 1)
    return client


HALF_KEY = header(FrameType.CLIENT_KEY, 1500) + bytes(700)


# --- who is not logged in ---------------------------------------------------------------------
@pytest.mark.parametrize("first_bytes", [b"", HALF_KEY], ids=["silent", "half a handshake"])
async def test_one_source_has_few_slots_before_login(
    tmp_path: Path, first_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A new connection replaces the oldest silent one of its source; others are not affected."""
    async with one_worker(tmp_path, unauthenticated_per_source=4) as worker:
        other = await Visitor.come(worker, "127.0.0.8", first_bytes)
        visitors = [await Visitor.come(worker, "127.0.0.9", first_bytes) for _ in range(20)]
        await until(lambda: held(visitors) == 4, "the oldest to go")
        assert not any(visitor.gone for visitor in (*visitors[-4:], other))
        assert count(worker, Budget.UNAUTHENTICATED_PER_SOURCE) == 16
        [line] = reached(caplog, Budget.UNAUTHENTICATED_PER_SOURCE)
        assert line["source"] == "127.0.0.9"
        await talk(worker, "alice", "127.0.0.9")
        await talk(worker, "bob")
        for visitor in (*visitors, other):
            visitor.leave()


@pytest.mark.parametrize("first_bytes", [b"", HALF_KEY], ids=["silent", "half a handshake"])
async def test_many_sources_share_few_slots_before_login(
    tmp_path: Path, first_bytes: bytes
) -> None:
    """Silent connections take all slots, and every client that is not silent gets in."""
    async with one_worker(tmp_path, max_connections=20, unauthenticated=16) as worker:
        visitors = [await Visitor.come(worker, f"127.0.1.{n}", first_bytes) for n in range(1, 61)]
        await until(lambda: held(visitors) == 16, "the oldest to go")
        for n in range(10):
            await talk(worker, f"alice{n}")
            assert held(visitors) >= 15 - n, "each new client took the slot of a silent one"
        assert worker.parts.services.budgets.admission.authenticated == 10
        assert count(worker, Budget.UNAUTHENTICATED) >= 44
        for visitor in visitors:
            visitor.leave()
        await until(lambda: worker._acceptor.count == 10, "the visitors' end")
        assert worker.parts.services.budgets.admission.unauthenticated == 0


async def test_who_never_says_hello_is_told_when_it_makes_room(tmp_path: Path) -> None:
    """After a complete handshake it gets a close record; it was the client that had to continue."""
    async with one_worker(tmp_path, unauthenticated=16) as worker:
        idle = [await TestClient.connect(worker, f"127.0.1.{n}") for n in range(1, 17)]
        await talk(worker, "alice")
        await overloaded(idle[0])
        assert not any(client.closed for client in idle[1:])


async def test_who_waits_for_the_server_makes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow key agent ends no waiting connection; new ones wait in the backlog."""
    free = asyncio.Event()
    secret = LocalAgent.secret

    async def slow(self: LocalAgent, ciphertext: bytes, source: str) -> bytes:
        await free.wait()
        return await secret(self, ciphertext, source)

    monkeypatch.setattr(LocalAgent, "secret", slow)
    async with one_worker(tmp_path, unauthenticated=16) as worker:
        sessions = worker.parts.connections.sessions

        def waiting_for_the_agent() -> set[str]:
            return {session.peer for session in sessions if session.channel.unwrapping}

        coming = [
            asyncio.ensure_future(TestClient.connect(worker, f"127.0.1.{n}")) for n in range(1, 31)
        ]
        await until(lambda: len(waiting_for_the_agent()) == 16, "all slots to wait for the agent")
        await until(lambda: len(worker.clients) == 30, "the others to be in the backlog")
        assert len(sessions) == 16
        assert not any(worker.parts.services.budgets.refusals.counts.values())
        # When those give up, the others come in.
        first = waiting_for_the_agent()
        for client in worker.clients:
            if client.transport.get_extra_info("sockname")[0] in first:
                client.transport.abort()
        await until(
            lambda: len(waiting_for_the_agent() - first) == 14, "the others to wait for the agent"
        )
        free.set()
        ended = await asyncio.gather(*coming, return_exceptions=True)
        assert sum(isinstance(one, TestClient) for one in ended) == 14


# --- who is logged in -------------------------------------------------------------------------
async def test_a_full_worker_answers_overloaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Idle logins hold all slots: every other client gets OVERLOADED with a time; it is logged
    once.
    """
    async with one_worker(tmp_path, max_connections=20) as worker:
        idle = [await TestClient.login(worker, f"idle{n}", source="127.0.0.9") for n in range(20)]
        for n in range(5):
            late = await TestClient.connect(worker)
            late.hello(f"late{n}")
            await overloaded(late)
        assert count(worker, Budget.CONNECTIONS) == 5
        assert len(reached(caplog, Budget.CONNECTIONS)) == 1
        # The name was released; and a reconnecting instance takes the slot of its old connection.
        again = await TestClient.login(worker, "idle7", secret=idle[7].secret, source="127.0.0.9")
        await idle[7].until(lambda: idle[7].closed, "the ghost's end")
        assert worker.parts.services.budgets.admission.authenticated == 20
        again.transport.abort()
        await until(
            lambda: worker.parts.services.budgets.admission.authenticated == 19, "a free slot"
        )
        await talk(worker, "late0")


async def test_one_source_has_a_share_of_the_logins(tmp_path: Path) -> None:
    async with one_worker(tmp_path, connections_per_source=3) as worker:
        clients = [await TestClient.login(worker, f"user{n}", source="127.0.0.9") for n in range(3)]
        late = await TestClient.connect(worker, "127.0.0.9")
        late.hello("late")
        await overloaded(late)
        assert count(worker, Budget.CONNECTIONS_PER_SOURCE) == 1
        await talk(worker, "other")
        clients[0].transport.abort()
        await until(
            lambda: worker.parts.services.budgets.admission.authenticated == 3, "a slot to be free"
        )
        await TestClient.login(worker, "late", source="127.0.0.9")


async def test_the_client_comes_again_when_there_is_room(tmp_path: Path) -> None:
    needs: dict[str, object] = {"overloaded_retry_s": 0}
    async with one_worker(tmp_path, max_connections=1, needs=needs) as worker:
        idle = await TestClient.login(worker, "idle")
        client = Client(address(worker), name="alice")
        connecting = asyncio.ensure_future(client.connect())
        await until(lambda: count(worker, Budget.CONNECTIONS), "a refusal")
        idle.transport.abort()
        await connecting
        await client.send("lobby", "hello")
        await client.close()


def address(worker: Worker) -> str:
    return f"relay://{fingerprint(server_key().spki)}@127.0.0.1:{worker.port}"


# --- what is sent -----------------------------------------------------------------------------
async def test_rooms_are_begun_at_a_rate(tmp_path: Path) -> None:
    """A flood of new rooms is refused with a time; existing rooms can still be written to."""
    async with one_worker(
        tmp_path, rooms_per_minute=5, rooms_per_minute_per_source=8, needs=no_time_passes()
    ) as worker:
        other = await talk(worker, "other")
        flood = await TestClient.login(worker, "flood", source="127.0.0.9")
        flood.send_envelopes(*(Send(f"room{n}", 1, 0, "", b"!") for n in range(60)))
        await answered(flood, 60)
        assert len(of(flood, Ack)) == 5
        assert {refused.code for refused in of(flood, Refused)} == {ErrorCode.BUSY}
        assert all(0 < refused.arg <= 12_001 for refused in of(flood, Refused))
        assert count(worker, Budget.ROOMS) == 55
        # It may send to rooms that it or others have created.
        flood.send_envelopes(Send("room0", 2, 0, "", b"!"), Send("lobby", 1, 0, "", b"!"))
        await flood.until(lambda: len(of(flood, Ack)) == 7, "both to be stored")

        more = await TestClient.login(worker, "more", source="127.0.0.9")
        more.send_envelopes(*(Send(f"more{n}", 1, 0, "", b"!") for n in range(20)))
        await answered(more, 20)
        assert len(of(more, Ack)) == 3, "eight were created by the source"
        assert count(worker, Budget.ROOMS_PER_SOURCE) == 17
        other.send("elsewhere", 1)
        await other.acked("elsewhere", 1)


async def test_the_sum_over_all_workers(tmp_path: Path) -> None:
    """Each worker counts separately: an account has as many budgets as there are workers, for any
    number of connections.
    """
    given = {"rooms_per_minute": 60, "rooms_per_minute_per_user": 5, "loopback_exempt": False}
    settings = msgspec.convert(given, Limits)
    needs = no_time_passes()
    async with Cluster(tmp_path, 2, limits=settings, needs=needs, rights=True) as cluster:
        clients = [
            await TestClient.login(worker, "ann", source=f"127.0.0.{n}")
            for worker in cluster.workers.values()
            for n in (7, 8, 9)
        ]
        for number, client in enumerate(clients):
            client.send_envelopes(*(Send(f"room{number}-{n}", 1, 0, "", b"!") for n in range(10)))
        for client in clients:
            await answered(client, 10)
        assert sum(len(of(client, Ack)) for client in clients) == 2 * 5


async def test_bytes_are_sent_at_a_rate(tmp_path: Path) -> None:
    """A flood is refused with a time, by connection and by source; other sources are not."""
    async with one_worker(
        tmp_path,
        send_bytes_per_s=50_000,
        send_bytes_per_s_per_source=60_500,
        needs=no_time_passes(),
    ) as worker:
        clients = [await TestClient.login(worker, f"flood{n}", source="127.0.0.9") for n in (1, 2)]
        for client in clients:
            for counter in range(1, 11):
                client.send(f"room-{client.name}", counter, size=30_000)
            await answered(client, 10)
        # 100,000 bytes of burst, which the last message may exceed; the source has 121,000, and
        # what exceeds that is a debt of seconds.
        assert [len(of(client, Ack)) for client in clients] == [4, 1]
        assert {one.code for client in clients for one in of(client, Refused)} <= {
            ErrorCode.BUSY,
            ErrorCode.EXPECTED,
        }
        busy = [one for one in of(clients[0], Refused) if one.code == ErrorCode.BUSY]
        assert all(0 < one.arg <= 60_000 for one in busy)
        assert count(worker, Budget.SEND_BYTES) == 6
        of_source = [one for one in of(clients[1], Refused) if one.code == ErrorCode.BUSY]
        assert count(worker, Budget.SEND_BYTES_PER_SOURCE) == len(of_source) > 0
        await talk(worker, "other")
        # A new connection begins without any of the source's burst.
        for client in clients:
            client.transport.abort()
        again = await TestClient.login(worker, "again", source="127.0.0.9")
        again.send("lobby", 1, size=30_000)
        refused = await again.expect(Refused)
        assert refused.code == ErrorCode.BUSY


@pytest.mark.parametrize("per_record", [1, 7, 60])
async def test_the_messages_of_a_record_pay_one_by_one(tmp_path: Path, per_record: int) -> None:
    """Those that the tokens are enough for are stored, however many came at once."""
    async with one_worker(tmp_path, send_bytes_per_s=5_000, needs=no_time_passes()) as worker:
        client = await TestClient.login(worker, "flood")
        sends = [Send("lobby", counter, 0, "", bytes(300)) for counter in range(1, 61)]
        for start in range(0, 60, per_record):
            client.send_envelopes(*sends[start : start + per_record])
        await answered(client, 60)
        # Each costs 500 of a burst of 10,000.
        assert [one.counter for one in of(client, Ack)] == list(range(1, 21))
        refused = {one.counter: one.code for one in of(client, Refused)}
        assert sorted(refused) == list(range(21, 61))
        assert refused[21] == ErrorCode.BUSY


async def test_an_account_has_a_share_of_the_logins(tmp_path: Path) -> None:
    """Whatever addresses its devices and programs use."""
    async with one_worker(tmp_path, connections_per_user=2) as worker:
        own = [
            await TestClient.login(worker, "ann", source=f"127.0.0.{n}", secret=bytes([n]) * 16)
            for n in (7, 8)
        ]
        late = await TestClient.connect(worker, "127.0.0.9")
        late.hello("ann", secret=bytes([9]) * 16)
        await overloaded(late)
        assert count(worker, Budget.CONNECTIONS_PER_USER) == 1
        await talk(worker, "other")
        own[0].transport.abort()
        await until(lambda: len(worker.parts.connections.sessions) == 2, "one to be gone")
        await TestClient.login(worker, "ann", source="127.0.0.9", secret=bytes([9]) * 16)


async def test_the_client_asks_at_the_rate_that_it_is_given(tmp_path: Path) -> None:
    """It waits the given time, and every request is answered; other accounts do not wait."""
    clock = StandingClock()  # until a request is refused, however long that takes
    async with (
        one_worker(tmp_path, work_per_s_per_user=50, needs={"clock": clock}) as worker,
        Client(address(worker), name="alice") as client,
    ):
        await client.send("lobby", "hello")

        async def ask() -> list[list[str]]:
            return [[room.name for room in await client.rooms()] for _ in range(9)]

        asking = asyncio.create_task(ask())
        await until(lambda: count(worker, Budget.WORK_PER_USER), "a refusal")
        assert not asking.done()
        clock.resume()
        assert await asking == [["lobby"]] * 9
        other = await TestClient.login(worker, "other", source="127.0.0.9")
        await other.join("lobby")


@pytest.mark.parametrize("request_of", [requests.Mine(""), requests.List(3, "")])
async def test_a_list_costs_by_the_rooms_that_were_looked_at(
    tmp_path: Path, request_of: requests.Mine | requests.List
) -> None:
    """The next request waits for the actual cost of the previous one."""
    settings = msgspec.convert({"loopback_exempt": False, "work_per_s_per_user": 100}, Limits)
    needs = no_time_passes()
    async with Cluster(tmp_path, 1, limits=settings, needs=needs, rights=True) as cluster:
        ann = await TestClient.login(cluster.workers[0], "ann")
        every = (f"room-{n}" for n in itertools.count())
        for room in itertools.islice((one for one in every if partition_of(one) == 3), 25):
            ann.send(room, 1)
            await ann.acked(room, 1)
        # By their number they would cost 200 units, of the burst of 500.
        for number in range(7, 107):
            ann.send_envelopes(Room(number, "", requests.pack(request_of, 0)))
        await ann.expect(Done, lambda e: e.request == 7)
        error = await ann.expect(Error)
        assert (error.code, error.arg > 0) == (ErrorCode.BUSY, True)


async def test_a_source_registers_so_many_names(tmp_path: Path) -> None:
    """A name is never given out again. Whoever has one logs in."""
    async with one_worker(
        tmp_path, accounts_per_hour_per_source=2, needs=no_time_passes()
    ) as worker:
        for name in ("ann", "bob"):
            await TestClient.login(worker, name)
        client = await TestClient.connect(worker)
        client.send_envelopes(register(client.connection, client.spki, "carol"))
        await client.ended()
        assert client.closed is not None
        assert client.closed.code == CloseCode.OVERLOADED
        assert client.closed.retry_after_s > 0
        assert count(worker, Budget.ACCOUNTS_PER_SOURCE) == 1
        ann = await TestClient.connect(worker)
        ann.send_envelopes(hello(ann.connection, ann.spki, "ann", b"s" * 16))
        await ann.expect(Welcome)


async def test_an_account_owns_so_many_rooms(tmp_path: Path) -> None:
    """Counted over all partitions; by a first message and by a request. A deletion frees a
    place.
    """
    settings = msgspec.convert({"loopback_exempt": False, "rooms_per_user": 3}, Limits)
    async with Cluster(tmp_path, 2, limits=settings, rights=True) as cluster:
        phone = await TestClient.login(cluster.workers[0], "ann")
        desk = await TestClient.login(cluster.workers[1], "ann", secret=b"desk" * 4)
        for client, room in ((phone, "one"), (desk, "two"), (phone, "three")):
            client.send(room, 1)
            await client.acked(room, 1)
        desk.send("four", 1)
        refused = await desk.expect(Refused)
        assert (refused.code, refused.arg) == (ErrorCode.LIMIT, 3)
        phone.send_envelopes(Room(7, "four", requests.pack(requests.Create(), 0)))
        error = await phone.expect(Error, lambda e: e.request == 7)
        assert (error.code, error.arg) == (ErrorCode.LIMIT, 3)
        assert count(cluster.workers[0], Budget.ROOMS_OWNED) == 1
        phone.send_envelopes(Room(8, "one", requests.pack(requests.Delete(""), 2**62)))
        await phone.expect(Done, lambda e: e.request == 8)
        phone.send("four", 1)
        await phone.acked("four", 1)


def owned(cluster: Cluster) -> int:
    (services,) = [worker.parts.services for worker in cluster.workers.values()]
    sessions = cluster.workers[0].parts.connections.sessions
    (actor,) = {session.actor for session in sessions}
    return services.rooms_owned(actor)


async def test_a_burst_creates_no_more_rooms_than_an_account_may_own(tmp_path: Path) -> None:
    """First messages and requests of two connections, before any of them is stored: those that are
    refused are sent again, and in the end there are as many as there may be.
    """
    given = {
        "loopback_exempt": False, "rooms_per_user": 3, "rooms_per_minute": 0,
        "rooms_per_minute_per_user": 0, "rooms_per_minute_per_source": 0,
    }  # fmt: skip
    settings = msgspec.convert(given, Limits)
    async with Cluster(tmp_path, 1, limits=settings, rights=True) as cluster:
        phone = await TestClient.login(cluster.workers[0], "ann")
        desk = await TestClient.login(cluster.workers[0], "ann", secret=b"desk" * 4)
        create = requests.pack(requests.Create(), 0)
        phone.send_envelopes(
            *(Send(f"first-{n}", 1, 0, "", b"hi") for n in range(6)), Room(7, "asked", create)
        )
        desk.send_envelopes(*(Send(f"other-{n}", 1, 0, "", b"hi") for n in range(6)))
        await phone.expect(Error, lambda e: e.request == 7)

        def of(kind: type[Ack | Refused]) -> list[Any]:
            return [e for client in (phone, desk) for e in client.received if isinstance(e, kind)]

        await until(lambda: len(of(Ack)) + len(of(Refused)) == 12, "all answers")
        assert {one.code for one in of(Refused)} <= {ErrorCode.BUSY, ErrorCode.LIMIT}
        assert len(of(Ack)) == 1, "near the limit one after the other"
        for number, (client, room) in enumerate([(phone, "first-1"), (desk, "other-1")], 2):
            await until(lambda n=number: owned(cluster) == n - 1, "what was acknowledged")  # type: ignore[misc]
            client.send(room, 1)
            await until(lambda n=number: len(of(Ack)) == n, "an acknowledgement")  # type: ignore[misc]
        phone.send("first-5", 1)
        await until(lambda: any(e.code == ErrorCode.LIMIT for e in of(Refused)), "the limit")


async def test_a_room_is_not_created_again_and_again(tmp_path: Path) -> None:
    """Each creation counts, whether or not there was a room of that name before."""
    settings = msgspec.convert({"loopback_exempt": False, "rooms_per_minute": 2}, Limits)
    async with Cluster(
        tmp_path, 1, limits=settings, rights=True, needs=no_time_passes()
    ) as cluster:
        ann = await TestClient.login(cluster.workers[0], "ann")
        again: list[requests.Request] = [requests.Create(), requests.Delete("")] * 2
        for number, request in enumerate(again, 1):
            ann.send_envelopes(Room(number, "one", requests.pack(request, 2**62)))
            await ann.expect(Done)
            ann.received.clear()
        ann.send_envelopes(Room(5, "one", requests.pack(requests.Create(), 0)))
        error = await ann.expect(Error, lambda e: e.request == 5)
        assert (error.code, error.arg > 0) == (ErrorCode.BUSY, True)
        assert count(cluster.workers[0], Budget.ROOMS) == 1


async def test_registrations_of_one_source(tmp_path: Path) -> None:
    """Each is a commit: above the rate the client gets a time to retry, and other clients are not
    delayed.
    """
    async with one_worker(tmp_path, work_per_s_per_source=12, needs=no_time_passes()) as worker:
        for n in range(3):
            visitor = await TestClient.connect(worker, "127.0.0.9")
            visitor.send_envelopes(register(visitor.connection, visitor.spki, f"user{n}"))
            await visitor.expect(Done)
        visitor = await TestClient.connect(worker, "127.0.0.9")
        visitor.send_envelopes(register(visitor.connection, visitor.spki, "late"))
        await visitor.until(lambda: visitor.closed, "the close record")
        assert visitor.closed is not None
        assert visitor.closed.code == CloseCode.OVERLOADED
        assert visitor.closed.retry_after_s > 0
        assert count(worker, Budget.WORK_PER_SOURCE) == 1
        await talk(worker, "other")


async def test_the_client_sends_at_the_rate_that_it_is_given(tmp_path: Path) -> None:
    """It waits the given time, and everything is stored once and in order."""
    clock = StandingClock()  # until a message is refused, however long that takes
    async with one_worker(tmp_path, send_bytes_per_s=60_000, needs={"clock": clock}) as worker:
        async with Client(address(worker), name="alice") as client:
            posts = [await client.post("lobby", bytes([n]) * 30_000) for n in range(12)]
            await until(lambda: count(worker, Budget.SEND_BYTES), "a refusal")
            assert not all(one.done() for one in posts)
            clock.resume()
            stored = await asyncio.gather(*posts)
        assert [one.seq for one in stored] == list(range(1, 13))


async def test_loopback_is_exempt_by_default(tmp_path: Path) -> None:
    async with one_worker(
        tmp_path,
        loopback_exempt=True,
        connections_per_source=1,
        unauthenticated_per_source=1,
        joins_per_source=1,
        send_bytes_per_s=1000,
        send_bytes_per_s_per_source=1000,
        rooms_per_minute=1,
        rooms_per_minute_per_source=1,
    ) as worker:
        idle = [await TestClient.connect(worker) for _ in range(3)]
        clients = [await TestClient.login(worker, f"user{n}") for n in range(3)]
        for client in clients:
            for n in range(3):
                await client.join(f"{client.name}-{n}")
                client.send(f"{client.name}-{n}", 1, size=30_000)
                await client.acked(f"{client.name}-{n}", 1)
        assert not any(client.closed for client in (*idle, *clients))
        assert not any(worker.parts.services.budgets.refusals.counts.values())


def of(client: TestClient, kind: type) -> list[Any]:
    return [envelope for envelope in client.received if isinstance(envelope, kind)]


async def answered(client: TestClient, sends: int) -> None:
    """Wait until all sends are acknowledged or refused."""
    await client.until(
        lambda: len(of(client, Ack)) + len(of(client, Refused)) == sends, "all answers"
    )


# --- what is held -----------------------------------------------------------------------------
async def test_joins_are_counted_by_source(tmp_path: Path) -> None:
    """A place is free again after a leave or the end of the connection."""
    async with one_worker(tmp_path, joins_per_source=4) as worker:
        clients = [await TestClient.login(worker, f"user{n}", source="127.0.0.9") for n in (1, 2)]
        await clients[0].join("room-a")
        await clients[0].join("room-b")
        await clients[0].join("room-c")
        await clients[1].join("room-a")
        clients[1].send_envelopes(Join(7, "room-b", None, 0, 0))
        error = await clients[1].expect(Error)
        assert (error.request, error.code, error.arg) == (7, ErrorCode.LIMIT, 4)
        assert count(worker, Budget.JOINS_PER_SOURCE) == 1
        assert worker._status._row.get("joins") == 4
        clients[0].transport.abort()
        await until(lambda: worker.parts.services.budgets.sources.joins == 1, "its joins to end")
        for log in ("room-b", "room-c", "room-d"):
            await clients[1].join(log)
        other = await TestClient.login(worker, "other")
        await other.join("room-a")


async def test_a_record_before_hello_is_small(tmp_path: Path) -> None:
    """Its header alone ends the connection: none of it is buffered."""
    async with one_worker(tmp_path) as worker:
        client = await TestClient.connect(worker, "127.0.0.9")
        client.transport.write(header(FrameType.RECORD, HELLO_BYTES + limits.TAG_BYTES + 1))
        await client.until(lambda: client.closed, "the close record")
        assert client.closed is not None
        assert client.closed.code == CloseCode.PROTOCOL
        # One of the permitted size is waited for.
        client = await TestClient.connect(worker, "127.0.0.9")
        client.transport.write(header(FrameType.RECORD, HELLO_BYTES + limits.TAG_BYTES))
        client.transport.write(bytes(4000))
        received = worker.parts.services.budgets.received
        await until(lambda: received.total == 4004, "half a record")
        client.transport.abort()
        await until(lambda: received.total == 0, "nothing to be held")


async def test_the_largest_hello_is_taken(tmp_path: Path) -> None:
    async with one_worker(tmp_path) as worker:
        client = await TestClient.connect(worker, "127.0.0.9")
        name, agent = "n" * 32, "a" * limits.AGENT_CHARS_MAX
        client.send_envelopes(
            register(client.connection, client.spki, name),
            hello(client.connection, client.spki, name, bytes(16), "\U0001f600" * 64, agent),
        )
        await client.expect(Welcome)


async def test_what_waits_unprocessed_is_not_counted_for_ever(tmp_path: Path) -> None:
    """Connections are reset while their records wait to be processed."""
    async with one_worker(tmp_path) as worker:
        received = worker.parts.services.budgets.received
        flood = [await TestClient.login(worker, f"flood{n}") for n in range(20)]
        garbage = b"".join(pack(Who(1, "lobby")) for _ in range(1000))
        for client in flood:
            client.transport.write(b"".join(client.sealed(garbage) for _ in range(10)))
        async with asyncio.timeout(DEADLINE_S):
            while not received.total:  # after each iteration of the worker's loop
                await asyncio.sleep(0)
        for client in flood:
            client.transport.abort()
        await until(lambda: not worker.parts.connections.sessions, "all to be gone")
        assert received.total == 0
        # From another address: how many of the first one's requests were processed depends on the
        # machine.
        await talk(worker, "alice", source="127.0.0.9")
        assert received.total == 0


async def test_what_is_held_unprocessed_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Incomplete records of many connections: those that hold most are closed with an error."""
    async with one_worker(tmp_path, received_mib=1) as worker:
        honest = await talk(worker, "honest")
        received = worker.parts.services.budgets.received
        holders = [
            await TestClient.login(worker, f"half{n}", source="127.0.0.9") for n in range(40)
        ]
        for client in holders:
            client.transport.write(client.sealed(bytes(60_000))[:50_000])
        await until(lambda: sum(bool(client.closed) for client in holders) == 20, "half to go")
        assert received.total == 20 * 50_000 <= 1 << 20
        closed = [client.closed for client in holders if client.closed]
        assert {(one.code, one.retry_after_s) for one in closed} == {(CloseCode.OVERLOADED, 5)}
        assert count(worker, Budget.RECEIVED) == 20
        assert len(reached(caplog, Budget.RECEIVED)) == 1
        honest.send("lobby", 2)
        await honest.acked("lobby", 2)
        for client in holders:
            client.transport.abort()
        await until(lambda: received.total == 0, "nothing to be held")


# --- the disk ---------------------------------------------------------------------------------
async def test_a_reserve_of_disk_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is stored below the reserve, reading goes on, and it recovers by itself."""
    disk = disk_reserve.Disk(1 << 40, 1 << 40)
    monkeypatch.setattr(disk_reserve, "measure", lambda _: disk)
    async with one_worker(tmp_path, disk_reserve_mib=256) as worker:
        client = await talk(worker, "alice")
        reader = await TestClient.login(worker, "reader")
        disk = disk_reserve.Disk(255 << 20, 1 << 40)
        worker._sweep()
        client.send("lobby", 2, 4)
        await client.until(lambda: len(of(client, Refused)) == 3, "refusals")
        assert {(one.code, one.arg) for one in of(client, Refused)} == {
            (ErrorCode.UNAVAILABLE, limits.RETRY_MS)
        }
        assert count(worker, Budget.DISK_RESERVE) == 3
        again = await TestClient.connect(worker)
        again.send_envelopes(hello(again.connection, again.spki, "reader", bytes(16)))
        await again.expect(Welcome)
        newcomer = await TestClient.connect(worker)
        newcomer.hello("newcomer")
        await newcomer.ended()
        assert newcomer.closed is not None
        assert newcomer.closed.code == CloseCode.LOGIN_UNAVAILABLE
        await reader.join("lobby", last=10)
        assert reader.seqs("lobby") == [1]
        reader.send_envelopes(Who(9, "lobby"))
        await reader.expect(Members)
        disk = disk_reserve.Disk(300 << 20, 1 << 40)
        client.received.clear()
        worker._sweep()
        client.send("lobby", 2, 4)
        await client.acked("lobby", 4)
        events = [record.getMessage() for record in caplog.records]
        assert events.count("disk_reserve_reached") == 1
        assert events.count("disk_reserve_free_again") == 1
        assert "partition_unavailable" not in events


# --- all together -----------------------------------------------------------------------------
async def test_sources_are_forgotten(tmp_path: Path) -> None:
    """A source that has spent nothing is not kept; after a flood the worker is as before."""
    async with one_worker(tmp_path, rooms_per_minute_per_source=1000) as worker:
        sources = worker.parts.services.budgets.sources
        visitors = [await Visitor.come(worker, f"127.0.2.{n}") for n in range(1, 31)]
        await until(lambda: len(sources) == 30, "all to be known")
        for visitor in visitors:
            visitor.leave()
        await until(lambda: len(sources) == 0, "all to be forgotten")
        assert worker.parts.services.budgets.admission.unauthenticated == 0
        assert worker._acceptor.count == 0


async def test_who_is_gone_leaves_nothing_for_the_collector(tmp_path: Path) -> None:
    """Otherwise short connections could hold, until a collection, many times the memory of all
    slots.
    """

    def alive() -> int:
        return sum(isinstance(each, Session | wire.Connection) for each in gc.get_objects())

    async with one_worker(tmp_path) as worker:
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for n in range(5):
                for first_bytes in (b"", HALF_KEY, b"rubbish"):
                    (await Visitor.come(worker, "127.0.0.9", first_bytes)).leave()
                client = await talk(worker, f"user{n}")
                client.transport.abort()
            worker.clients.clear()
            del client
            await until(lambda: not worker.parts.connections.sessions, "the end of all")
            await until(lambda: alive() <= before, "nothing to be left")
        finally:
            gc.enable()
