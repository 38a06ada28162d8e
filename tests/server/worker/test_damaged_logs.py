"""Invalid content affects one log only: the other logs of its partition are served."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import apsw
import msgpack
import pytest
import pytest_asyncio

from relay import codec
from relay.chat.accounts import events, requests
from relay.chat.entries import GapReason, packable
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.chat.rooms import requests as of_rooms
from relay.chat.rooms import shown
from relay.chat.rooms.events import Kind
from relay.server.worker.connection import listings
from relay.server.worker.connection.requests import room_lists
from relay.server.worker.process.admin.operator_requests import DAMAGED, Administration
from relay.store.sqlite import SqlitePartition
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import (
    Ack,
    Chain,
    Devices,
    Done,
    EntryMessage,
    Error,
    Gap,
    History,
    Join,
    Joined,
    Live,
    Page,
    Refused,
    Room,
    Send,
)
from relay.wire.packing import pack_entry, unpack_entry
from tests.server.worker.test_logins import ask
from tests.support.cluster import until
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient, Worker

NUMBERS = itertools.count(1000)
EVERYTHING = 2**63 - 1


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """One worker."""
    async with Cluster(tmp_path, 1, rights=True) as running:
        yield running


def connection_of(worker: Worker, log: str) -> apsw.Connection:
    partition = worker.parts.home.partitions.partition(partition_of(log))
    assert isinstance(partition, SqlitePartition)
    assert partition._opened is not None
    return partition._opened.connection


def last_control(worker: Worker, log: str) -> tuple[int, bytes]:
    packed = worker.parts.services.reader_of(log).controls(log)[-1]
    connection = connection_of(worker, log)
    ((log_id,),) = cast(
        "list[tuple[int]]", connection.execute("SELECT id FROM log WHERE name=?", (log,)).fetchall()
    )
    return log_id << SEQ_BITS | unpack_entry(packed).seq & SEQ_MASK, packed


def no_entry(worker: Worker, log: str) -> None:
    """An entry whose bytes are not valid msgpack."""
    row, _ = last_control(worker, log)
    packed = b"\xc1" + events._RESERVED  # it looks like a reset, which is searched for
    connection_of(worker, log).execute("UPDATE entry SET packed=? WHERE id=?", (packed, row))


def no_event(worker: Worker, log: str) -> None:
    """A valid entry with an event that this version does not know."""
    row, packed = last_control(worker, log)
    body = unpack_entry(packed).body
    other = packed.replace(body, b"\xc1" * len(body))
    connection_of(worker, log).execute("UPDATE entry SET packed=? WHERE id=?", (other, row))


def later_event(worker: Worker, log: str) -> None:
    """A valid entry written by a newer version."""
    row, packed = last_control(worker, log)
    other = pack_entry(packable(unpack_entry(packed)._replace(body=codec.pack([99]))))
    connection_of(worker, log).execute("UPDATE entry SET packed=? WHERE id=?", (other, row))


def neighbour_of(log: str, prefix: str = "") -> str:
    """Return another log of the same partition."""
    names = (f"{prefix}neighbour{n}" for n in range(1000))
    return next(name for name in names if partition_of(name) == partition_of(log))


def administration(worker: Worker) -> Administration:
    """The requests that answer ``relay ctl``."""
    parts, stores = worker.parts, worker._stores
    return Administration(
        parts.member.queries,
        parts.home.names,
        parts.home.partitions.owns,
        stores.reader_at,
        stores.reader_of,
        parts.services.damage,
        b"",
    )


async def devices_of(client: TestClient, name: str) -> Chain | Error:
    number = next(NUMBERS)
    client.send_envelopes(Devices(number, name, 0))

    def answers() -> list[Chain | Error]:
        return [e for e in client.received if isinstance(e, Chain | Error) and e.request == number]

    await client.until(answers, "the devices")
    return answers()[0]


def reported(caplog: pytest.LogCaptureFixture, event: str) -> list[tuple[str, str]]:
    """Return (log, reason) of each line with an event. All are errors."""
    found = [r for r in caplog.records if r.getMessage() == event]
    assert all(r.levelno == logging.ERROR for r in found)
    return [(vars(r)["log"], vars(r)["reason"]) for r in found]


async def in_room(client: TestClient, request: of_rooms.Request, log: str) -> Done | Error:
    number = next(NUMBERS)
    client.send_envelopes(Room(number, log, of_rooms.pack(request, EVERYTHING)))

    def answers() -> list[Done | Error]:
        return [e for e in client.received if isinstance(e, Done | Error) and e.request == number]

    await client.until(answers, "an answer")
    return answers()[0]


@pytest.mark.parametrize("damage", [no_entry, no_event, later_event])
async def test_one_account_that_cannot_be_read(
    cluster: Cluster, damage: Callable[[Worker, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Requests that need it fail, the operator is told, and its partition serves the others."""
    worker = cluster.workers[0]
    opera = await an_operator(cluster)
    victim = await TestClient.login(worker, "victim")
    inbox = f"{INBOX_PREFIX}victim"
    other = neighbour_of(inbox, INBOX_PREFIX).removeprefix(INBOX_PREFIX)
    damage(worker, inbox)
    worker.parts.home.accounts.logs.forget()

    for asker in (opera, victim):
        refused = await devices_of(asker, "victim")
        assert isinstance(refused, Error)
        assert refused.code == ErrorCode.DAMAGED
    # Listings of all accounts skip it; requests that need its user's account fail.
    answer = await ask(opera, next(NUMBERS), requests.Promote(False), "opera")
    assert isinstance(answer, Error)
    assert "the only operator" in answer.text
    unread = await in_room(victim, of_rooms.Redact(1, ""), "lobby")
    assert isinstance(unread, Error)
    assert unread.code == (ErrorCode.UNAVAILABLE if damage is no_entry else ErrorCode.NO_SUCH_ROOM)
    named = await in_room(opera, of_rooms.Invite("victim"), "lobby")
    assert isinstance(named, Error)
    assert named.code == ErrorCode.DAMAGED
    for _ in range(3):
        again = await TestClient.connect(worker)
        again.hello("victim")
        await again.expect(Error, lambda e: e.code == ErrorCode.DAMAGED)
        await until(lambda: again.closed is not None, "the end")  # noqa: B023 - awaited here
        named = await in_room(opera, of_rooms.Invite("victim"), "lobby")
        assert isinstance(named, Error)

    somebody = await TestClient.login(worker, other)
    assert isinstance(await devices_of(somebody, other), Chain)
    users = administration(worker).handlers["users"]({"limit": 10})
    assert {one["name"]: one["state"] for one in (await users)["items"]} == {
        "opera": "active",
        "victim": DAMAGED,
        other: "active",
    }
    assert worker.parts.home.partitions.refused == worker.parts.home.partitions.troubles == {}
    assert opera.closed is victim.closed is None
    told = reported(caplog, "account_unreadable")
    assert told
    assert all(log == inbox and inbox in reason for log, reason in told)
    assert len(told) == len(set(told)), "each once, however often it is asked for"


