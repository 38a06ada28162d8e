"""Checks and repairs the partitions of a stopped relay."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from relay.chat.names import is_handle
from relay.chat.partition import PARTITIONS
from relay.errors import StartError
from relay.fsync import sync_directory
from relay.paths import followed
from relay.server.meaning import meaningless
from relay.server.system.boot_id import boot_id
from relay.store.errors import StoreCorrupt, StoreError
from relay.store.examine import Examined, examine, examine_still
from relay.store.file.companions import index_path, wal_path
from relay.store.file.directory import DataDirectory
from relay.store.file.generation import Host
from relay.store.file.integrity import DamagedLog
from relay.store.file.lock import PartitionLock, read_refusal
from relay.store.salvage.choice import is_better, missing
from relay.store.salvage.log import SalvagedLog
from relay.store.salvage.partition import salvage
from relay.wire.packing import pack_entry, unpack_entry

ASIDE: Final = "damaged"
"""The directory in the data directory for replaced files."""
RESCUED: Final = "rescued.jsonl"


class Found(NamedTuple):
    """The result for a partition."""

    partition: int
    examined: Examined | None
    refused: str | None
    """Why a start refuses it; None: it does not."""

    @property
    def damaged(self) -> list[DamagedLog]:
        """Accounts, invitations and rooms that are not whole, in a partition that is served."""
        return [] if self.examined is None else self.examined.logs

    @property
    def to_repair(self) -> str | None:
        """Why a repair replaces it; None: it would gain nothing."""
        mended = [f"{one.log}: {one.reason}" for one in self.damaged if one.repairable]
        return self.refused or (", ".join(mended) if mended else None)


class Repaired(NamedTuple):
    """What was done about a partition."""

    partition: int
    reason: str
    logs: list[SalvagedLog]
    kept_in: Path
    """Location of the damaged files, and of what was readable in them and not kept."""


@contextlib.contextmanager
def stopped(data: Path) -> Iterator[DataDirectory]:
    """Lock the data directory of a stopped relay.

    Raises:
        StartError: it is not one, or a relay uses it.
    """
    directory = DataDirectory.existing(data)
    with directory.lock():
        yield directory


def check(directory: DataDirectory) -> Iterator[Found]:
    """Check every partition completely, without changes. The caller locks the directory."""
    host = Host(boot_id(), secrets.token_bytes)
    for index in range(PARTITIONS):
        path = directory.partition_path(index)
        if not os.path.lexists(path) and not directory.lock_path(index).exists():
            continue
        try:
            found = examine(
                path, directory.lock_path(index), host=host, unpack=unpack_entry, partition=index,
                meaningless=meaningless,
            )  # fmt: skip
        except StoreError as error:
            yield Found(index, None, str(error))
        else:
            refused = f"{path} is damaged ({found.damage})" if found.damage else None
            yield Found(index, found, refused)


def repair(directory: DataDirectory, found: Found, write_line: Callable[[bytes], str]) -> Repaired:
    """Replace a partition by what is readable in it.

    Args:
        directory: locked by the caller.
        found: the result of ``check``, with a reason to repair it.
        write_line: a packed entry as a line, for what is not kept.

    Raises:
        StartError: it cannot be replaced; everything is unchanged.
    """
    reason = found.to_repair
    assert reason is not None
    index = found.partition
    path = directory.partition_path(index)
    real = followed(path)
    aside = _new_path(directory.path / ASIDE / time.strftime(f"{index:02}-%Y%m%d-%H%M%S"))
    new = real.with_name(f"{real.name}.repaired")
    logs: list[SalvagedLog] = []
    try:
        with PartitionLock(directory.lock_path(index), path) as lock:
            before = _moved_by_a_killed_repair(directory, real, new, index)
            if before is not None:
                aside = before
            else:
                aside.mkdir(mode=0o700, parents=True)
                making = _Making(real, new, index, aside / RESCUED, write_line)
                logs = making.best(is_whole=found.refused is None)
                sync_directory(aside)
                sync_directory(real.parent)
            # The file first: a start refuses a missing file, because the lock file knows it, but
            # might accept one without its WAL, and a repair would not miss it. The new file differs
            # from the one that the lock file knows, so it begins new epochs.
            _exchange([real, wal_path(real), index_path(real)], aside, new)
            lock.readmit()
    except (OSError, StoreError) as error:
        raise StartError(f"partition {index:02} cannot be repaired: {error}") from None
    finally:
        if real.exists():  # otherwise a killed repair had put it aside: only this one is left
            new.unlink(missing_ok=True)
    return Repaired(index, reason, logs, aside)


def _new_path(path: Path) -> Path:
    """Return a path beside this one, sorted after it, where nothing is: this one if possible."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not os.path.lexists(one))


def _exchange(old: list[Path], aside: Path, new: Path) -> None:
    """Move files to another directory, and a new one to the place of the first of them.

    If that fails, or is interrupted, they are back in their places.

    Raises:
        OSError: it failed.
    """
    moved: list[Path] = []
    try:
        for one in old:
            if one.exists():
                shutil.move(one, aside / one.name)
                moved.append(one)
        sync_directory(aside)
        new.rename(old[0])
        sync_directory(old[0].parent)
    except BaseException:
        for one in reversed(moved):
            shutil.move(aside / one.name, one)
        raise


