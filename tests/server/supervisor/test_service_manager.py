"""Variables of a service manager in the environment that no service manager set for us."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from pathlib import Path

import pytest

from relay.server.supervisor.service_manager import (
    UNTOLD_MAX,
    ServiceManager,
    given_sockets,
)

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
    assert ServiceManager.of(environ).alive(5.0) == 6.0  # half of the watchdog interval


def test_one_that_hangs_is_told_later_and_not_waited_for(tmp_path: Path) -> None:
    """Its queue is full: messages are sent in order when there is room; the last one is always
    sent.
    """
    path = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        theirs.bind(path)
        theirs.setblocking(False)
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"of others", path)
        manager = ServiceManager.of({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})
        for number in range(UNTOLD_MAX):  # more than are kept: a reload sends two
            manager.reloading()
            manager.ready(f"{number}")
        assert 5.0 < manager.alive(5.0) < 6.0, "it is tried again soon"
        told: list[bytes] = []
        while b"WATCHDOG=1" not in told:
            with contextlib.suppress(BlockingIOError):
                while True:
                    told.append(theirs.recv(4096))
            manager.alive(6.0)
        ours = [text for text in told if text != b"of others"]
        assert ours[-2:] == [f"READY=1\nSTATUS={UNTOLD_MAX - 1}".encode(), b"WATCHDOG=1"]
        assert len(ours) == UNTOLD_MAX + 1
        assert manager.alive(6.0) == 6.5
