"""A file gets its name when it is complete; what a killed process has left of one is removed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from relay.client.devices.device_key import write_private
from relay.new_files import remove_unfinished, unfinished
from relay.server.keys.key_files import create_key_file
from tests.support.cluster import ROOT

WRITES = """
import sys, time
from pathlib import Path
from relay.new_files import unfinished
with unfinished(Path(sys.argv[1])) as (path, file):
    file.write(b"secret")
    file.flush()
    print(path, flush=True)
    sys.stdin.read()
"""


class Writer:
    """Another process in the middle of writing."""

    def __init__(self, place: Path) -> None:
        command = [sys.executable, "-c", WRITES, str(place)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        printed: IO[str] | None = self._process.stdout
        assert printed is not None
        with printed:
            self.path = Path(printed.readline().strip())

    def end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.communicate()
        assert self._process.returncode == -number


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT], ids=["killed", "quit"])
@pytest.mark.parametrize("write", [create_key_file, write_private], ids=["server", "client"])
def test_what_a_dead_process_left_is_removed(tmp_path: Path, number: int, write: object) -> None:
    """With the key in it, by whoever writes that file next; another writer's stays."""
    assert callable(write)
    place = tmp_path / "server.key"
    living, dead = Writer(place), Writer(place)
    assert living.path != dead.path
    dead.end(number)
    assert dead.path.read_bytes() == b"secret"
    write(place, b"complete")
    assert sorted(tmp_path.iterdir()) == sorted([place, living.path])
    assert place.read_bytes() == b"complete"
    living.end(signal.SIGKILL)
    remove_unfinished(place)
    assert list(tmp_path.iterdir()) == [place]


def test_files_for_other_places_stay(tmp_path: Path) -> None:
    names = ["server.key", ".server.key.next.1.new", ".server.key.1", ".server.key.own.new"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".server.key.2.new").symlink_to("server.key")
    kept = {*names, ".server.key.2.new"}
    with unfinished(tmp_path / "server.key") as (path, _):
        assert path.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == kept
    (tmp_path / ".server.key.3.new").write_bytes(b"of an earlier version")
    remove_unfinished(tmp_path / "server.key")
    assert {path.name for path in tmp_path.iterdir()} == kept
