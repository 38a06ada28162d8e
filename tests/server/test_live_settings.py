"""Settings that change: each reader sees a change once, and never a part of it."""

from __future__ import annotations

import os

import msgspec
import pytest

from relay.errors import UsageError
from relay.server.settings.live import LiveSettings
from relay.settings import Log, Server, Settings, Store

BEFORE = Settings(store=Store(data="/data"))
AFTER = msgspec.structs.replace(BEFORE, log=Log(level="debug"))


def test_a_child_sees_each_change_once() -> None:
    live = LiveSettings(BEFORE)
    to_child, from_parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(to_child, 1)
            seen = [live.changed(), live.changed(), live.current]
            code = 0 if seen == [AFTER, None, AFTER] else 2
        finally:
            os._exit(code)
    assert live.changed() is None
    live.publish(AFTER)
    os.write(from_parent, b"x")
    _, status = os.waitpid(pid, 0)
    os.close(to_child)
    os.close(from_parent)
    assert os.waitstatus_to_exitcode(status) == 0
    assert live.current == AFTER
    assert live.changed() is None, "the writer knows it already"


def test_what_is_being_written_is_not_read() -> None:
    live = LiveSettings(BEFORE)
    reader = LiveSettings(BEFORE)
    reader._header, reader._memory = live._header, live._memory
    live.publish(AFTER)
    live._header[0] += 1  # as during the next write
    assert reader.changed() is None
    live._header[0] += 1
    assert reader.changed() == AFTER


def test_too_large() -> None:
    live = LiveSettings(BEFORE)
    many = tuple(f"127.0.0.1:{n}" for n in range(10_000))
    with pytest.raises(UsageError, match="too large"):
        live.publish(msgspec.structs.replace(BEFORE, server=Server(bind=many)))
    assert live.current == BEFORE
