"""Restart, hang detection, back-off, boot failures, stopping, and death of the supervisor."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.server.supervisor.conftest import Run
from tests.support.cluster import wait_until

BOOT_S = 5.0
SILENCE_S = 3.0
"""How long a worker may be silent: longer than a busy machine delays a heartbeat."""


def test_a_killed_worker_is_replaced(run: Run) -> None:
    """Its successor takes the partitions under a new generation; other workers are not affected."""
    server = run(3)
    server.wait_ready()
    before = server.table()
    os.kill(before[1]["pid"], signal.SIGKILL)
    server.wait_events("workers", 2)
    after = server.table()
    assert [after[0], after[2]] == [before[0], before[2]]
    assert after[1]["pid"] != before[1]["pid"]
    assert after[1]["generation"] > max(worker["generation"] for worker in before)
    assert after[1]["partitions"] == before[1]["partitions"] == [1, 4, 7, 10, 13]
    assert server.printed == ["fingerprint"]
    [exited] = server.events("child_exited")
    assert not exited["tabled"], "who reads the line asks who is there, and must not find it"


def test_the_table_holds_and_counters_survive(run: Run, tmp_path: Path) -> None:
    server = run(2)
    server.wait_ready()
    os.kill(server.pid(0), signal.SIGKILL)
    server.wait_events("workers", 2)
    server.process.terminate()
    assert server.wait_end() == 0
    # Worker 0 started twice, and each start counted once in the same row.
    assert (tmp_path / "stopped-0").read_text() == "SIGTERM 2 [0, 2, 4, 6, 8, 10, 12, 14]"
    assert (tmp_path / "stopped-1").read_text() == "SIGTERM 1 [1, 3, 5, 7, 9, 11, 13, 15]"


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR1], ids=["stopped", "hung"])
def test_a_silent_worker_is_killed_and_replaced(run: Run, number: signal.Signals) -> None:
    server = run(2, worker_timeout_s=SILENCE_S)
    server.wait_ready()
    victim, other = server.pid(0), server.pid(1)
    os.kill(victim, number)
    server.wait_events("workers", 2)
    assert [(e["pid"], e["reason"]) for e in server.events("child_killed")] == [(victim, "hung")]
    assert not psutil.pid_exists(victim)
    assert server.pid(0) != victim
    assert server.pid(1) == other


@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "busy"])
def test_the_supervisors_own_sleep_is_not_blamed_on_workers(
    run: Run, tmp_path: Path, busy: bool
) -> None:
    """All processes were stopped (a suspended machine, a frozen container), wherever the
    supervisor was in its loop: none is killed for that.
    """
    server = run(2, worker_timeout_s=SILENCE_S)
    server.wait_ready()
    workers = [worker["pid"] for worker in server.table()]
    supervisor = psutil.Process(server.process.pid)
    if busy:
        (tmp_path / "reload-stops").touch()
        supervisor.send_signal(signal.SIGHUP)
    else:
        supervisor.suspend()
    wait_until(lambda: supervisor.status() == psutil.STATUS_STOPPED, "the supervisor's stop")
    children = server.children()
    for process in children:
        process.suspend()
    # The passing of time is the event: more than twice what a worker may be silent.
    time.sleep(2.5 * SILENCE_S)
    for process in [supervisor, *children]:
        process.resume()
    os.kill(workers[0], signal.SIGKILL)  # shows that supervision works again
    server.wait_events("workers", 2)
    assert server.events("child_killed") == []
    assert len(server.events("reloaded")) == busy


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_the_agent_is_replaced(run: Run, number: signal.Signals) -> None:
    server = run(2, worker_timeout_s=SILENCE_S)
    server.wait_ready()
    victim = server.agent_pid()
    os.kill(victim, number)
    server.wait_events("agent_ready", 2)
    assert server.agent_pid() != victim
    assert not psutil.pid_exists(victim)
    assert len(server.events("workers")) == 1


def test_a_crash_loop_is_slowed_down(run: Run, tmp_path: Path) -> None:
    server = run(1)
    server.wait_ready()
    (tmp_path / "worker-crashes").touch()
    os.kill(server.pid(0), signal.SIGKILL)
    fourth = server.wait_events("restart_delayed", 4)[3]
    waits = [event["wait_s"] for event in server.events("restart_delayed")]
    # The first two restarts are immediate; the following ones double, with a spread of half.
    until_then = server.log[: server.log.index(fourth)]
    assert sum(event["event"] == "child_exited" for event in until_then) == 6
    for wait, most in zip(waits, [0.1, 0.2, 1.0, 2.0], strict=False):
        assert most / 2 <= wait <= most
    (tmp_path / "worker-crashes").unlink()
    # Another one may have begun, and end, meanwhile.
    known = len(server.events("workers"))
    server.wait_events("workers", known + 1)
    wait_until(lambda: psutil.pid_exists(server.pid(0)), "a worker that stays")


@pytest.mark.parametrize(
    ("mistake", "code", "message"),
    [
        ("worker-refuses", 3, "worker 0 cannot start: no such luck"),
        ("worker-dies-at-boot", 3, "it ended with exit code 7 before it was ready"),
        (
            "worker-is-refused-a-call",
            3,
            "worker 0 cannot start: Operation not permitted: a filter of system calls refuses",
        ),
        ("worker-gets-no-memory", 3, "worker 0 cannot start: it was refused memory: give it more"),
        ("worker-is-killed-at-boot", 3, "signal SIGKILL before it was ready; if the kernel"),
        ("agent-refuses", 1, "no key for you"),
        (
            "no-fork",
            1,
            "it cannot be forked: Resource temporarily unavailable: allow the relay more processes",
        ),
    ],
)
def test_a_child_that_cannot_boot_ends_everything(
    run: Run,
    tmp_path: Path,
    mistake: str,
    code: int,
    message: str,
) -> None:
    (tmp_path / mistake).touch()
    server = run(2)
    assert server.wait_end() == code
    assert len(server.messages) == 1
    assert message in server.messages[0].replace("worker 1", "worker 0")
    assert not server.events("boot_failed"), "one reason is enough"
    assert server.printed == []


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("worker-refuses", "no such luck"),
        ("worker-dies-at-boot", "it ended with exit code 7 before it was ready"),
        ("worker-hangs-at-boot", "it was not ready within 5 s"),
    ],
)
def test_later_a_boot_that_fails_is_tried_again(
    run: Run, tmp_path: Path, mistake: str, reason: str
) -> None:
    """Each attempt is logged once, with its reason."""
    server = run(2, boot_timeout_s=BOOT_S)
    server.wait_ready()
    victim = server.pid(1)
    (tmp_path / mistake).touch()
    os.kill(victim, signal.SIGKILL)
    server.wait_events("child_exited", 2)
    (tmp_path / mistake).unlink()
    server.wait_events("workers", 2)
    assert psutil.pid_exists(server.pid(1))
    failures = server.events("boot_failed")
    attempts = [event["pid"] for event in server.events("child_exited") if event["pid"] != victim]
    assert [failure["pid"] for failure in failures] == attempts
    assert {failure["reason"] for failure in failures} == {reason}


def test_a_fork_that_fails_is_tried_again(run: Run, tmp_path: Path) -> None:
    server = run(2)
    server.wait_ready()
    (tmp_path / "no-fork").touch()
    os.kill(server.pid(1), signal.SIGKILL)
    server.wait_events("boot_failed", 2)
    (tmp_path / "no-fork").unlink()
    server.wait_events("workers", 2)
    assert len(server.children()) == 3


def test_a_limit_on_open_files_that_somebody_lowers_ends_nothing(run: Run) -> None:
    """With a limit below its open descriptors the kernel refuses poll(): it checks periodically."""
    server = run(2)
    server.wait_ready()
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1, most))
    os.kill(server.pid(1), signal.SIGKILL)
    server.wait_events("boot_failed", 2)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (most, most))
    server.wait_events("workers", 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(run: Run, tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0; workers get TERM; the agent ends last; no process is left."""
    server = run(2)
    server.wait_ready()
    children = server.children()
    assert len(children) == 3
    os.killpg(server.process.pid, number)  # as Ctrl-C in a terminal: every process gets it
    assert server.wait_end() == 0
    assert not any(child.is_running() for child in children)
    ended = ["worker" if "worker" in event else "agent" for event in server.events("child_exited")]
    if number == signal.SIGINT:
        assert ended == ["worker", "worker", "agent"]
        assert (tmp_path / "stopped-0").read_text().startswith("SIGTERM")
    assert server.events("child_killed") == []


