"""A room as an object: joined for the duration of a ``with``, with an iterator of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from relay import (
    AlreadyJoined,
    BlockingClient,
    Client,
    ClientClosed,
    Cursor,
    Gap,
    GapReason,
    Live,
    Message,
    MessagesMissing,
    NameInvalid,
    NoSuchRoom,
    NotAMember,
    NotConnected,
    Unfollowed,
)
from tests.support.cluster import Relay


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[Client]:
    async with Client(relay.address) as connected:
        yield connected


async def test_messages_of_one_room(client: Client, room: str) -> None:
    """Only its own, in order; the others come from their own iterators."""
    other = f"{room[:20]}-other"
    await client.join(other)
    async with client.room(room) as one, client.room(f"{room[:20]}-third") as third:
        for n in range(5):
            await client.send(other, f"other {n}")
            await one.send(f"one {n}")
            await third.post(f"third {n}")
        await client.flush()
        texts = []
        async for message in one:
            texts.append(message.text)
            if len(texts) == 5:
                break
        assert texts == [f"one {n}" for n in range(5)]
        assert one.cursor == Cursor(message.epoch, 6)
        assert [m.text for m in (await one.history(count=5)).entries] == texts
        assert [member.name for member in (await one.who()).members] == [client.name]
        assert (await anext(third)).text == "third 0"
        texts = []
        async for event in client:
            assert getattr(event, "room", other) == other
            if isinstance(event, Message):
                texts.append(event.text)
                if len(texts) == 5:
                    break
        assert texts == [f"other {n}" for n in range(5)]
    assert list(client.cursors) == [other]
    with pytest.raises(NotAMember):
        await client.leave(room)
    async with client.room(room, since=0) as again:  # what was not taken is not lost
        assert (await anext(again)).text == "one 0"


def test_messages_of_one_room_blocking(relay: Relay, room: str) -> None:
    """The same."""
    with BlockingClient(relay.address) as client:
        client.join(f"{room[:20]}-other")
        with client.room(room) as one:
            client.send(f"{room[:20]}-other", "x")
            one.post("a")
            one.send("b", timeout=60)
            texts = []
            for message in one:
                texts.append(message.text)
                if len(texts) == 2:
                    break
            assert texts == ["a", "b"]
            assert one.cursor == message.cursor
            assert one.who(timeout=60).total == 1
            assert len(one.history(timeout=60).entries) == 3
            assert [type(event) for event in one.events(0.0)] == []
        with client.room(room, last=1) as one:
            kinds = set()
            for event in one.events(timeout=60):
                kinds.add(type(event))
                if {Message, Live} <= kinds:
                    break
            assert {Message, Live} <= kinds
        assert any(isinstance(event, Message) for event in client.events(60))


async def test_with_events(client: Client, room: str) -> None:
    """Everything about the room, and nothing else."""
    await client.send(room, "x")
    async with client.room(room, since=0) as one, aclosing(one.events(20)) as events:  # type: ignore[type-var]
        kinds = set()
        async for event in events:
            kinds.add(type(event))
            if {Message, Live} <= kinds:
                break


async def test_a_gap_is_not_skipped_silently(client: Client, room: str) -> None:
    """An iterator over messages alone raises an exception, and can go on."""
    await client.send(room, "x")
    async with client.room(room, cursor=Cursor(b"lost-log", 7)) as one:
        with pytest.raises(MessagesMissing) as caught:
            await anext(one)
        assert isinstance(caught.value.gap, Gap)
        assert caught.value.gap.reason is GapReason.EPOCH
        assert (await anext(one)).text == "x"


async def test_a_room_that_the_server_takes_away(client: Client, room: str) -> None:
    """After a reconnect it may refuse the join: the iteration raises that."""
    async with client.room(room) as one:
        client._chat.rooms.subscriptions.remove(room)
        client._chat.queue.put(Unfollowed(room, "no longer"))
        with pytest.raises(NotAMember, match="no longer"):
            await anext(one)
        with pytest.raises(StopAsyncIteration):
            await anext(one)


async def test_wrong_use(client: Client, relay: Relay, room: str) -> None:
    """An error at once, and the client goes on."""
    for name, options, error in [
        ("a b", {}, NameInvalid), (7, {}, TypeError), (room, {"last": -1}, ValueError),
        (room, {"last": 1, "since": 1}, ValueError),
    ]:  # fmt: skip
        arguments: dict[str, Any] = dict(options)
        with pytest.raises(error):
            client.room(name, **arguments)  # type: ignore[arg-type]
    with pytest.raises(NotConnected):
        async with Client(relay.address).room(room):
            pass
    async with client.room(room) as one:
        with pytest.raises(AlreadyJoined):
            async with client.room(room.upper()):
                pass
        await one.send("still here")
        assert (await anext(one)).text == "still here"
        waiting = asyncio.ensure_future(anext(one))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="this room"):
            await anext(one)
        waiting.cancel()


async def test_leaving_wakes_whoever_reads(client: Client, room: str) -> None:
    """The end of the ``async with`` is the end of the iteration."""

    async def read() -> list[Message]:
        return [message async for message in one]

    async with client.room(room) as one:
        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reading, 60) == []


async def test_the_error_of_the_body_is_the_one_that_comes_out(relay: Relay, room: str) -> None:
    """Also when the client has ended meanwhile, and at once."""
    with pytest.raises(LookupError):  # noqa: PT012
        async with Client(relay.address) as client, client.room(room):
            await client.close()
            raise LookupError
    with pytest.raises(ClientClosed):  # noqa: PT012
        async with Client(relay.address) as client, client.room(room) as one:
            await client.close()
            await one.send("x")


async def test_a_room_that_nobody_reads_is_bounded_like_all_others(
    client: Client, relay: Relay, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is full, answers still come, and nothing is lost."""
    monkeypatch.setattr("relay.client.event_queue.EVENTS_MAX", 64)
    async with client.room(room) as one, Client(relay.address) as talker:
        for n in range(500):
            await talker.post(room, f"m{n}")
        await talker.flush()
        await client.send(room, "own", timeout=30)
        assert len(client._chat.queue) < 500
        texts = []
        async for message in one:
            texts.append(message.text)
            if message.text == "own":
                break
        assert texts == [*(f"m{n}" for n in range(500)), "own"]


async def test_which_room_it_is(client: Client, room: str) -> None:
    """A message may name it; one that names another room is refused, and stored nowhere."""
    await client.send(room, "begins it")
    assert client.room_identities == {}
    async with client.room(room) as joined:
        identity = joined.identity
        assert client.room_identities == {room: identity}
        assert len(identity) == 8
    await client.send(room, "one", room_identity=identity)
    with pytest.raises(NoSuchRoom, match="no longer exists"):
        await client.send(room, "none", room_identity=bytes(7) + b"x")
    await (await client.post(room, "two", room_identity=identity))
    async with client.room(room, last=2) as joined:
        assert [(await anext(joined)).text for _ in range(2)] == ["one", "two"]


def test_which_room_it_is_blocking(relay: Relay, room: str) -> None:
    """The same."""
    with BlockingClient(relay.address) as client:
        client.send(room, "begins it")
        assert client.room_identities == {}
        with client.room(room) as joined:
            identity = joined.identity
            assert client.room_identities == {room: identity}
        client.send(room, "one", room_identity=identity)
        with pytest.raises(NoSuchRoom, match="no longer exists"):
            client.send(room, "none", room_identity=bytes(7) + b"x")
        client.post(room, "two", room_identity=identity).result()
        with client.room(room, last=2) as joined:
            assert [next(joined).text for _ in range(2)] == ["one", "two"]
