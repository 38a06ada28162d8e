"""A worker that cannot allocate memory exits, and does not mistake that for another error."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from relay.server.system.resource_limits import OUT_OF_MEMORY
from relay.server.worker.out_of_memory import exit_if_out_of_memory, unhandled
from relay.server.worker.process.periodic import attempt
from relay.store.errors import StoreUnavailable
from relay.store.file.integrity import _readable
from relay.store.file.schema import translated


def exit_code(work: Callable[[], object]) -> int:
    """Run a function in a forked process; return its exit code: 0 if it goes on."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def refused() -> None:
    raise MemoryError


def in_a_callback() -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(unhandled)
    loop.call_soon(refused)
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.parametrize(
    "work",
    [lambda: exit_if_out_of_memory(MemoryError()), lambda: attempt(refused), in_a_callback],
    ids=["it", "periodic", "callback"],
)
def test_it_ends_at_once(work: Callable[[], object]) -> None:
    assert exit_code(work) == OUT_OF_MEMORY


def test_it_goes_on_after_anything_else() -> None:
    for error in (None, ValueError("no"), RecursionError(), KeyboardInterrupt()):
        exit_if_out_of_memory(error)


def test_it_is_no_matter_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        translated(apsw.NoMemError("out of memory"), tmp_path)
    assert isinstance(translated(apsw.IOError("disk"), tmp_path), StoreUnavailable)


def test_it_is_no_damage() -> None:
    """A partition reported as damaged is refused for good."""

    def unpack(packed: bytes) -> object:
        raise MemoryError

    with pytest.raises(MemoryError):
        _readable(b"an entry", "lobby", 1, unpack)  # type: ignore[arg-type]
