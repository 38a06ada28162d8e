"""Periodic work by timers: ``relay.server.periodic``."""

from __future__ import annotations

import asyncio

import pytest

from relay.server.periodic import Periodic, every_until

RUNS = 3
PAUSE_S = 0.001
DEADLINE_S = 30


class Failed(Exception):
    """Raised by an action."""


async def time_passes() -> None:
    """Wait until another one, begun now, has run some times: one with the same pauses that goes on
    would have run before that.
    """
    stop = asyncio.Event()
    runs = 0

    def action() -> None:
        nonlocal runs
        runs += 1
        if runs > RUNS:
            stop.set()

    await every_until(stop, PAUSE_S, action)


async def test_repeats_until_the_event_is_set() -> None:
    """The first call comes at once, and none after the end."""
    stop = asyncio.Event()
    runs = 0

    def action() -> None:
        nonlocal runs
        runs += 1
        if runs == RUNS:
            stop.set()

    async with asyncio.timeout(DEADLINE_S):
        await every_until(stop, PAUSE_S, action)
        ended_at = runs
        await time_passes()
    assert runs == ended_at >= RUNS


async def test_raises_what_the_action_raises() -> None:
    """An error ends it, so that the process that depends on it does not continue without it."""
    runs = 0

    def action() -> None:
        nonlocal runs
        runs += 1
        if runs == RUNS:
            raise Failed

    with pytest.raises(Failed):
        async with asyncio.timeout(DEADLINE_S):
            await every_until(asyncio.Event(), PAUSE_S, action)
    assert runs == RUNS


@pytest.mark.parametrize("by_itself", [True, False])
async def test_cancelled_it_runs_no_more(by_itself: bool) -> None:
    """Neither when it is cancelled between two calls nor when its own function does it."""
    runs = 0
    stop = asyncio.Event()

    def action() -> None:
        nonlocal runs
        runs += 1
        if by_itself and runs == RUNS:
            periodic.cancel()
            stop.set()

    periodic = Periodic(PAUSE_S, action)
    async with asyncio.timeout(DEADLINE_S):
        if by_itself:
            await stop.wait()
        else:
            periodic.cancel()
        ended_at = runs
        await time_passes()
    assert runs == ended_at


async def test_reports_the_delay_of_each_call_but_the_first() -> None:
    delays: list[int] = []
    runs = 0
    stop = asyncio.Event()

    def action() -> None:
        nonlocal runs
        assert len(delays) == runs
        runs += 1
        if runs == RUNS:
            stop.set()

    periodic = Periodic(PAUSE_S, action, delays.append)
    async with asyncio.timeout(DEADLINE_S):
        await stop.wait()
    periodic.cancel()
    assert min(delays) >= 0
