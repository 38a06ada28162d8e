"""Opens a partition's file and checks that it is intact and the one its last writer left.

There are three outcomes. If it is, every log continues in its epoch. If it is another file but
intact, such as a restored backup, every log begins a new epoch (invariant "Epochs are segments").
If it is torn, nothing is written to it; a file and a WAL that do not belong together are torn. The
whole file is read only in case of doubt.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from relay.chat.entries import Entry
from relay.refused_files import refused
from relay.store.errors import StoreCorrupt, StoreUnavailable
from relay.store.file import generation, pairing
from relay.store.file.companions import wal_bytes
from relay.store.file.created import all_created
from relay.store.file.creations import note_creations
from relay.store.file.generation import Begun, Durability, Host, read_meta
from relay.store.file.integrity import CheckUnfinished, check_file
from relay.store.file.lock import PartitionLock
from relay.store.file.new_file import create_file
from relay.store.file.schema import (
    advice,
    closed_on_error,
    connect_writer,
    create_tables,
    not_a_file,
    pragma,
    rows,
    taken_away,
    translated,
)
from relay.store.file.wal_index import WalIndex, read_wal_index

SYNCHRONOUS: Final[dict[Durability, str]] = {"process": "NORMAL", "power": "FULL"}
WAL_DAMAGED: Final = "its WAL is damaged"
_DAMAGED_FROM: Final = re.compile(
    f"{WAL_DAMAGED} behind frame [0-9]+ of ([0-9]+)(?: \\(([0-9a-f]+)\\))?:"
)
"""The text of a refusal: how many frames there were, and the salts of the WAL."""
log = logging.getLogger("relay.store")


class Check(NamedTuple):
    """How a whole file is checked in case of doubt."""

    unpack: Callable[[bytes], Entry]
    """Raises for an entry that cannot be read."""
    limit_s: float | None
    """Time limit; None: none."""
    partition: int | None = None
    """The partition whose logs the file should hold; None: not checked."""


def open_first(
    path: Path, lock: PartitionLock, host: Host, durability: Durability, check: Check
) -> tuple[apsw.Connection, Begun]:
    """Open a file as the new holder of its lock. Returns it marked as in use.

    Raises:
        StoreCorrupt: it is torn or damaged, or was found damaged and not checked since; nothing was
            written.
        StoreUnavailable: it is missing, and existed at the start.
        StoreError: it cannot be opened.
    """
    if check.limit_s is not None:
        if (refusal := lock.refusal()) is not None:
            raise StoreCorrupt(refusal)
        _wait_for_missing(path, lock)
    _refuse_missing(path, lock)
    _tell_of_other_names(path)
    index = read_wal_index(path)  # before SQLite recreates it
    created = _created_if_missing(path)
    connection = connect_writer(path)
    with closed_on_error(connection, path):
        doubt = None if created else _doubt(connection, path, lock, host, index)
        if doubt is not None and pragma(connection, "user_version"):
            _refuse_damaged(connection, path, doubt, check)
        return connection, _begin(connection, path, lock, host, durability, doubt, check)


def needs_check(path: Path, lock: PartitionLock, host: Host) -> bool:
    """Return True if ``open_first`` would check the whole file. Otherwise as ``doubt_of``."""
    return doubt_of(path, lock, host) is not None


def doubt_of(path: Path, lock: PartitionLock, host: Host) -> str | None:
    """Return why ``open_first`` would check the whole file; None: it would not.

    Recreates the WAL index.

    Raises:
        StoreCorrupt: it is torn.
        StoreError: it cannot be opened.
    """
    _refuse_missing(path, lock)
    index = read_wal_index(path)
    connection = connect_writer(path)
    try:
        return _doubt(connection, path, lock, host, index)
    except apsw.Error as error:
        raise translated(error, path) from error
    finally:
        connection.close(True)


def open_again(
    path: Path,
    lock: PartitionLock,
    host: Host,
    durability: Durability,
    doubt: str | None,
    check: Check,
) -> tuple[apsw.Connection, Begun]:
    """Reopen a file that this process has opened before under its current lock.

    Args:
        path: of the file.
        lock: of the partition.
        host: the machine.
        durability: what commits survive.
        doubt: the disk error that made this necessary; None: it was another error.
        check: reads its entries.

    Raises:
        StoreError: it cannot be opened; for example, the partition was closed.
    """
    lock.check_held()
    _wait_for_missing(path, lock)
    failed = doubt is not None
    _created_if_missing(path)
    doubt = doubt or lock.doubt(path)
    connection = connect_writer(path)
    with closed_on_error(connection, path):
        if failed:
            _write_again(connection)
        return connection, _begin(connection, path, lock, host, durability, doubt, check)


def _write_again(connection: apsw.Connection) -> None:
    """Copy the whole WAL to the file, and start another one.

    After a write error, data that the kernel has dropped can still be read, and its next sync
    reports success. After a loss of power, a WAL with such a hole ends there, whatever was written
    behind it. Rewriting the pages writes them to the disk.
    """
    if not pragma(connection, "user_version"):
        return
    pragma(connection, "synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    pairing.next_step(connection)
    connection.execute("COMMIT")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _begin(
    connection: apsw.Connection,
    path: Path,
    lock: PartitionLock,
    host: Host,
    durability: Durability,
    doubt: str | None,
    check: Check,
) -> Begun:
    note = lock.read_note()
    # The mark "in use" must be on the disk before any commit that could be lost without it.
    pragma(connection, "synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    create_tables(connection, check.unpack)
    note_creations(connection, check.unpack)
    begun = generation.begin(
        connection,
        boot_id=host.boot_id,
        durability=durability,
        doubt=doubt,
        noted_opening=note.opening if note else 0,
    )
    with contextlib.suppress(apsw.Error, ValueError):  # part of a checkpoint: not in this case
        # If the whole WAL is in the file, this commit starts the WAL over.
        pairing.start_wal(
            connection, secrets.token_hex(pairing.ID_BYTES), pairing.read_row_of_file(path)
        )
    connection.execute("COMMIT")
    pragma(connection, f"synchronous={SYNCHRONOUS[durability]}")
    if begun.reason is not None and begun.generation > 1:
        log.warning("partition_new_epochs", extra={"path": str(path), "reason": begun.reason})
    return begun


def _missing(path: Path) -> str | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        raise StoreUnavailable(refused(path, error)) from error
    return "is empty" if stat.S_ISREG(status.st_mode) and not status.st_size else None


def _created_if_missing(path: Path) -> bool:
    if _missing(path) is None:
        return False
    create_file(path)
    return True


def _wait_for_missing(path: Path, lock: PartitionLock) -> None:
    """Wait for a file that existed at the start: it can be put back, so no new one is created."""
    what = _missing(path)
    if what is not None and (all_created(path) or lock.read_note() is not None):
        raise StoreUnavailable(taken_away(path, what))


def _refuse_missing(path: Path, lock: PartitionLock) -> None:
    """Refuse: SQLite would create a new file, and delete the WAL of the missing one."""
    what = _missing(path)
    if what is None:
        if not path.is_file():
            raise StoreCorrupt(not_a_file(path))
        return
    if wal_bytes(path):
        raise StoreCorrupt(f"{path} {what}, though its WAL is there: {advice(path)}")
    if lock.read_note() is not None:
        raise StoreCorrupt(
            f"{path} {what}, though its lock file has a record of it: {advice(path)}"
        )


def _tell_of_other_names(path: Path) -> None:
    """Warn about hard links, as ``cp -l`` creates: another relay could bypass every lock."""
    with contextlib.suppress(OSError):
        links = path.stat().st_nlink
        if links > 1:
            log.warning("partition_has_other_names", extra={"path": str(path), "links": links})


def _doubt(
    connection: apsw.Connection,
    path: Path,
    lock: PartitionLock,
    host: Host,
    index: WalIndex | None,
) -> str | None:
    """Return why this may not be what the last writer left. Raises StoreCorrupt if it is torn."""
    _refuse_damaged_before(connection, path, lock.refusal() or "")
    torn = _refuse_torn(connection, path, index)
    cut_off = _cut_off(connection, path, index, host)  # whatever else is in doubt: it may raise
    return torn or lock.doubt(path) or cut_off


def _refuse_damaged_before(connection: apsw.Connection, path: Path, refusal: str) -> None:
    """Refuse a WAL that was found damaged, for as long as it is.

    The index that told so was made anew since, so what it knew is in the refusal. The right files
    may have been put back meanwhile: another WAL, or this one with all its frames.
    """
    if WAL_DAMAGED not in refusal or not wal_bytes(path):
        return
    noted = _DAMAGED_FROM.search(refusal)
    if noted is not None:
        frames, salts = int(noted[1]), bytes.fromhex(noted[2] or "") or pairing.wal_salts(path)
        rows(connection, "SELECT count(*) FROM sqlite_schema")  # else it has not read its WAL
        readable, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if readable >= frames or pairing.frame_salts(path, frames) != salts:
            return
    raise StoreCorrupt(refusal)


def _refuse_torn(connection: apsw.Connection, path: Path, index: WalIndex | None) -> str | None:
    """Raise if it is torn. Returns a doubt if that cannot be determined."""
    if not rows(connection, "SELECT 1 FROM sqlite_schema WHERE name='meta'"):
        return None
    try:
        view = pairing.read_row(connection)
    except ValueError:
        raise _torn(path) from None
    try:
        file = pairing.read_row_of_file(path)
    except (apsw.Error, ValueError):
        return "it ended in the middle of a checkpoint"
    if not pairing.fits(file, view):
        raise _torn(path)
    if index is not None and index.salts == pairing.wal_salts(path):
        frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if frames < index.copied:
            raise _torn(path)
    return None


def _torn(path: Path) -> StoreCorrupt:
    return StoreCorrupt(
        f"{path} and its WAL are of different moments, as in a copy of a running server: "
        f"{advice(path)}"
    )


def _cut_off(
    connection: apsw.Connection, path: Path, index: WalIndex | None, host: Host
) -> str | None:
    """Return why commits of a dead process may be missing at the end of the WAL.

    Raises:
        StoreCorrupt: they exist, and SQLite cannot read up to them.
    """
    if not rows(connection, "SELECT 1 FROM sqlite_schema WHERE name='meta'"):
        return None
    meta = read_meta(connection)
    if meta.get("clean") == 1 or not host.boot_id or meta.get("boot_id") != host.boot_id:
        return None  # none was; or ``generation.begin`` decides
    if index is None:
        return "the index of its WAL was lost after a crash"
    if index.frames:
        frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if pairing.wal_salts(path) != index.salts:
            return "its WAL was cut off or replaced after a crash"
        if frames < index.frames:
            if pairing.frame_salts(path, index.frames) == index.salts:
                raise StoreCorrupt(
                    f"{path}: {WAL_DAMAGED} behind frame {frames} of {index.frames} "
                    f"({index.salts.hex()}): {advice(path)}"
                )
            return "its WAL was cut off or replaced after a crash"
    return None


def _refuse_damaged(connection: apsw.Connection, path: Path, doubt: str, check: Check) -> None:
    extra = {"path": str(path), "reason": doubt}
    log.debug("partition_check", extra=extra)
    try:
        found = check_file(
            connection, unpack=check.unpack, partition=check.partition, limit_s=check.limit_s
        )
    except CheckUnfinished:
        # Only while the server runs: before it serves there is no limit.
        log.warning("partition_check_unfinished", extra=extra)
        return
    if found.damage is not None:
        raise StoreCorrupt(f"{path} is damaged ({found.damage}): {advice(path)}")
    if found.logs:
        first = found.logs[0]
        fields = {"path": str(path), "logs": len(found.logs), "first": first.log}
        log.error("logs_damaged", extra={**fields, "reason": first.reason})
