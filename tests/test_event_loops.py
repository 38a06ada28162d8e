"""Event loops of relay.event_loops, where the system allows none."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from tests.support.refused_calls import CAN_BE_REFUSED, refusing

MAKE = """
import gc, sys
from relay import event_loops
{factory}
try:
    event_loops.runner(factory)
except OSError as error:
    sys.stdout.write(str(error))
gc.collect()
"""


UVLOOP = "import uvloop; factory = uvloop.new_event_loop"
ASYNCIO = "factory = None"  # it does without eventfd2, and instead of epoll_create1 uses poll


@CAN_BE_REFUSED
@pytest.mark.parametrize(
    ("factory", "call"),
    [
        *((UVLOOP, call) for call in ("epoll_create1", "epoll_ctl", "eventfd2", "socketpair")),
        *((ASYNCIO, call) for call in ("epoll_ctl", "socketpair")),
        *((ASYNCIO, call) for call in ("fcntl", "recvfrom", "sendto")),  # by which it is woken
    ],
)
def test_a_refused_event_loop_is_one_exception(factory: str, call: str) -> None:
    """uvloop watches its first descriptor only when it runs."""
    code = f"{refusing(errno.ENOSPC, call)}\n{MAKE.format(factory=factory)}"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stderr == ""
    assert ended.stdout.startswith(f"[Errno {errno.ENOSPC}] an event loop cannot be made: ")
