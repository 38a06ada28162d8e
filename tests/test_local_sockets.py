"""Sockets between the processes of one server, whose names may disappear."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from relay.local_sockets import NamedListener


def test_a_name_that_cannot_be_made_again_is_tried_now_and_then(tmp_path: Path) -> None:
    """Not at each check: every attempt is a log line."""
    listener = NamedListener(tmp_path / "run" / "socket", 1)
    with listener.open():
        assert not listener.missing
        shutil.rmtree(tmp_path / "run")
        assert listener.missing
        listener.open().close()
        assert not listener.missing
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").touch()
        assert listener.missing, "it could be made the last time"
        with pytest.raises(NotADirectoryError, match="run is not a directory"):
            listener.open()
        assert not listener.missing
    listener.remove()


def test_a_name_that_is_anothers_by_now(tmp_path: Path) -> None:
    """It counts as gone, and the other process keeps the name when this one ends."""
    path = tmp_path / "socket"
    listener = NamedListener(path, 1)
    with listener.open(), NamedListener(path, 1).open() as other:
        assert listener.missing
        listener.remove()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            other.accept()[0].close()
