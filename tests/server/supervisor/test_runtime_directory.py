"""The directory of sockets: private, clean, and short enough."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from relay.errors import StartError
from relay.server.supervisor.runtime_directory import clean_up, prepare


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_beside_the_data(tmp_path: Path) -> None:
    wanted = tmp_path / "r"
    assert prepare(str(wanted), tmp_path) == wanted
    assert mode(wanted) == mode(wanted / "bus") == 0o700


def test_sockets_of_a_dead_run_go_and_nothing_else(tmp_path: Path) -> None:
    wanted = tmp_path / "r"
    prepare(str(wanted), tmp_path)
    for path in (wanted / "agent.sock", wanted / "bus" / "0.1.sock"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    (wanted / "note").write_text("not ours")
    wanted.chmod(0o755)
    prepare(str(wanted), tmp_path)
    assert sorted(path.name for path in wanted.rglob("*")) == ["bus", "note"]
    assert mode(wanted) == 0o700


def test_a_clean_end_leaves_what_is_not_ours(tmp_path: Path) -> None:
    """Somebody may name a directory that others use, too: a session's own, with its sockets."""
    wanted = tmp_path / "r"
    wanted.mkdir(mode=0o700)
    theirs = wanted / "wayland-0"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(theirs))
    prepare(str(wanted), tmp_path)
    for path in (wanted / "agent.sock", wanted / "bus" / "0.1.sock"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    clean_up(wanted)
    assert list(wanted.iterdir()) == [theirs]
    theirs.unlink()
    clean_up(wanted)
    assert not wanted.exists()


def test_a_long_path_moves_to_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / ("long" * 25)
    data.mkdir()
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        runtime = prepare("", data)
        assert runtime.parent == Path(short)
        assert prepare("", data) == runtime  # the same one at each start
    with pytest.raises(StartError, match="too long for a socket"):
        prepare(str(data / "run"), data)


def test_not_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be used"):
        prepare(str(tmp_path / "file"), tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StartError, match="not our directory"):
        prepare(str(tmp_path / "link"), tmp_path)