async def list_of(client: TestClient, partition: int) -> tuple[list[str], int]:
    """Return the rooms of a partition, and the error code in place of its end, or 0."""
    found: list[str] = []
    after, end = "", False
    while not end:
        answer = await in_room(client, of_rooms.List(partition, after), "")
        if isinstance(answer, Error):
            if answer.code == ErrorCode.BUSY:
                continue
            return found, answer.code
        some, after, end = shown.unpack_list(answer.content)
        found += [one.name for one in some]
    return found, 0


async def test_one_room_that_cannot_be_read(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Listings have the others; a user with a role in it sees that it still exists."""
    worker = cluster.workers[0]
    alice = await TestClient.login(worker, "alice")
    rooms = sorted(itertools.islice(in_partition_of("lobby"), 3))
    for name in rooms:
        assert isinstance(await in_room(alice, of_rooms.Create(Kind.PUBLIC), name), Done)
    good, bad, also = rooms[1], rooms[0], rooms[2]
    partition = partition_of(bad)
    assert await list_of(alice, partition) == (rooms, 0)
    connection = connection_of(worker, bad)
    connection.execute(
        "UPDATE state SET packed=x'c1' WHERE log_id=(SELECT id FROM log WHERE name=?)", (bad,)
    )
    assert await list_of(alice, partition) == ([good, also], ErrorCode.DAMAGED)
    mine = await in_room(alice, of_rooms.Mine(""), "")
    assert isinstance(mine, Done)
    assert [one.room.name for one in shown.unpack_own(mine.content)[0]] == rooms
    alice.send_envelopes(Join(5, good, None, 0, 0))
    await alice.expect(Joined, lambda e: e.log == good)
    # The next home has nothing of it in memory.
    await cluster.kill(0)
    assert [log for log, _ in reported(caplog, "room_unreadable")] == [bad]
    caplog.clear()
    worker = await cluster.start(0)
    alice = await TestClient.login(worker, "alice")
    for _ in range(3):
        assert isinstance(await in_room(alice, of_rooms.Show(""), bad), Error)
        await list_of(alice, partition)
    for _ in range(3):  # each time its home sends the state anew
        bob = await TestClient.login(worker, "bob")
        bob.send_envelopes(Join(5, bad, None, 0, 0))
        await bob.expect(Error)
        bob.transport.abort()
        await until(lambda: bad not in worker.parts.member.feeds.by_log, "the end of the feed")
    assert worker.parts.home.partitions.refused == worker.parts.home.partitions.troubles == {}
    told = [log for log, _ in reported(caplog, "room_unreadable")]
    assert told == [bad], "each once, however often it is asked for"


def not_msgpack(row: list[object]) -> bytes:
    return b"\xc1" + bytes(40)


def wrong_type(row: list[object]) -> bytes:
    return codec.pack([*row[:3], "two", *row[4:]])


def wrong_length(row: list[object]) -> bytes:
    return codec.pack([*row[:2], b"epoch", *row[3:]])


def of_another_log(row: list[object]) -> bytes:
    return codec.pack([row[0], "elsewhere", *row[2:]])


def of_another_place(row: list[object]) -> bytes:
    return codec.pack([*row[:4], 7, *row[5:]])


def unknown_operation(row: list[object]) -> bytes:
    return codec.pack([99, *row[1:]])


DAMAGES = [
    not_msgpack, wrong_type, wrong_length, of_another_log, of_another_place, unknown_operation,
]  # fmt: skip


async def test_entries_that_cannot_be_read_are_a_gap(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """No client gets an entry that would make it disconnect; entries around it can be read."""
    worker = cluster.workers[0]
    alice = await TestClient.login(worker, "alice")
    assert isinstance(await in_room(alice, of_rooms.Create(Kind.PUBLIC), "lobby"), Done)
    count = 2 * len(DAMAGES) + 1
    alice.send_envelopes(*(Send("lobby", n, 0, "text/plain", b"%d" % n) for n in range(1, count)))
    await alice.expect(Ack, lambda e: e.counter == count - 1)
    connection = connection_of(worker, "lobby")
    rows = cast(
        "list[tuple[int, bytes]]",
        connection.execute(
            "SELECT entry.id, packed FROM entry JOIN log ON log.id=entry.id >> 40 "
            "WHERE name='lobby' ORDER BY entry.id"
        ).fetchall(),
    )
    damaged = rows[2::2]
    for (row, packed), damage in zip(damaged, DAMAGES, strict=True):
        changed = damage(cast("list[object]", msgpack.unpackb(packed)))
        connection.execute("UPDATE entry SET packed=? WHERE id=?", (changed, row))
    bad = [row & SEQ_MASK for row, _ in damaged]
    good = [row & SEQ_MASK for row, _ in rows if row & SEQ_MASK not in bad]
    assert bad[-1] == rows[-1][0] & SEQ_MASK, "also at the end"

    bob = await TestClient.login(worker, "bob")
    bob.send_envelopes(Join(5, "lobby", bytes(8), 0, 0))
    live = await bob.expect(Live, lambda e: e.log == "lobby")
    assert live.seq == bad[-1]
    arrived = [e for e in bob.received if isinstance(e, EntryMessage | Gap)]
    assert [e.seq for e in arrived if isinstance(e, EntryMessage)] == good
    gaps = [e for e in arrived if isinstance(e, Gap)]
    assert [(e.from_seq, e.to_seq) for e in gaps] == [(seq - 1, seq) for seq in bad]
    assert {e.reason for e in gaps} == {GapReason.DAMAGED}
    for forward in (False, True):
        bob.send_envelopes(History(next(NUMBERS), "lobby", forward, 0, 100))
        page = await bob.expect(Page)
        assert [e.seq for e in page.entries] == good
        bob.received.remove(page)
    own = await in_room(alice, of_rooms.Mine(""), "")
    assert isinstance(own, Done)
    assert [one.room.kind for one in shown.unpack_own(own.content)[0]] == [Kind.PUBLIC]
    # Followers get the next entries, and so does a worker that has missed them.
    alice.send_envelopes(Send("lobby", count, 0, "text/plain", b"next"))
    await bob.expect(EntryMessage, lambda e: e.body == b"next")
    assert bob.closed is None
    told = [reason for _, reason in reported(caplog, "room_unreadable")]
    assert told == [f"the log lobby is damaged: entry {seq} cannot be read" for seq in bad], (
        "each once, however often it is read"
    )
    assert worker.parts.home.partitions.refused == {}


async def test_a_message_that_depends_on_what_cannot_be_read(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender is told that it is the server's data, and the operator which room it is."""
    worker = cluster.workers[0]
    alice = await TestClient.login(worker, "alice")
    first = Send("lobby", 1, 0, "text/plain", b"hello")
    alice.send_envelopes(first, Send("lobby", 2, 0, "text/plain", b"again"))
    await alice.expect(Ack, lambda e: e.counter == 2)
    connection_of(worker, "lobby").execute("UPDATE entry SET packed=x'c1'")
    for _ in range(2):
        alice.send_envelopes(first)
        refused = await alice.expect(Refused)
        alice.received.remove(refused)
        assert (refused.counter, refused.code) == (1, ErrorCode.DAMAGED)
    alice.send_envelopes(Send("lobby", 3, 0, "text/plain", b"more"))
    await alice.expect(Ack, lambda e: e.counter == 3)
    [(log, reason)] = reported(caplog, "room_unreadable")
    assert log == "lobby"
    assert "an earlier entry, which a sender has sent again, cannot be read" in reason
    assert worker.parts.home.partitions.refused == {}


def in_partition_of(log: str) -> Iterator[str]:
    names = (f"room{n}" for n in itertools.count())
    return (name for name in names if partition_of(name) == partition_of(log))


async def test_a_long_list_does_not_end_as_if_it_were_complete(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pages follow the one with an unreadable room."""
    worker = cluster.workers[0]
    alice = await TestClient.login(worker, "alice")
    rooms = sorted(itertools.islice(in_partition_of("lobby"), listings.NOTES_MAX + 3))
    for name in rooms:
        assert isinstance(await in_room(alice, of_rooms.Create(Kind.PUBLIC), name), Done)
    partition = partition_of("lobby")
    connection_of(worker, "lobby").execute(
        "UPDATE state SET packed=x'c1' WHERE log_id=(SELECT id FROM log WHERE name=?)", (rooms[0],)
    )
    reader = worker.parts.services.reader_at(partition)
    states = reader.states
    monkeypatch.setattr(reader, "states", lambda after, count, most: states(after, 1, most))
    assert await list_of(alice, partition) == (rooms[1:], ErrorCode.DAMAGED)


async def test_a_list_passes_over_few_hidden_rooms_at_a_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: the client continues after the page, and no room is left out."""
    monkeypatch.setattr(room_lists, "HIDDEN_MAX", 1)
    worker = cluster.workers[0]
    alice = await TestClient.login(worker, "alice")
    bob = await TestClient.login(worker, "bob")
    rooms = sorted(itertools.islice(in_partition_of("lobby"), 9))
    for number, name in enumerate(rooms):
        kind = Kind.PUBLIC if number in {4, 8} else Kind.PRIVATE
        assert isinstance(await in_room(alice, of_rooms.Create(kind), name), Done)
    partition = partition_of("lobby")
    looks: list[str] = []
    reader = worker.parts.services.reader_at(partition)
    states = reader.states

    def counted(after: str, count: int, bytes_max: int) -> list[tuple[str, bytes, int]]:
        looks.append(after)
        return states(after, min(count, 2), bytes_max)

    monkeypatch.setattr(reader, "states", counted)
    busy = await in_room(bob, of_rooms.List(partition, ""), "")
    assert isinstance(busy, Error)
    assert (busy.code, looks) == (ErrorCode.BUSY, [""])
    assert await list_of(bob, partition) == ([rooms[4], rooms[8]], 0)
    assert len(looks) == len(set(looks)), "a room was read twice"
    assert await list_of(alice, partition) == (rooms, 0)
    # Concurrent listings of one connection do not disturb each other, of one partition or two.
    hidden = list(itertools.islice(in_partition_of("hall"), 6))
    for name in hidden:
        assert isinstance(await in_room(alice, of_rooms.Create(Kind.PRIVATE), name), Done)
    assert partition_of("hall") != partition
    ended = 0
    asked = [partition, partition_of("hall"), partition]
    for _ in range(40):
        for index in asked.copy():
            if isinstance(await in_room(bob, of_rooms.List(index, rooms[4]), ""), Done):
                asked.remove(index)
                ended += 1
    assert ended == 3
    # A listing begun long ago starts again: hidden rooms may be visible by now.
    busy = await in_room(bob, of_rooms.List(partition, ""), "")
    assert isinstance(busy, Error)
    monkeypatch.setattr(listings, "LISTING_S", 0.0)
    looks.clear()
    await in_room(bob, of_rooms.List(partition, ""), "")
    assert looks == [""]
