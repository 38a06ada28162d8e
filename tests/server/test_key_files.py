"""A key file is read only when nobody else could have read or replaced it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.errors import StartError
from relay.server.key_files import KEY_FILE_BYTES_MAX, create_key_file, read_key_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.key"


def test_round_trip(path: Path) -> None:
    before = os.umask(0)
    try:
        create_key_file(path, b"secret")
    finally:
        os.umask(before)
    assert read_key_file(path) == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_no_file_is_not_an_error(path: Path) -> None:
    assert read_key_file(path) is None


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    create_key_file(path, b"first")
    with pytest.raises(StartError, match="File exists"):
        create_key_file(path, b"second")
    assert read_key_file(path) == b"first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610])
def test_open_to_others(path: Path, mode: int) -> None:
    create_key_file(path, b"secret")
    path.chmod(mode)
    with pytest.raises(StartError, match=rf"mode {mode:04o}\); run: chmod 600 ") as caught:
        read_key_file(path)
    assert "secret" not in str(caught.value)


def test_symbolic_link(path: Path) -> None:
    create_key_file(path.with_name("other"), b"secret")
    path.symlink_to("other")
    with pytest.raises(StartError, match="symbolic link"):
        read_key_file(path)


def test_not_a_file(path: Path) -> None:
    path.mkdir(mode=0o700)
    with pytest.raises(StartError, match="not a regular file"):
        read_key_file(path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(StartError, match="not a regular file"):
        read_key_file(path)


@pytest.mark.parametrize(("size", "message"), [(0, "empty"), (KEY_FILE_BYTES_MAX + 1, "too large")])
def test_size(path: Path, size: int, message: str) -> None:
    create_key_file(path, bytes(size))
    with pytest.raises(StartError, match=message):
        read_key_file(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_of_another_owner(path: Path) -> None:
    create_key_file(path, b"secret")
    os.chown(path, 12345, 12345)
    with pytest.raises(StartError, match="belongs to uid 12345"):
        read_key_file(path)


def test_unwritable_directory(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be written"):
        create_key_file(tmp_path / "missing" / "server.key", b"x")
