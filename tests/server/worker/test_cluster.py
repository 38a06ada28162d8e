"""What the cluster of these tests refuses: to look for a worker while another task kills one."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.workers import Cluster

LOG = "lobby"


async def test_who_kills_may_look_up_and_so_may_all_before(cluster: Cluster) -> None:
    async def look() -> None:
        cluster.other(LOG)

    await asyncio.create_task(look())
    index = cluster.home(LOG).index
    await cluster.kill(index)
    await cluster.start(index)
    assert cluster.home(LOG).index == index


async def test_nobody_else_looks_up_after_a_kill(cluster: Cluster) -> None:
    async def look() -> None:
        cluster.home(LOG)

    await cluster.kill(0)
    with pytest.raises(AssertionError, match="another task kills"):
        await asyncio.create_task(look())


async def test_nobody_is_killed_who_may_have_been_found(cluster: Cluster) -> None:
    gate = asyncio.Event()

    async def look() -> None:
        cluster.home(LOG)
        await gate.wait()

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="while one is killed"):
        await cluster.kill(0)
    gate.set()
    await looking
