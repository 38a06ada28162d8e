"""A process that gives way to others does so until it has done its work, and no longer."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final

import pytest

from relay.server.system import scheduling
from relay.server.system.scheduling import LONGEST_SLICE_NS, others_first

GET_ATTRIBUTES: Final = {"x86_64": 315, "aarch64": 275, "riscv64": 275}
DEADLINE_S: Final = 60.0


def slice_ns() -> int:
    """Return the calling thread's slice; 0 if the kernel is older than Linux 6.12."""
    space = ctypes.create_string_buffer(scheduling._ATTRIBUTES.size)
    number = ctypes.c_long(GET_ATTRIBUTES[os.uname().machine])
    refused = ctypes.CDLL(None).syscall(number, 0, space, ctypes.c_uint(len(space)), 0)
    assert not refused
    return int(scheduling._ATTRIBUTES.unpack(space)[5])


def state() -> tuple[int, int, int]:
    """Return policy, niceness and slice of the calling thread."""
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), slice_ns()


def in_a_thread(work: Callable[[], None]) -> None:
    """Run a test in a thread of its own, whose scheduling may change."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_others_are_first_within_the_context_only() -> None:
    """Also for a thread that is started there; a failure ends it as well."""
    seen: list[tuple[int, int, int]] = []

    def fail() -> None:
        with others_first():
            seen.append(state())
            in_a_thread(lambda: seen.append(state()))
            raise LookupError

    def work() -> None:
        before = state()
        with pytest.raises(LookupError):
            fail()
        assert state() == before
        policy, niceness, longest_ns = seen[0]
        assert (policy, niceness) == (os.SCHED_BATCH, before[1])
        assert longest_ns in (LONGEST_SLICE_NS, 0)
        assert seen[1] == seen[0]

    in_a_thread(work)


def test_a_policy_that_somebody_has_set_stays() -> None:
    """It may be one that only a privileged process could set again."""

    def work() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        before = state()
        with others_first():
            assert state() == before
        assert state() == before

    in_a_thread(work)


def test_where_the_system_refuses_it_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a number that no system call has; and on a machine whose number is not known."""

    def work() -> None:
        before = state()
        with others_first():
            assert state() == before

    for numbers in ({os.uname().machine: 100_000}, {}):
        monkeypatch.setattr(scheduling, "_NUMBERS", numbers)
        in_a_thread(work)