def _moved_by_a_killed_repair(
    directory: DataDirectory, real: Path, new: Path, index: int
) -> Path | None:
    """Return where a repair put the old files that was killed before it put the new one in place.

    Raises:
        StoreError: the new file cannot be read.
    """
    if real.exists() or not new.exists() or not _is_whole(new, index):
        return None
    moved = sorted((directory.path / ASIDE).glob(f"{index:02}-*/{real.name}"))
    return moved[-1].parent if moved else None


def readmit(directory: DataDirectory, found: Found) -> bool:
    """Allow a partition to be opened again that was refused before and is found intact.

    Returns:
        False: it was not refused.

    Raises:
        StartError: that cannot be recorded.
    """
    path = directory.lock_path(found.partition)
    if found.refused is not None or read_refusal(path) is None:
        return False
    try:
        with PartitionLock(path, directory.partition_path(found.partition)) as lock:
            lock.readmit()
    except StoreError as error:
        raise StartError(str(error)) from None
    return True


def is_account(name: str) -> bool:
    """Return True if a log belongs to an account or an invitation, not to a room."""
    return not is_handle(name)


class _Attempt(NamedTuple):
    """A file that was made of a damaged one."""

    path: Path
    lines: Path
    """Of what is readable and not in it."""
    logs: list[SalvagedLog]
    is_whole: bool
    """True if a start would accept it."""


class _Making:
    """Makes the new file of a partition."""

    def __init__(
        self, real: Path, new: Path, index: int, rescued: Path, write_line: Callable[[bytes], str]
    ) -> None:
        self._real, self._new, self._index = real, new, index
        self._rescued, self._write_line = rescued, write_line

    def best(self, *, is_whole: bool) -> list[SalvagedLog]:
        """Make the file.

        The WAL contains the latest commits. It is ignored if nothing whole can be made with it, or
        if no log goes back without it and more can be read, as with one that belongs to an older
        state of the file.

        Args:
            is_whole: a start accepts the old file with its WAL, so the WAL is right.

        Raises:
            StoreError: what is made would not pass the check of a start, or cannot be written.
        """
        self._clear()
        try:
            used, other = self._attempt(with_wal=True), None
            if not is_whole:
                other = self._attempt(with_wal=False)
                if not used.is_whole or (other.is_whole and is_better(other.path, used.path)):
                    used, other = other, used
            if not used.is_whole:
                raise StoreCorrupt(f"nothing whole can be made of {self._real}: restore a backup")
            logs = used.logs if other is None else self._rescue(used, other)
            if used.lines.stat().st_size:
                used.lines.replace(self._rescued)
            used.path.replace(self._new)
        finally:
            self._clear()
        self._new.chmod(0o600)
        return logs

    def _clear(self) -> None:
        """Remove attempts, also those of a process that was killed."""
        for path in (self._new, self._rescued):
            attempt = path.with_suffix(".attempt")
            for left in attempt.parent.glob(f"{attempt.name}*"):
                left.unlink()

    def _attempt(self, *, with_wal: bool) -> _Attempt:
        """Salvage the file; without links to earlier entries if they are wrong."""
        suffix = ".attempt" if with_wal else ".attempt-without"
        path, lines = self._new.with_suffix(suffix), self._rescued.with_suffix(suffix)
        for links in (True, False):
            path.unlink(missing_ok=True)
            with lines.open("w", encoding="utf-8") as file:
                logs = salvage(
                    self._real,
                    path,
                    partition=self._index,
                    unpack=unpack_entry,
                    pack=pack_entry,
                    with_wal=with_wal,
                    aside=partial(_aside, file, self._write_line),
                    links=links,
                )
            if is_whole := _is_whole(path, self._index):
                break
        return _Attempt(path, lines, logs, is_whole)

    def _rescue(self, used: _Attempt, other: _Attempt) -> list[SalvagedLog]:
        """Add to the lines of an attempt what only the other one has; return its logs."""
        more: Counter[str] = Counter()
        seen: set[bytes] = set()
        with used.lines.open("r+", encoding="utf-8") as file:
            seen.update(_digest(line) for line in file)
            with other.lines.open(encoding="utf-8") as lines:
                file.writelines(line for line in lines if _digest(line) not in seen)
            for log, packed in missing(used.path, other.path, unpack_entry):
                more[log] += 1
                _aside(file, self._write_line, packed)
        logs = [log._replace(aside=log.aside + more.pop(log.name, 0)) for log in used.logs]
        return logs + [SalvagedLog(name, 0, 0, count) for name, count in more.items()]


def _is_whole(path: Path, index: int) -> bool:
    """Return True if a start would accept the new file. Raises StoreError."""
    try:
        examine_still(path, unpack=unpack_entry, partition=index, meaningless=meaningless)
    except StoreCorrupt:
        return False
    return True


def _digest(line: str) -> bytes:
    return blake2b(line.encode(), digest_size=16).digest()


def _aside(file: TextIO, write_line: Callable[[bytes], str], packed: bytes) -> None:
    file.write(f"{write_line(packed)}\n")
