"""Sockets between the processes of one server: their names do not last."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from relay.local_sockets import NamedListener


def test_a_name_that_cannot_be_made_again_is_tried_now_and_then(tmp_path: Path) -> None:
    """Not by everybody who looks: each attempt is a line in the log."""
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
