"""What is said of a refused system call, and of what only looks like one."""

from __future__ import annotations

import errno
import os

import pytest

from relay import refused_calls
from relay.client.address import Address
from relay.client.dialling import AllFailed
from relay.client.unreachable import unreachable

EPERM = OSError(errno.EPERM, os.strerror(errno.EPERM))
ENOSYS = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
ADDRESS = Address("127.0.0.1", 1, None)


def behind(error: OSError) -> RuntimeError:
    """Return what an event loop makes of an error of its signals."""
    try:
        try:
            raise error
        except OSError as first:
            raise RuntimeError(str(first))  # noqa: B904  # as asyncio and uvloop do
    except RuntimeError as made:
        return made


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EPERM, "Operation not permitted: a filter of system calls refuses"),
        (ENOSYS, "Function not implemented: a filter of system calls refuses"),
        (OSError(errno.ENOSYS, "none", "/a"), "/a: none: a filter of system calls refuses"),
        (behind(EPERM), "Operation not permitted: a filter of system calls refuses"),
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
        (EPERM, False),
        (ENOSYS, False),
        (AllFailed([EPERM, ENOSYS]), False),
        (AllFailed([EPERM, OSError(errno.ECONNREFUSED, "refused")]), True),
        (AllFailed([]), True),
        (TimeoutError(), True),
    ],
)
def test_a_connection_that_waiting_does_not_bring(error: OSError, passing: bool) -> None:
    failed = unreachable(ADDRESS, error)
    assert failed.passing is passing
    assert ("a filter of system calls" in str(failed)) is (
        error in (EPERM, ENOSYS) or (isinstance(error, AllFailed) and EPERM in error.failures)
    )
