"""What is shown while the first join of a chat or a tail waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from relay.chat.entries import Cursor
from relay.client.aio import Client
from relay.client.events import Event, Joined, Live, State, StateChanged
from relay.terminal.entering import NO_ANSWER, Entering

EPOCH = b"e" * 8
JOINED = Joined("lobby", Cursor(EPOCH, 0), Cursor(EPOCH, 0))


class Events:
    """A client whose events are given."""

    def __init__(self, *events: Event) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[Event]:
        for event in self._events:
            yield event


async def test_reasons_to_wait_are_shown_and_the_rest_comes_after_the_answer() -> None:
    lost, live = StateChanged(State.WAITING, "lost"), Live("lobby", 0)
    shown: list[object] = []
    told, came = asyncio.Event(), asyncio.Event()
    answer: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()

    def notice(text: str) -> None:
        shown.append(text)
        told.set()

    async def wait() -> Joined:
        return await answer

    async def show(entering: Entering) -> None:
        async for event in entering.events(cast("Client", Events(lost, live, lost))):
            shown.append(event)
            came.set()

    entering = Entering(notice, told_after_s=0.0)
    showing = asyncio.create_task(show(entering))
    joining = asyncio.create_task(entering.join(wait()))
    async with asyncio.timeout(60):
        await told.wait()
        await came.wait()
        assert sorted(map(str, shown)) == sorted(map(str, [lost, NO_ANSWER]))
        answer.set_result(JOINED)
        assert await joining == JOINED
        await showing
    assert shown[2:] == [live, lost]


async def test_an_answer_that_comes_soon_is_not_waited_for_aloud() -> None:
    shown: list[str] = []

    async def answered() -> Joined:
        return JOINED

    await Entering(shown.append, told_after_s=0.0).join(answered())
    await asyncio.sleep(0)
    assert shown == []
