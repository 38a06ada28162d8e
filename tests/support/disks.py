"""Disks that fail, and disks that lose power: SQLite VFSes below all of its connections.

While a disk is in use, each file that SQLite opens in this process is on it.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import apsw

SECTOR: Final = 512
Operation: TypeAlias = Literal["read", "write", "sync", "truncate"]
Fails: TypeAlias = Callable[[Operation, str], apsw.Error | None]
"""Given what is to be done with which file: the error that it ends with; None: it is done."""
_names = itertools.count()


def full(_: Operation = "write", __: str = "") -> apsw.Error:
    """ENOSPC."""
    return _error(apsw.FullError, apsw.SQLITE_FULL)


def broken(operation: Operation, _: str = "") -> apsw.Error:
    """EIO."""
    codes = {
        "read": apsw.SQLITE_IOERR_READ,
        "write": apsw.SQLITE_IOERR_WRITE,
        "sync": apsw.SQLITE_IOERR_FSYNC,
        "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    }
    return _error(apsw.IOError, codes[operation])


def _error(kind: type[apsw.Error], code: int) -> apsw.Error:
    error: Any = kind("planted by a test")
    error.extendedresult = code
    error.result = code & 0xFF
    made: apsw.Error = error
    return made


class Disk:
    """Writes are visible at once, and durable once they are synced."""

    def __init__(self, *, powered: bool = False) -> None:
        """Create one; ``powered``: its power is never cut, so it does not track what was synced."""
        self.powered = powered
        self.fails: Fails = lambda operation, name: None
        self.done: list[tuple[Operation, str]] = []
        """All operations but reads, with the name of the file."""
        self.files: dict[Path, Content] = {}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Disk]:
        """Put all files on it that are opened meanwhile."""
        vfs = _Vfs(self)
        try:
            yield self
        finally:
            self.fails = lambda operation, name: None
            vfs.unregister()

    def operate(self, operation: Operation, path: Path) -> None:
        """Do something. Raises what it fails with."""
        error = self.fails(operation, path.name)
        if error is not None:
            raise error
        if operation != "read" and not self.powered:
            self.done.append((operation, path.name))

    def cut_power(self, chance: random.Random) -> None:
        """Lose what was not synced: any part of it, because a disk may reorder writes.

        All connections are closed, and the memory of processes (the index of a WAL) is lost.
        """
        for path, content in self.files.items():
            kept = content.after_power_cut(chance)
            path.write_bytes(kept)
            path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        self.files.clear()


class Content:
    """One file: what is durable, and what was written since."""

    def __init__(self, durable: bytes) -> None:
        self.durable = bytearray(durable)
        self.pending: list[tuple[int, bytes | None]] = []
        """(offset, bytes); or (size, None): the file was cut."""

    def sync(self) -> None:
        """Make all durable."""
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def after_power_cut(self, chance: random.Random) -> bytes:
        """Return what remains: of the pending writes nothing, all, or some sectors."""
        left = bytearray(self.durable)
        share = chance.choice([0.0, 0.5, 1.0])
        for offset, data in self.pending:
            if data is None:
                if chance.random() < share:
                    _apply(left, offset, None)
                continue
            for at in range(0, len(data), SECTOR):
                if chance.random() < share:
                    _apply(left, offset + at, data[at : at + SECTOR])
        return bytes(left)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.name = f"disk-{next(_names)}"
        self._disk = disk
        super().__init__(self.name, "unix", makedefault=True)

    def xOpen(  # noqa: N802  # SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._disk.files.pop(Path(filename), None)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        path = Path(text or "temporary")
        before = path.read_bytes() if path.exists() and not disk.powered else b""
        super().__init__("unix", cast("Any", name), flags)
        self._disk, self._path = disk, path
        self._content = disk.files.setdefault(path, Content(before))

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.operate("read", self._path)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.operate("write", self._path)
        super().xWrite(data, offset)
        if not self._disk.powered:
            self._content.pending.append((offset, bytes(data)))

    def xSync(self, flags: int) -> None:  # noqa: N802
        try:
            self._disk.operate("sync", self._path)
        except apsw.Error:
            # As Linux: the pages are still read, and count as written, though they are not. The
            # next sync succeeds, and does not write them.
            self._content.pending.clear()
            raise
        super().xSync(flags)
        self._content.sync()

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.operate("truncate", self._path)
        super().xTruncate(newsize)
        if not self._disk.powered:
            self._content.pending.append((newsize, None))
