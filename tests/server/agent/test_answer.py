"""What a worker gets for a question to the key agent."""

from __future__ import annotations

import asyncio

import pytest

from relay.server.agent.answer import AgentUnavailable, Answer


def test_it_is_told_at_once_and_once() -> None:
    """Not in another iteration of the loop: here is none."""
    told: list[bytes] = []
    answer = Answer()
    answer.then(lambda one: told.append(one.secret))
    answer.give(b"one")
    answer.give(b"two")
    answer.fail(AgentUnavailable("late"))
    assert told == [b"one"]
    assert answer.done
    assert answer.error is None


def test_a_failure_has_no_secret() -> None:
    told: list[tuple[bytes, AgentUnavailable | None]] = []
    answer, error = Answer(), AgentUnavailable("busy")
    answer.then(lambda one: told.append((one.secret, one.error)))
    answer.fail(error)
    answer.give(b"late")
    assert told == [(b"", error)]


def test_who_has_gone_is_not_told() -> None:
    """And is not kept in memory until the answer."""
    answer = Answer()
    answer.then(lambda _: pytest.fail("told"))
    answer.cancel()
    assert answer._called is None
    answer.give(b"one")
    assert answer.done
    assert not answer.secret


async def test_it_can_be_awaited() -> None:
    early, late, failed = Answer(), Answer(), Answer()
    early.give(b"early")
    loop = asyncio.get_running_loop()
    loop.call_soon(late.give, b"late")
    loop.call_soon(failed.fail, AgentUnavailable("busy"))
    assert await early == b"early"
    assert await late == b"late"
    with pytest.raises(AgentUnavailable, match="busy"):
        await failed


async def test_who_stops_waiting_takes_no_answer() -> None:
    answer = Answer()

    async def wait() -> bytes:
        return await answer

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    answer.give(b"one")
    assert waiting.cancelled()
