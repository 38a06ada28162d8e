"""Threads are started at the beginning, not when work needs one that the system may refuse."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from relay.errors import StartError
from relay.server.threads import started_pool
from tests.server.worker.test_stores import stores_of
from tests.support.programs import run_program

DEADLINE_S = 60.0


def _none(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")  # as Python does at the limit of processes


def test_the_threads_of_a_pool_run_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them work at the same time, though no thread can be started any more."""
    pool = started_pool(3, "test")
    monkeypatch.setattr(threading.Thread, "start", _none)
    together = threading.Barrier(3)
    waiting = [pool.submit(together.wait, DEADLINE_S) for _ in range(3)]
    assert sorted(one.result(DEADLINE_S) for one in waiting) == [0, 1, 2]
    pool.shutdown()


def test_a_pool_without_all_of_its_threads_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error tells what to change, and the threads that were started end."""
    start, started = threading.Thread.start, list[threading.Thread]()

    def two(thread: threading.Thread) -> None:
        if len(started) == 2:
            _none(thread)
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", two)
    with pytest.raises(StartError, match=r"can't start new thread.*TasksMax"):
        started_pool(3, "test")
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize(("limit", "flag"), [("AS", "ulimit -v"), ("DATA", "ulimit -d")])
def test_too_little_memory_is_not_too_few_threads(limit: str, flag: str) -> None:
    """A thread's stack counts for the limits on memory, and no other number helps then."""
    ended = run_program(f"""
import resource
from relay.server.threads import started_pool
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
most = used + (2 << 20) if "{limit}" == "AS" else 1
resource.setrlimit(resource.RLIMIT_{limit}, (most, most))
started_pool(3, "test")
""")
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert "cannot start a thread (can't start new thread): raise the limit on its memory" in last
    assert flag in last


async def test_a_worker_has_its_threads_before_it_opens_a_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no commit, checkpoint or search fails for lack of one."""
    stores = stores_of(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", _none)
    assert await stores.run_in_thread(lambda: "ran") == "ran"
    monkeypatch.undo()
    stores.close()


async def test_a_worker_that_may_have_no_threads_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", _none)
    with pytest.raises(StartError, match="cannot start a thread"):
        stores_of(tmp_path)
