"""How long a partition's lock is waited for: shorter if another relay has the target of a link."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from relay.store.errors import NotTheWriter, UsedElsewhere
from relay.store.file import lock as locks
from relay.store.file.lock import PartitionLock, lock_when_free

MAIN, LOCK = "00.sqlite", "00.lock"


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A directory with a partition, and one with a link to it."""
    original, other = tmp_path / "original", tmp_path / "other"
    for directory in (original, other):
        directory.mkdir()
    (original / MAIN).touch()
    (other / MAIN).symlink_to(original / MAIN)
    return original, other


def hold(lock: Path, file: Path, held: Event, over: Event) -> None:
    with PartitionLock(lock, file):
        held.set()
        over.wait(60)


@pytest.fixture
def over(linked: tuple[Path, Path]) -> Iterator[Event]:
    """Another process has the partition, by its own link, until this is set."""
    directory = linked[0].parent / "third"
    directory.mkdir()
    (directory / MAIN).symlink_to(linked[0] / MAIN)
    context = multiprocessing.get_context("fork")
    held, over = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(directory / LOCK, directory / MAIN, held, over))
    holder.start()
    assert held.wait(60)
    yield over
    over.set()
    holder.join(60)


def test_what_a_link_leads_to_is_not_waited_for_as_long_as_the_own_lock(
    linked: tuple[Path, Path], over: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlike a worker that is being replaced, another relay does not end soon."""
    now_s = 0.0

    def passing(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(time, "sleep", passing)
    other = linked[1]
    with pytest.raises(UsedElsewhere):
        lock_when_free(other / LOCK, other / MAIN)
    assert locks.ELSEWHERE_S < now_s < 2 * locks.ELSEWHERE_S
    held = PartitionLock(linked[0] / LOCK, linked[0] / MAIN)
    began_s = now_s
    with pytest.raises(NotTheWriter):
        lock_when_free(linked[0] / LOCK, linked[0] / MAIN)
    assert now_s - began_s > locks.LOCK_S
    held.close()


def test_a_link_that_is_free_again_in_time_is_used(
    linked: tuple[Path, Path], over: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "ELSEWHERE_S", 60.0)
    sleep = time.sleep
    tries: list[float] = []

    def let_go(seconds: float) -> None:
        tries.append(seconds)
        over.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", let_go)
    lock_when_free(linked[1] / LOCK, linked[1] / MAIN).close()
    assert tries
