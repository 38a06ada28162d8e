"""What the environment has about a service manager, if no service manager has set it."""

from __future__ import annotations

import math
import os

import pytest

from relay.server.supervisor.service_manager import ServiceManager, given_sockets

WRONG = ["", "-1", "-5000000", "²", "٣x", "1e6", "0x10", " ", "9" * 400]


@pytest.mark.parametrize("text", WRONG)
def test_a_number_that_is_none_is_no_wish(text: str) -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": text, "PATH": "/bin"}
    assert ServiceManager.of(environ).alive(5.0) == math.inf
    environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": text, "LISTEN_FDNAMES": "a:b"}
    assert given_sockets(environ) == ((), None)
    assert environ == {"PATH": "/bin"}


def test_what_is_for_another_process_is_left_alone() -> None:
    other = str(os.getpid() + 1)
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "10", "WATCHDOG_PID": other}
    assert ServiceManager.of(environ).alive(5.0) == math.inf
    assert given_sockets({"LISTEN_PID": other, "LISTEN_FDS": "1"}) == ((), None)
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "2000000"}
    assert ServiceManager.of(environ).alive(5.0) == 6.0  # half of the time
