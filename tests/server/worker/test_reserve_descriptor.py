"""The descriptor that is kept for when there are no others."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from relay.server.worker.process.accepting.reserve_descriptor import ReserveDescriptor
from tests.support.cluster import until


class Files:
    """Opens of /dev/null, which fail as long as there are no descriptors."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.exhausted = False
        self.opened: list[int] = []
        self.failures = 0
        really = os.open

        def opening(path: str, flags: int, mode: int = 0o777) -> int:
            if path != os.devnull:
                return really(path, flags, mode)
            if self.exhausted:
                self.failures += 1
                raise OSError(errno.EMFILE, "Too many open files")
            self.opened.append(really(path, flags, mode))
            return self.opened[-1]

        patch.setattr(os, "open", opening)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(monkeypatch)


async def test_one_is_kept_until_it_is_given_up(files: Files) -> None:
    reserve = ReserveDescriptor(asyncio.get_running_loop())
    assert not reserve.give_up()
    reserve.keep()
    reserve.keep()
    assert len(files.opened) == 1
    assert reserve.give_up()
    assert not reserve.give_up()


async def test_it_is_taken_back_once_there_is_one_again(files: Files) -> None:
    """Whoever had the last one gives no notice: without this nobody is told any more."""
    reserve = ReserveDescriptor(asyncio.get_running_loop())
    files.exhausted = True
    reserve.keep()
    await until(lambda: files.failures > 1, "another attempt")
    files.exhausted = False
    await until(lambda: files.opened, "a descriptor")
    assert reserve.give_up()


async def test_who_gives_it_up_no_longer_waits_for_one(files: Files) -> None:
    loop = asyncio.get_running_loop()
    reserve = ReserveDescriptor(loop)
    files.exhausted = True
    reserve.keep()
    retry = reserve._retry
    assert retry is not None
    assert not reserve.give_up()
    assert retry.cancelled()
