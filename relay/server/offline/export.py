"""Reads messages from a data directory or a backup, and adds messages to a data directory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from relay import limits
from relay.chat.entries import Kind, Submission
from relay.chat.names import GUEST_PREFIX, is_handle
from relay.chat.partition import PARTITIONS, partition_of
from relay.errors import StartError
from relay.server.backups import manifest
from relay.server.system.boot_id import boot_id
from relay.store.contents import packed_entries
from relay.store.errors import StoreError
from relay.store.file.directory import DataDirectory, is_backup, is_data_directory
from relay.store.file.generation import Host
from relay.store.file.lock import read_refusal
from relay.store.log import IdConflict, Repeated, Stored
from relay.store.sqlite import SqlitePartition
from relay.wire.packing import pack_entry, unpack_entry

if TYPE_CHECKING:
    from relay.wire.envelopes import EntryMessage

NAMELESS: Final = "unknown"
"""The sender of a line whose name is not valid here."""


class Line(NamedTuple):
    """A message to add."""

    room: str
    time_ms: int
    sender: str
    """As spelled in the source."""
    content_type: str
    body: bytes


class Imported(NamedTuple):
    """The result."""

    stored: int
    repeated: int
    """Already present, from the same source."""


def export(source: Path, room: str | None) -> Iterator[EntryMessage]:
    """Yield the messages of all rooms, or of one, room by room and in order.

    They are read a few at a time, so a running relay continues. Each page is then of its own
    moment, and messages written meanwhile may be missing.

    Args:
        source: a data directory or a backup.
        room: its name; None: all.

    Raises:
        StartError: it is neither, there is no such room, or it cannot be read; at the end, that
            some messages could not be read.
    """
    still = is_backup(source)
    if not still and not is_data_directory(source):
        raise StartError(f"{source} is neither a data directory nor a backup")
    if still:
        manifest.read(source)
        paths = [source / "logs" / f"{index:02}.sqlite" for index in range(PARTITIONS)]
    else:
        directory = DataDirectory(source)
        paths = [directory.partition_path(index) for index in range(PARTITIONS)]
        directory.refuse_gone(range(PARTITIONS) if room is None else [partition_of(room)])
        for index in range(PARTITIONS) if room is None else [partition_of(room)]:
            reason = read_refusal(directory.lock_path(index))
            if reason is not None:
                raise StartError(f"partition {index:02} is refused: {reason}")
    seen, unread = False, 0
    try:
        for path in paths if room is None else [paths[partition_of(room)]]:
            if path.exists():
                for packed in packed_entries(path, is_handle, room, still=still):
                    seen = True
                    try:
                        entry = unpack_entry(packed)
                    except MemoryError:
                        raise
                    except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
                        unread += 1
                        continue
                    if entry.kind != Kind.SYSTEM:  # rights belong to this relay
                        yield entry
    except StoreError as error:
        raise StartError(str(error)) from None
    if room is not None and not seen:
        raise StartError(f"{source}: there is no room {room}")
    if unread:
        raise StartError(
            f"{source}: {unread} messages are damaged, and were left out (relay data check)"
        )


def import_lines(directory: DataDirectory, source: bytes, lines: Iterable[Line]) -> Imported:
    """Store messages with their original times, in a relay that is not running.

    Their senders become guests (``~alice``): their authorship has not been proved here. The same
    source is added only once, however often this is called.

    Args:
        directory: locked by the caller.
        source: identifies the source, for example a hash of it.
        lines: in the order in which they are stored.

    Raises:
        StartError: one cannot be stored; those before it are stored.
    """
    directory.refuse_gone()
    opened: dict[int, SqlitePartition] = {}
    counters: dict[str, int] = {}
    stored = repeated = 0
    try:
        for number, line in enumerate(lines, 1):
            index = partition_of(line.room)
            if index not in opened:
                opened[index] = _open(directory, index)
            counter = counters[line.room] = counters.get(line.room, 0) + 1
            producer = sha256(b"relay import" + source + line.room.encode()).digest()
            submission = Submission(
                line.room,
                _guest(line.sender),
                b"",
                producer[: limits.PRODUCER_BYTES],
                counter,
                int(Kind.MESSAGE),
                line.content_type,
                line.body,
            )
            (outcome,) = opened[index].append([submission], line.time_ms)
            if isinstance(outcome, Stored):
                stored += 1
            elif isinstance(outcome, Repeated) or (
                isinstance(outcome, IdConflict) and not outcome.seq
            ):
                repeated += 1
            else:
                raise StartError(f"message {number} cannot be stored: {outcome}")
    except StoreError as error:
        raise StartError(str(error)) from None
    finally:
        for partition in opened.values():
            partition.close()
    return Imported(stored, repeated)


def _open(directory: DataDirectory, index: int) -> SqlitePartition:
    return SqlitePartition(
        directory.partition_path(index),
        directory.lock_path(index),
        host=Host(boot_id(), secrets.token_bytes),
        durability="process",
        pack=pack_entry,
        unpack_entry=unpack_entry,
        index=index,
        check_limit_s=None,
    )


def _guest(name: str) -> str:
    """Return a name as a guest's name, without the characters that are not valid."""
    plain = name.lower().lstrip(GUEST_PREFIX)
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "_-") else "" for char in plain
    )
    plain = plain.lstrip("_-")[: limits.NAME_CHARS_MAX - len(GUEST_PREFIX)]
    return GUEST_PREFIX + (plain if is_handle(plain) else NAMELESS)


def now_ms() -> int:
    """Return the current time, for ``foreign_lines``."""
    return time.time_ns() // 1_000_000
