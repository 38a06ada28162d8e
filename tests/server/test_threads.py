"""Threads are started at the beginning, not when work needs one that the system may refuse.

Work of low priority leaves the priority of its caller as it was.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from relay.errors import StartError
from relay.server.system.threads import NICENESS, import_at_low_priority, started_pool
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
from relay.server.system.threads import started_pool
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


def _niceness() -> int:
    """Return the calling thread's."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_work_of_low_priority_leaves_the_caller_as_it_was() -> None:
    """A priority that was lowered could not be raised again."""
    before, seen = _niceness(), list[int]()
    import_at_low_priority(lambda: seen.append(_niceness()))
    assert seen == [min(19, before + NICENESS)]
    assert _niceness() == before


def test_work_of_low_priority_fails_in_its_caller() -> None:
    def fail() -> None:
        raise LookupError("as it was raised")

    with pytest.raises(LookupError, match="as it was raised"):
        import_at_low_priority(fail)


def test_work_of_low_priority_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started, it runs all the same."""
    monkeypatch.setattr(threading.Thread, "start", _none)
    ran: list[int] = []
    import_at_low_priority(lambda: ran.append(_niceness()))
    assert ran == [_niceness()]


def test_a_spare_process_loads_its_program_at_low_priority() -> None:
    """While it loads, the workers have clients, who may just have lost one of them. Afterwards it
    may become a worker, with the priority of the others.
    """
    ended = run_program("""
import os, sys, time
from relay.server.startup import programs
from relay.server.system.threads import NICENESS

def niceness():
    return os.getpriority(os.PRIO_PROCESS, 0)

class Seen:
    def find_spec(self, name, path=None, target=None):
        seen.add(niceness())
        steps.append("module")

def sleep(_):
    steps.append("pause")

seen, steps, time.sleep = set(), [], sleep
finders = list(sys.meta_path)
sys.meta_path.insert(0, Seen())
before = niceness()
programs._load_worker_ahead()
print("relay.server.worker.process.main" in sys.modules)
print(seen == {min(19, before + NICENESS)}, niceness() == before)
print(set(steps[::2]) == {"pause"}, set(steps[1::2]) == {"module"}, sys.meta_path[1:] == finders)
""")
    assert ended.stdout.split() == ["True"] * 6, (ended.stdout, ended.stderr)
