"""Fairness of the queue: against a simple model, and under a flood."""

from __future__ import annotations

import random
from collections import Counter

from relay.server.agent.queue import FairQueue


def test_sources_take_turns_and_each_keeps_its_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for source, job in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")]:
        assert queue.push(source, job) == []
    assert [queue.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "a3", None]
    assert len(queue) == 0


def test_a_storm_from_one_source_is_shed_newest_first() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.limit = 4
    shed = [job for n in range(10) for job in queue.push("storm", f"s{n}")]
    assert shed == ["s4", "s5", "s6", "s7", "s8", "s9"]
    # Another source comes: the flood is shed.
    assert queue.push("guest", "g0") == ["s3"]
    assert [queue.pop() for _ in range(4)] == ["s0", "g0", "s1", "s2"]


def test_a_lowered_limit_holds_from_the_next_push() -> None:
    queue: FairQueue[int] = FairQueue()
    for n in range(10):
        queue.push(str(n % 2), n)
    queue.limit = 3
    assert len(queue.push("new", 99)) == 8
    assert len(queue) == 3


def test_against_a_model() -> None:
    """Random pushes and pops: the count, the shares and the order within a source are as in the
    model.
    """
    chance = random.Random(7)
    queue: FairQueue[tuple[str, int]] = FairQueue()
    queue.limit = 20
    waiting: list[tuple[str, int]] = []
    for n in range(20_000):
        if chance.random() < 0.6:
            source = f"s{min(chance.randrange(1, 40), chance.randrange(1, 40))}"
            waiting.append((source, n))
            for shed in queue.push(source, (source, n)):
                counts = Counter(job[0] for job in waiting)
                assert counts[shed[0]] == max(counts.values())
                assert shed == [job for job in waiting if job[0] == shed[0]][-1]
                waiting.remove(shed)
        elif (job := queue.pop()) is not None:
            assert job == next(other for other in waiting if other[0] == job[0])
            waiting.remove(job)
        else:
            assert not waiting
        assert len(queue) == len(waiting) <= 20
