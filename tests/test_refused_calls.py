"""What is said of a refused system call, and of what only looks like one."""

from __future__ import annotations

import errno
import os

import pytest

from relay import refused_calls
from relay.client.address import Address
from relay.client.dialling import AllFailed, NoSocket
from relay.client.unreachable import unreachable

EPERM = OSError(errno.EPERM, os.strerror(errno.EPERM))
ENOSYS = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
NO_SOCKET = NoSocket(errno.EPERM, os.strerror(errno.EPERM))
ADDRESS = Address("127.0.0.1", 1, None)


def behind(error: Exception) -> RuntimeError:
    """Return what an event loop makes of an error of its signals."""
    try:
        try:
            raise error
        except Exception as first:  # noqa: BLE001 - as below
            raise RuntimeError(str(first))  # noqa: B904  # as asyncio and uvloop do
    except RuntimeError as made:
        return made


def because_of(error: Exception) -> RuntimeError:
    made = RuntimeError("it cannot be done")
    made.__cause__ = error
    return made


def its_own_cause() -> RuntimeError:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def while_handling(error: OSError, text: str, *, hidden: bool = False) -> RuntimeError:
    """Return an exception of its own, which an error only precedes."""
    made = RuntimeError(text)
    made.__context__, made.__suppress_context__ = error, hidden
    return made


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EPERM, "Operation not permitted: a filter of system calls refuses"),
        (ENOSYS, "Function not implemented: a filter of system calls refuses"),
        (OSError(errno.ENOSYS, "none", "/a"), "/a: none: its file system cannot do that"),
        (behind(EPERM), "Operation not permitted: a filter of system calls refuses"),
        (because_of(EPERM), "Operation not permitted: a filter of system calls refuses"),
        (because_of(behind(EPERM)), "Operation not permitted: a filter of system calls refuses"),
        (behind(RuntimeError("can't start new thread")), "cannot start a thread: allow the relay"),
        (RuntimeError("can't start new thread"), "cannot start a thread: allow the relay more"),
    ],
)
def test_a_refused_call_is_explained(error: BaseException, text: str) -> None:
    assert refused_calls.reason(error).startswith(text)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EPERM, "not permitted", "/immutable"),
        OSError(errno.EACCES, "denied"),
        OSError("no number"),
        behind(OSError(errno.EBADF, "bad")),
        while_handling(EPERM, "another"),
        while_handling(EPERM, "another", hidden=True),
        while_handling(EPERM, str(EPERM), hidden=True),
        its_own_cause(),
        RuntimeError("another"),
        ValueError(),
    ],
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert refused_calls.reason(error) == ""
    assert refused_calls.advice(error, "do that") == "do that"


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (EPERM, True),
        (ENOSYS, False),
        (NO_SOCKET, False),
        (AllFailed([NO_SOCKET, ENOSYS]), False),
        (AllFailed([EPERM, ENOSYS]), True),
        (AllFailed([EPERM, OSError(errno.ECONNREFUSED, "refused")]), True),
        (AllFailed([]), True),
        (TimeoutError(), True),
    ],
)
def test_a_connection_that_waiting_does_not_bring(error: OSError, passing: bool) -> None:
    failed = unreachable(ADDRESS, error)
    assert failed.passing is passing
    failures = error.failures if isinstance(error, AllFailed) else [error]
    assert ("a filter of system calls" in str(failed)) is any(
        one in (EPERM, ENOSYS, NO_SOCKET) for one in failures
    )
    assert ("a firewall of this machine" in str(failed)) is (EPERM in failures)
