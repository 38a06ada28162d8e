"""No thread of a process gives way to others on its CPU: it may have the interpreter then."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.cluster import Relay, run_relay, wait_until


def priorities(pid: int) -> set[tuple[int, int]]:
    """Return the policies and niceness of the threads of a process."""
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return {(os.sched_getscheduler(one), os.getpriority(os.PRIO_PROCESS, one)) for one in threads}


def test_all_threads_of_a_process_have_its_priority(tmp_path: Path) -> None:
    """In processes that were started, and in a worker that was a spare process."""
    with Relay(tmp_path / "data", workers=1) as relay:
        own = priorities(relay.pid)
        assert len(own) == 1
        (worker,) = relay.worker_pids()
        assert len(list(Path(f"/proc/{worker}/task").iterdir())) > 1, "a worker has several threads"
        for title in ("relay: control", "relay: key agent", "relay: worker"):
            for pid in relay.pids_titled(title):
                assert priorities(pid) == own, title
        wait_until(lambda: relay.pids_titled("relay: spare"), "a spare process")
        (spare,) = relay.pids_titled("relay: spare")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: relay.worker_pids() == [spare], "the spare in its place")
        sent = run_relay("send", relay.address, "lobby", text="hello\n")
        assert sent.returncode == 0, sent.stderr
        assert priorities(spare) == own
