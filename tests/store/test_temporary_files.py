"""SQLite writes no file outside of the data directory, where that may be forbidden."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay.server.system import landlock
from tests.support.cluster import COMMAND_S

FOLLOWS = """
import logging, os, sys
from pathlib import Path
from relay.server.system import landlock, prctl
from tests.store.test_search import Indexed
logging.basicConfig()
data = Path(sys.argv[1])
prctl.no_new_privileges()
assert landlock.forbid([data.parent / "server.key"])  # nothing new can be opened in there then
indexed = Indexed(data)
for number in range(1600):
    # Rooms in turn: the index is written, and merged, within a statement.
    indexed.append(f"writer{number % 10} {number} x{number * 7919}", f"room{number % 8}")
    if number % 100 == 99:
        indexed.follower.run(60.0)
assert not indexed.follower.behind
indexed.close()
"""


@pytest.mark.skipif(not landlock.abi(), reason="no Landlock here")
def test_an_index_grows_where_no_temporary_file_can_be(tmp_path: Path) -> None:
    """As in a container with a read-only root, or where $TMPDIR is above the data directory."""
    data = tmp_path / "data"
    data.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", FOLLOWS, str(data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == [data]