def test_workers_that_do_not_stop_are_killed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "worker-ignores-term").touch()
    server = run(2, graceful_timeout_s=0.1)
    server.wait_ready()
    server.process.terminate()
    assert server.wait_end() == 0
    assert {event["reason"] for event in server.events("child_killed")} == {"not stopped in time"}
    assert [event["how"] for event in server.events("child_exited")[:2]] == ["signal SIGKILL"] * 2


@pytest.mark.parametrize("title", ["worker 0", "agent"])
def test_a_stop_wakes_who_is_stopped(run: Run, title: str) -> None:
    """Its worker timeout is an hour away."""
    server = run(2, worker_timeout_s=3600, graceful_timeout_s=3600)
    server.wait_ready()
    [stopped] = [child for child in server.children() if title in child.cmdline()[0]]
    stopped.suspend()
    server.process.terminate()
    assert server.wait_end() == 0
    assert server.events("child_killed") == []


def test_a_second_signal_stops_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "worker-ignores-term").touch()
    server = run(2, graceful_timeout_s=3600)
    server.wait_ready()
    server.process.terminate()
    server.wait_events("stopping", 1)
    server.process.terminate()
    assert server.wait_end() == 0
    assert (tmp_path / "stopped-1").read_text().startswith("SIGQUIT")


def test_nobody_outlives_the_supervisor(run: Run) -> None:
    """Not even a stopped child, which cannot notice anything."""
    server = run(2)
    server.wait_ready()
    children = server.children()
    os.kill(server.pid(0), signal.SIGSTOP)
    os.kill(server.process.pid, signal.SIGKILL)
    server.wait_end()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_hangup_reloads_and_ends_nobody(run: Run) -> None:
    server = run(2)
    server.wait_ready()
    os.kill(server.process.pid, signal.SIGHUP)
    server.wait_events("reloaded", 1)
    assert server.process.poll() is None
    assert len(server.children()) == 3


def test_children_hold_only_their_own_pipes(run: Run) -> None:
    """After many restarts no child has more descriptors than the first one of its role."""
    server = run(2)
    server.wait_ready()
    first = psutil.Process(server.pid(0)).num_fds()
    for round_ in range(3):
        os.kill(server.pid(0), signal.SIGKILL)
        server.wait_events("workers", 2 + round_)
    assert psutil.Process(server.pid(0)).num_fds() <= first
    supervisor = psutil.Process(server.process.pid)
    wait_until(lambda: supervisor.num_fds() < 17, "the supervisor's descriptors closed")
