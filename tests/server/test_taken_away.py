"""Commands on a stopped relay's data, of which a partition and its lock file were removed.

Only a start creates it anew, and logs that: a command would do it unnoticed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.chat.accounts import requests
from relay.chat.partition import PARTITIONS, partition_of
from relay.errors import StartError
from relay.server.offline import export
from relay.server.offline.accounts import OfflineAccounts
from relay.store.file.directory import DataDirectory
from tests.support.cluster import run_relay

LOG = "@alice"
GONE = "are missing: put them back"


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    """The data directory of a relay that had created all its partitions."""
    made = DataDirectory(tmp_path / "data")
    with OfflineAccounts(made.path) as accounts:
        accounts.ask(LOG, requests.Add(bytes(32), 2**60, False))
    for index in range(PARTITIONS):
        made.lock_path(index).touch()
    (made.path / "logs" / "made").touch()
    for file in (made.path / "logs").glob(f"{partition_of(LOG):02}.*"):
        file.rename(tmp_path / file.name)
    return made


def test_accounts_are_neither_listed_nor_changed(directory: DataDirectory) -> None:
    for _ in range(2):  # the lock is free again
        with pytest.raises(StartError, match=GONE), OfflineAccounts(directory.path):
            pass
    ended = run_relay("user", "list", "--data", str(directory.path))
    assert (ended.returncode, GONE in ended.stderr) == (1, True), ended.stderr
    assert directory.begin_anew() == [partition_of(LOG)], "a start reports it"
    with OfflineAccounts(directory.path) as accounts:
        assert accounts.names() == []


def test_nothing_is_read_or_put_in_as_if_it_were_new(directory: DataDirectory) -> None:
    room = next(name for n in range(1000) if partition_of(name := f"room-{n}") == partition_of(LOG))
    other = next(name for n in range(1000) if partition_of(name := f"room-{n}") == 0)
    assert partition_of(LOG) != 0
    line = export.Line(room, 1, "bob", "text/plain", b"hi")
    with pytest.raises(StartError, match=GONE):
        export.import_lines(directory, b"", [line])
    for wanted in (room, None):
        with pytest.raises(StartError, match=GONE):
            list(export.export(directory.path, wanted))
    with pytest.raises(StartError, match="there is no room"):
        list(export.export(directory.path, other))
    ended = run_relay("data", "check", "--data", str(directory.path))
    assert GONE in ended.stderr
    assert directory.gone_partitions() == [partition_of(LOG)]
