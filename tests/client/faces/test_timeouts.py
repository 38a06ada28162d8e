"""Every call that waits for an answer ends with its timeout, with both clients."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relay import (
    BlockingClient,
    Client,
    ClientError,
    DeviceKey,
    Message,
    NotAMember,
    RelayError,
    Stored,
    TimedOut,
)
from relay.client.devices.device_key import public_text
from tests.client.faces.adapters import Face
from tests.support.cluster import Relay

Connect = Callable[..., Face]


def call(face: Face, method: str, *args: object, **options: object) -> Any:  # noqa: ANN401
    """Call a method of the client itself."""
    client: Any = face.client
    result = getattr(client, method)(*args, **options)
    return face._run(result) if asyncio.iscoroutine(result) else result  # type: ignore[attr-defined]


@pytest.fixture
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of the test's own."""
    with Relay(tmp_path_factory.mktemp("stopped") / "data") as running:
        yield running


def test_each_call_ends_while_the_relay_is_away(face: Connect, stopped: Relay, room: str) -> None:
    """A send that timed out may still be stored: here it is, and flush waits for it."""
    one = face(stopped.address, "waiter", window=2)
    one.connect()
    one.join(room)
    stopped.stop()
    with pytest.raises(TimedOut, match="may or may not be stored"):
        call(one, "send", room, "first", timeout=0.2)
    for method, args in {
        "who": (room,), "history": (room,), "join": ("another",), "flush": (),
    }.items():  # fmt: skip
        with pytest.raises(TimedOut) as caught:
            call(one, method, *args, timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, ClientError)
        assert isinstance(caught.value, RelayError)
    call(one, "post", room, "second", timeout=0.1)
    with pytest.raises(TimedOut, match="not sent"):
        call(one, "post", room, "third", timeout=0.1)
    with pytest.raises(TimedOut, match="not sent"):
        call(one, "send", room, "third", timeout=0.1)
    stopped.start()
    call(one, "flush", timeout=60)
    texts: list[str] = []
    while len(texts) < 2:
        event = one.next()
        if isinstance(event, Message):
            texts.append(event.text)
    assert texts == ["first", "second"]
    with pytest.raises(NotAMember):  # the join that timed out was undone
        call(one, "leave", "another", timeout=60)
    assert one.join("another")


KEY = DeviceKey.generate()
TEXT = public_text(KEY.public)


def arguments(room: str, message: Message) -> dict[str, tuple[tuple[object, ...], dict[str, Any]]]:
    """Return the arguments of each call that waits for an answer."""
    plain: dict[str, tuple[object, ...]] = {
        "who": (room,), "history": (room,), "search": (room, "word"), "send": (room, "text"),
        "edit": (message, "text"), "react": (message, "+1"), "mark_read": (message,),
        "redact": (message,), "read_marks": (), "block": ("bob",), "unblock": ("bob",),
        "last_seen": ("bob",), "preferences": (), "devices": ("bob",), "device_change": ("bob",),
        "approve_device": (TEXT,), "remove_device": (TEXT,),
        "rename_device": (TEXT, "laptop"), "add_device": (KEY,), "add_recovery_key": (),
        "invite": (), "invitations": (), "revoke_invitation": ("0" * 64,), "user": ("bob",),
        "users": (), "change_user": ("bob", "disable"), "rooms": (), "room_info": (room,),
        "create_room": (f"{room}-2",), "join": (f"{room}-3",), "leave": (room,),
    }  # fmt: skip
    return {name: (args, {}) for name, args in plain.items()} | {
        "set_preferences": ((), {"writers": "all"}),
        "change_room": ((room, "topic"), {"text": "topic"}),
        "delete_account": ((), {}),  # the last one: the server does it, and ends the connection
    }


OTHERS = {"connect", "close", "post", "flush", "pump", "next_event", "events", "export"}
"""Those with a time limit of another kind; what ``export`` returns asks by the other calls."""
UNSEEN = {"accept_devices"}
"""It needs a change of devices, and asks as ``devices`` does."""


def test_a_client_may_have_a_time_limit_for_all_answers(
    face: Connect, relay: Relay, room: str
) -> None:
    """It is too short for any answer. A call with a longer one of its own gets its answer."""
    one = face(relay.address, f"waiter-{room[-8:]}", answer_timeout_s=0.0)
    one.connect()
    call(one, "join", room, timeout=60)
    assert call(one, "send", room, "text", timeout=60).seq == 2
    while not isinstance(message := one.next(), Message):
        assert message is not None
    calls = arguments(room, message)
    assert calls.keys() | OTHERS | UNSEEN == {
        name
        for name, method in inspect.getmembers(Client, callable)
        if not name.startswith("_") and "timeout" in inspect.signature(method).parameters
    }
    for method, (args, options) in calls.items():
        with pytest.raises(TimedOut):
            call(one, method, *args, **options)


def test_a_join_that_is_given_up_after_its_answer(relay: Relay, room: str) -> None:
    """LEAVE is sent, so that the room can be joined again."""

    async def run() -> None:
        async with Client(relay.address) as client:
            for turns in range(1, 40):
                task = asyncio.ensure_future(client.join(room))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if task.done():
                    await client.leave(room)
                else:
                    await client.pump(0.005)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                        await client.leave(room)
            assert await client.join(room, timeout=60)

    asyncio.run(run())


async def test_the_outcome_of_a_cancelled_wait_can_be_asked_for(relay: Relay, room: str) -> None:
    """A post outlives the task that waits for it."""
    async with Client(relay.address) as client:
        posted = await client.post(room, "kept")
        waiting = asyncio.ensure_future(_wait_for(posted))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stored = await posted
        assert stored == await posted == posted.result()
        assert isinstance(stored, Stored)


async def _wait_for(posted: asyncio.Future[Stored]) -> Stored:
    return await posted


def test_flush_reports_a_send_that_nobody_waits_for_any_more(face: Connect, stopped: Relay) -> None:
    """Cancelled or timed out, its failure is not lost."""
    one = face(stopped.address, "abandoner")
    one.connect()
    stopped.stop()
    with pytest.raises(TimedOut):
        call(one, "send", "lobby", "x", timeout=0.1)
    client = one.client
    client._state.fail(ClientError("the end"))
    client._pump.settle()
    with pytest.raises(ClientError, match="the end"):
        call(one, "flush")


def test_a_blocking_post_can_be_asked_for_its_outcome(relay: Relay, room: str) -> None:
    """As a future of concurrent.futures."""
    with BlockingClient(relay.address) as client:
        posted = client.post(room, "x")
        assert not posted.done()
        with pytest.raises(TimedOut):
            posted.result(timeout=0.0)
        assert posted.result(timeout=60).seq == 2
        assert posted.done()
        assert posted.exception() is None
