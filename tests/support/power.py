"""A power cut for a whole relay: what its processes wrote and did not sync is lost.

Each worker's SQLite files are on a VFS that records beside them what it writes and what it syncs
(``record``). When all processes are dead, ``cut`` turns every file into what a disk might have
left. Names in directories count as durable at once: no VFS sees who syncs them.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import apsw

from tests.support.disks import Content

_HEAD: Final = struct.Struct("<BQQ")
"""What was done; where: an offset, a size, or how far the notes are synced; bytes that follow."""
_WRITE, _TRUNCATE, _SYNC = range(3)


class Notes:
    """What is known of one file since power-on: its original content, and the changes."""

    def __init__(self, directory: Path, path: Path) -> None:
        self.path = path
        name = str(path).replace("/", "%")
        self._before = directory / f"{name}.before"
        self._done = directory / f"{name}.done"
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Note how the file is before the first change of it. One process changes a file."""
        with self._lock:
            if self._before.exists():
                return
            partial = self._before.with_suffix(".new")
            partial.write_bytes(self.path.read_bytes() if self.path.exists() else b"")
            partial.replace(self._before)

    def add(self, done: int, at: int, data: bytes = b"") -> None:
        """Note what was done."""
        # In one write: a process that is killed leaves it whole or not at all.
        fd = os.open(self._done, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, _HEAD.pack(done, at, len(data)) + data)
        finally:
            os.close(fd)

    def size(self) -> int:
        """How much was noted so far: a sync makes at least so much durable."""
        return self._done.stat().st_size if self._done.exists() else 0

    def forget(self) -> None:
        """The file is deleted."""
        with self._lock:
            self._before.unlink(missing_ok=True)
            self._done.unlink(missing_ok=True)

    def content(self) -> Content | None:
        """Return what is durable of the file, and what is not; None: nothing was changed."""
        if not self._before.exists():
            return None
        content = Content(self._before.read_bytes())
        done = self._done.read_bytes() if self._done.exists() else b""
        records = list(_records(done))
        synced = max((at for _, kind, at, _ in records if kind == _SYNC), default=0)
        for start, kind, at, data in records:
            if kind != _SYNC:
                content.pending.append((at, data if kind == _WRITE else None))
                if start < synced:
                    content.sync()
        return content


def _records(done: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEAD.size <= len(done):
        kind, where, size = _HEAD.unpack_from(done, at)
        end = at + _HEAD.size + size
        if end > len(done):
            return  # its process was killed in the middle
        yield at, kind, where, done[at + _HEAD.size : end]
        at = end


class _Vfs(apsw.VFS):
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._notes: dict[Path, Notes] = {}
        super().__init__("power", "unix", makedefault=True)

    def notes(self, path: Path) -> Notes:
        return self._notes.setdefault(path, Notes(self._directory, path))

    def xOpen(  # noqa: N802  # SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("unix", cast("Any", name), flags)
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self.notes(Path(filename)).forget()


class _File(apsw.VFSFile):
    def __init__(self, vfs: _Vfs, name: str | apsw.URIFilename, flags: list[int]) -> None:
        super().__init__("unix", cast("Any", name), flags)
        self._notes = vfs.notes(Path(name.filename() if not isinstance(name, str) else name))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._notes.begin()
        self._notes.add(_WRITE, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._notes.begin()
        self._notes.add(_TRUNCATE, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        before = self._notes.size()
        super().xSync(flags)
        self._notes.add(_SYNC, before)


_INSTALLED: Final[list[_Vfs]] = []


def record(directory: Path) -> None:
    """Record all SQLite files of this process from now on, until it ends."""
    directory.mkdir(exist_ok=True)
    _INSTALLED.append(_Vfs(directory))


def cut(directory: Path, chance: random.Random) -> int:
    """Drop what was not synced of all files that were noted; return of how many bytes.

    Nothing of the relay runs any more. The next one begins with new notes.
    """
    dropped = 0
    for before in sorted(directory.glob("*.before")):
        path = Path(before.name.removesuffix(".before").replace("%", "/"))
        notes = Notes(directory, path)
        content = notes.content()
        notes.forget()
        if content is None or not path.exists():
            continue
        dropped += sum(len(data) for _, data in content.pending if data is not None)
        path.write_bytes(content.after_power_cut(chance))
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return dropped
