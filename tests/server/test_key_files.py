"""A key file is read only if nobody else could have read or replaced it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.errors import StartError
from relay.file_access import open_to_others
from relay.server.keys.key_files import KEY_FILE_BYTES_MAX, create_key_file, read_key_file
from relay.server.keys.lineage_file import read_lineage, write_lineage


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


def test_a_symbolic_link_is_judged_by_what_it_leads_to(path: Path) -> None:
    """As Kubernetes mounts a Secret: links, in a directory that all may write."""
    secret = path.with_name("secret")
    (secret / "..1").mkdir(parents=True)
    create_key_file(secret / "..1" / "server.key", b"secret")
    (secret / "..data").symlink_to("..1")
    (secret / "server.key").symlink_to("..data/server.key")
    secret.chmod(0o3777)
    path.symlink_to("secret/server.key")
    assert read_key_file(path) == b"secret"
    (secret / "..1" / "server.key").chmod(0o644)
    with pytest.raises(StartError, match="open to others"):
        read_key_file(path)
    (secret / "..1" / "server.key").unlink()
    with pytest.raises(
        StartError, match=r"symbolic link to secret/server\.key, which is not there"
    ):
        read_key_file(path)
    with pytest.raises(StartError, match="exists"):
        create_key_file(path, b"other")
    assert path.is_symlink()


def test_who_a_server_is_is_read_like_a_key(tmp_path: Path) -> None:
    """Whoever may write the server's id decides which accounts it has."""
    path = tmp_path / "server.id"
    write_lineage(path, ["a" * 52])
    assert read_lineage(path) == ["a" * 52]
    path.chmod(0o666)
    with pytest.raises(StartError, match="open to others"):
        read_lineage(path)


READ = """
import os, sys
from pathlib import Path
from relay.errors import StartError
from relay.server.keys.key_files import read_key_file
os.setgroups([int(group) for group in sys.argv[4:]])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
try:
    print(read_key_file(Path(sys.argv[1])).decode())
except StartError as error:
    print(error)
"""
UID, FS_GROUP = 54321, 54322


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "member", "fits"),
    [
        (UID, FS_GROUP, 0o660, True, True),  # a volume, after fsGroup was applied
        (UID, FS_GROUP, 0o640, True, True),
        (0, FS_GROUP, 0o440, True, True),  # a Secret with defaultMode 0400
        (0, FS_GROUP, 0o640, True, True),
        (UID, FS_GROUP, 0o660, False, False),  # others are in that group, we are not
        (UID, FS_GROUP, 0o670, True, False),
        (UID, FS_GROUP, 0o664, True, False),
        (0, FS_GROUP, 0o644, True, False),  # a Secret with the default mode
        # the group has a name, so it may have members
        (UID, grp.getgrnam("users").gr_gid, 0o640, True, False),
        (UID, 0, 0o640, True, False),
        (UID + 5, FS_GROUP, 0o660, True, False),
    ],
)
def test_a_group_of_which_we_are_the_only_member(
    owner: int, group: int, mode: int, member: bool, fits: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "server.key"
        create_key_file(path, b"secret")
        path.chmod(mode)
        os.chown(path, owner, group)
        groups = [str(group)] if member else []
        ended = subprocess.run(
            [sys.executable, "-c", READ, path, str(UID), str(UID), *groups],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert (ended.stdout == "secret\n") is fits, ended.stdout
        if not fits:
            assert ended.stdout.startswith(f"key file {path} ")


@pytest.mark.parametrize(
    ("name", "members", "fits"),
    [("me", [], True), ("me", ["me"], True), ("me", ["me", "eve"], False), ("staff", [], False)],
)
def test_the_group_that_a_system_makes_for_each_user(
    monkeypatch: pytest.MonkeyPatch, name: str, members: list[str], fits: bool
) -> None:
    """It belongs to the user alone unless others were added to it."""
    user = pwd.struct_passwd(("me", "x", os.geteuid(), FS_GROUP, "", "/", "/bin/sh"))
    monkeypatch.setattr(os, "getegid", lambda: FS_GROUP)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, members)))
    values = (stat.S_IFREG | 0o640, 1, 1, 1, os.geteuid(), FS_GROUP, 1, 0, 0, 0)
    assert open_to_others(os.stat_result(values)) is not fits


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", link)
    create_key_file(path, b"first")
    with pytest.raises(StartError, match="File exists"):
        create_key_file(path, b"second")
    assert read_key_file(path) == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_one_that_takes_the_place_of_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The previous file is intact until then, whatever fails."""
    create_key_file(path, b"first")
    create_key_file(path, b"second", replace=True)
    assert read_key_file(path) == b"second"

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StartError, match=r"server.key cannot be written \(fsync\): Input/output"):
        create_key_file(path, b"third", replace=True)
    assert read_key_file(path) == b"second"
    assert list(path.parent.iterdir()) == [path]


def link(path: Path) -> None:
    path.symlink_to("elsewhere")
    path.with_name("elsewhere").write_bytes(b"first")


def dangling(path: Path) -> None:
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("put", [link, dangling, pipe, Path.mkdir])
def test_what_somebody_has_put_in_its_place_stays(path: Path, put: Callable[[Path], None]) -> None:
    """A link is not followed: root would follow what the server's user has put there."""
    put(path)
    before = path.lstat()
    for replace in (False, True):
        with pytest.raises(StartError, match=r"File exists|it is not replaced"):
            create_key_file(path, b"second", replace=replace)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert put is not link or path.read_bytes() == b"first"
    assert {*path.parent.iterdir()} <= {path, path.with_name("elsewhere")}


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_what_failed_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, step, fail)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StartError, match=rf"server.key cannot be written \({step}\): Input/output"):
        create_key_file(path, b"secret")
    assert list(path.parent.iterdir()) == []


def test_a_directory_that_cannot_be_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def of_files_alone(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(fd)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    create_key_file(path, b"secret")
    assert read_key_file(path) == b"secret"


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
