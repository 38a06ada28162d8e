"""Live objects are not traversed at every collection, and garbage is not kept for ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from relay.server.worker.process.loop import collector
from relay.server.worker.process.loop.collector import Collector


class _Node:
    """An object that may refer to itself."""

    def __init__(self) -> None:
        self.other: _Node = self


@pytest.fixture(autouse=True)
def own_collector() -> Iterator[None]:
    """Unfreeze what was frozen here, and let nothing be collected by itself."""
    thresholds = gc.get_threshold()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_lives_is_frozen_once_connections_have_settled() -> None:
    policy = Collector()
    policy.start()
    policy.look(0)
    lives = [_Node() for _ in range(100)]
    frozen = gc.get_freeze_count()
    policy.look(3)  # more may come
    assert gc.get_freeze_count() <= frozen
    policy.look(3)
    assert gc.get_freeze_count() >= frozen + len(lives)
    assert not any(one is lives[0] for one in gc.get_objects())


def test_what_lives_is_frozen_while_connections_keep_coming() -> None:
    policy = Collector()
    policy.start()
    lives = [_Node() for _ in range(100)]
    frozen = gc.get_freeze_count()
    policy.look(collector.ADMITTED_BETWEEN - 1)
    assert gc.get_freeze_count() <= frozen
    policy.look(collector.ADMITTED_BETWEEN)
    assert gc.get_freeze_count() >= frozen + len(lives)


def test_garbage_is_not_frozen() -> None:
    """Frozen garbage would never be freed: an ended connection may have left a cycle."""
    policy = Collector()
    policy.start()
    ended = weakref.ref(_Node())
    assert ended() is not None, "only the collector can free it"
    policy.look(collector.ADMITTED_BETWEEN)
    assert ended() is None


def test_what_is_frozen_is_freed_when_its_last_reference_goes() -> None:
    policy = Collector()
    policy.start()
    lives = _Node()
    seen = weakref.ref(lives)
    policy.look(collector.ADMITTED_BETWEEN)
    lives.other = _Node()  # no cycle any more
    del lives
    assert seen() is None


def test_nothing_is_walked_when_nobody_comes() -> None:
    policy = Collector()
    policy.start()
    policy.look(7)
    policy.look(7)
    ended = weakref.ref(_Node())
    policy.look(7)
    assert ended() is not None


def test_no_collection_that_happens_by_itself_walks_much() -> None:
    """Every turn waits for it: the objects are bounded, however many operations are waiting."""
    policy = Collector()
    policy.start()
    walked: list[int] = []

    def looks(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            walked.append(sum(len(gc.get_objects(n)) for n in range(info["generation"] + 1)))

    gc.callbacks.append(looks)
    gc.enable()
    try:
        waiting = [_Node() for _ in range(100_000)]
    finally:
        gc.disable()
        gc.callbacks.remove(looks)
    assert len(waiting) > 20 * collector.WALKED_MAX
    assert len(walked) > 5
    assert max(walked) <= collector.WALKED_MAX * 1.1  # the callback itself makes a few
