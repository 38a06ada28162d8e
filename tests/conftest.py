"""What all tests share."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from tests.support.cluster import Relay

LONG: Final = frozenset({"torture", "loadtest", "system", "cli"})
"""Folders whose files take long. They are begun first: all processes are done at about one time."""
LONGEST: Final = (
    "tests/system/test_upgrade.py",
    "tests/system/test_operations_commands.py",
    "tests/client/test_malformed.py",
    "tests/cli/test_accounts.py",
    "tests/test_trace.py",
    "tests/system/test_server_keys.py",
    "tests/system/test_data.py",
    "tests/system/test_many_workers.py",
    "tests/cli/test_rooms.py",
    "tests/client/test_hostile_server.py",
    "tests/system/test_environment.py",
    "tests/torture/test_amended.py",
    "tests/system/test_separation.py",
    "tests/client/faces/test_talk.py",
    "tests/torture/test_rights.py",
    "tests/cli/test_send.py",
    "tests/system/test_unopened_partition.py",
    "tests/torture/test_broken_variants.py",
    "tests/wire/test_handshake.py",
    "tests/torture/test_saturated.py",
    "tests/torture/test_failing_disk.py",
    "tests/torture/test_power_cut.py",
    "tests/loadtest/test_swarm.py",
    "tests/loadtest/test_programs.py",
    "tests/server/worker/test_seam.py",
    "tests/server/worker/test_pace.py",
)
"""Those that take longest, the longest first, of these folders and of others: one of them that was
begun late would be the work of one process when the others are done."""
FOLDER: Final = Path(__file__).parent
_numbers = itertools.count()

# Containers often tell Python to keep no bytecode. The suite starts well over a thousand processes:
# each would compile all that it imports, which is a quarter of what the whole suite costs. An
# installed Relay has its bytecode, too.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Images set these as well, and people do not. With the first, output that is never flushed arrives
# all the same; with the second, terminals that do not report the cursor go untested.
for _name in ("PYTHONUNBUFFERED", "PROMPT_TOOLKIT_NO_CPR"):
    os.environ.pop(_name, None)

Relay.forked = True

# Its default fails a test whose example takes more than 200 ms, as on a busy machine.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage: nearly all that is imported and collected stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long; otherwise the order stays as chance has it."""
    items.sort(key=lambda item: _turn(item.path))


def pytest_collection_finish() -> None:
    """What has been imported and collected is there to stay: no collection looks at it again."""
    gc.freeze()


@functools.cache
def _turn(path: Path) -> int:
    """Return the place of a file in the order of files; asked for each of its tests."""
    file = path.relative_to(FOLDER.parent)
    with contextlib.suppress(ValueError):
        return LONGEST.index(file.as_posix())
    return len(LONGEST) + (file.parts[1] not in LONG)


# A shell has the jobs in its background ignore these, nohup HUP, and so would all that the tests
# start; what people start does not.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.fixture(scope="session", autouse=True)
def _own_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or changes the keys of whoever runs it; nor does what several tests share.

    Device keys are one directory for all tests of a process, for a relay may serve several tests;
    a client that has none makes one and claims its name.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(config := tmp_path_factory.mktemp("config")))
        patch.setenv("RELAY_KEYS", str(tmp_path_factory.getbasetemp() / "keys"))
        patch.setenv("RELAY_REGISTER", "1")
        yield config


@pytest.fixture(autouse=True)
def _own_configuration(_own_keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands keep for the user is each test's own: keys of servers, aliases."""
    directory = _own_keys / str(next(_numbers))  # ``mktemp`` looks at all that it has made before
    directory.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory))


@pytest.fixture(autouse=True)
def _unchanged_logging() -> Iterator[None]:
    """No test leaves its log behind: a worker that runs in a test's process sets the level, too."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
