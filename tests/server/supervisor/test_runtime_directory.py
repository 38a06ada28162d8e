"""The directory of sockets: private, cleaned, and short enough."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.errors import StartError
from relay.server.supervisor.runtime_directory import PATH_BYTES_MAX, prepare
from tests.support.refused_calls import CAN_BE_REFUSED, refusing


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short path instead of pytest's: a socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_beside_the_data(tmp_path: Path) -> None:
    wanted = tmp_path / "r"
    assert prepare(str(wanted), tmp_path).path == wanted
    assert mode(wanted) == mode(wanted / "bus") == 0o700


def test_sockets_of_a_dead_run_go_and_nothing_else(tmp_path: Path) -> None:
    wanted = tmp_path / "r"
    prepare(str(wanted), tmp_path).close()
    names = ("agent.sock", "ctl.sock", "bus/0.1.sock", "ctl/0.1.sock")
    for path in (wanted / name for name in names):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    (wanted / "note").write_text("not ours")
    prepare(str(wanted), tmp_path).close()
    assert sorted(path.name for path in wanted.rglob("*")) == ["bus", "ctl", "note"]
    assert mode(wanted) == 0o700


def test_a_clean_end_leaves_what_is_not_ours(tmp_path: Path) -> None:
    """It may be shared, such as a session's own directory with other sockets."""
    wanted = tmp_path / "r"
    wanted.mkdir(mode=0o700)
    theirs = wanted / "wayland-0"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(theirs))
    used = prepare(str(wanted), tmp_path)
    names = ("agent.sock", "ctl.sock", "bus/0.1.sock", "ctl/0.1.sock")
    for path in (wanted / name for name in names):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    used.clean_up()
    assert list(wanted.iterdir()) == [theirs]
    theirs.unlink()
    used.clean_up()
    assert not wanted.exists()


@pytest.fixture
def long_data(tmp_path: Path) -> Path:
    data = tmp_path / ("long" * 25)
    data.mkdir()
    return data


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory, and no $XDG_RUNTIME_DIR."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr("tempfile.tempdir", name)
        yield Path(name)


def test_a_long_path_moves_to_a_directory_that_nobody_can_foresee(
    long_data: Path, short: Path, tmp_path: Path
) -> None:
    used = prepare("", long_data)
    assert used.path.parent == short
    assert mode(used.path) == 0o700
    used.close()
    again = prepare("", long_data)
    assert again.path == used.path  # nothing of a killed run stays behind
    again.clean_up()
    again.close()
    assert list(short.iterdir()) == []
    assert list(long_data.iterdir()) == []
    another = prepare("", long_data)
    assert another.path != used.path
    other_data = tmp_path / ("else" * 25)
    other_data.mkdir()
    assert prepare("", other_data).path != another.path


def test_a_copied_link_leads_to_the_directory_of_another_relay(
    long_data: Path, short: Path, tmp_path: Path
) -> None:
    """As after ``cp -a`` of the data of a running relay."""
    used = prepare("", long_data)
    copy = tmp_path / ("copy" * 25)
    copy.mkdir()
    (copy / "runtime").symlink_to((long_data / "runtime").readlink())
    assert prepare("", copy).path != used.path
    assert (copy / "runtime").readlink() != used.path


@pytest.mark.parametrize("squat", ["nothing", "link", "file", "open"])
def test_a_directory_that_is_not_ours_any_more_is_left_alone(
    long_data: Path, short: Path, squat: str
) -> None:
    """A cleaner removed it, and another user created one there: the start does not use it."""
    used = prepare("", long_data)
    used.clean_up()
    used.close()
    (long_data / "runtime").symlink_to(used.path)
    if squat == "link":
        (short / "elsewhere").mkdir(0o700)
        used.path.symlink_to(short / "elsewhere")
    elif squat == "file":
        used.path.touch()
    elif squat == "open":
        used.path.mkdir()
        used.path.chmod(0o777)
    assert prepare("", long_data).path != used.path


def test_the_sessions_own_directory_goes_first(
    long_data: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = short / "session"
    session.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    used = prepare("", long_data)
    assert used.path.parent == session
    used.clean_up()
    session.chmod(0o755)
    assert prepare("", long_data).path.parent == short


def test_the_message_names_the_setting_and_the_limit(
    long_data: Path, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        StartError, match=rf"server.runtime .* bytes are too long.*{PATH_BYTES_MAX}"
    ):
        prepare(str(long_data / "run"), long_data)
    monkeypatch.setattr("tempfile.tempdir", str(long_data))
    with pytest.raises(StartError, match=rf"server.runtime .* too long.*{PATH_BYTES_MAX} bytes"):
        prepare("", long_data)
    (short / "file").touch()
    with pytest.raises(StartError, match=r"server.runtime .*/file: cannot be used for sockets: "):
        prepare(str(short / "file"), long_data)


def test_where_sockets_cannot_be_made(tmp_path: Path) -> None:
    """Directories can be made and sockets cannot, as on some mounts: the start fails."""
    wanted = tmp_path / "r"
    (wanted / "bus" / "0.0.sock").mkdir(parents=True)
    for directory in (wanted, wanted / "bus"):
        directory.chmod(0o700)
    with pytest.raises(StartError, match=r"server.runtime .*: cannot be used for sockets: Address"):
        prepare(str(wanted), tmp_path)


def test_not_ours(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StartError, match="not a directory of ours"):
        prepare(str(tmp_path / "link"), tmp_path)


@pytest.mark.parametrize("open_mode", [0o1777, 0o755, 0o710])
def test_a_directory_that_others_use_keeps_its_mode(tmp_path: Path, open_mode: int) -> None:
    """/tmp was configured by root: closing it would break all other users."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(open_mode)
    (shared / "theirs").touch()
    with pytest.raises(StartError, match=rf"open to others \(mode {open_mode:04o}\)"):
        prepare(str(shared), tmp_path)
    assert shared.stat().st_mode & 0o7777 == open_mode
    assert [path.name for path in shared.iterdir()] == ["theirs"]
    (shared / "theirs").unlink()
    prepare(str(shared), tmp_path)
    assert mode(shared) == 0o700


def test_two_relays_do_not_share_one(tmp_path: Path) -> None:
    """The second would remove the first one's sockets."""
    used = prepare(str(tmp_path / "r"), tmp_path)
    with pytest.raises(StartError, match=r"server.runtime .* is in use by another relay"):
        prepare(str(tmp_path / "r"), tmp_path)
    used.close()
    prepare(str(tmp_path / "r"), tmp_path)


LOCK = """
import os
import sys
from pathlib import Path
from relay.errors import StartError
from relay.server.supervisor.runtime_directory import prepare
before = os.listdir("/proc/self/fd")
try:
    prepare(sys.argv[1], Path(sys.argv[2]))
except StartError as error:
    print(error)
assert os.listdir("/proc/self/fd") == before
"""


@CAN_BE_REFUSED
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EPERM, errno.ENOSYS])
def test_where_nothing_can_be_locked(tmp_path: Path, error: int) -> None:
    """By a file system without locks: it is not about sockets or paths, nor about a filter, which
    a start has found before.
    """
    wanted = tmp_path / "r"
    ended = subprocess.run(
        [sys.executable, "-c", refusing(error, "flock") + LOCK, wanted, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith(
        f"server.runtime {wanted}: cannot be locked: {os.strerror(error)}; "
        "its file system must have locks (flock)\n"
    )
