"""Sockets between the processes of one server, whose names may disappear."""

from __future__ import annotations

import math
import shutil
import socket
from pathlib import Path

import pytest

from relay.local_sockets import NamedListener, NotOpened, remove_earlier


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
        with pytest.raises(NotOpened, match="run is not a directory"):
            listener.open()
        assert not listener.missing
    listener.remove()


def test_a_name_that_was_never_made_is_made_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").touch()
    listener = NamedListener(tmp_path / "run" / "socket", 1)
    assert not listener.missing, "nobody wants it yet"
    with pytest.raises(NotOpened):
        listener.open()
    assert not listener.missing, "not at each check"
    listener.remove()
    (tmp_path / "run").unlink()
    monkeypatch.setattr("relay.local_sockets.time.monotonic", lambda: math.inf)
    assert listener.missing
    with listener.open():
        assert not listener.missing


def test_sockets_of_earlier_workers(tmp_path: Path) -> None:
    """Not those of other workers, and of another server."""
    names = ["0.3.sock", "0.6.sock", "0.7.sock", "1.6.sock", "10.6.sock", "agent.6.sock"]
    for name in names:
        (tmp_path / name).touch()
    remove_earlier(tmp_path, 0, first_generation=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {*names} - {"0.6.sock", "0.7.sock"}
    )
    remove_earlier(tmp_path / "none", 0, first_generation=0)


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
