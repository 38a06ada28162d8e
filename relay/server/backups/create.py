"""Creates a backup of a data directory, whether or not its relay is running.

All partitions are backed up as of one moment: the workers begin no commit for a few milliseconds,
during which a read transaction is begun in each partition. The backup contains everything that was
committed before, and nothing that was committed later.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from relay import __version__
from relay.bounded_files import make_directory
from relay.chat.partition import PARTITIONS
from relay.errors import RelayError, StartError
from relay.fsync import sync_directory
from relay.server.backups import manifest
from relay.server.backups.checking import checked
from relay.server.backups.manifest import File, Manifest
from relay.server.backups.nesting import refuse_backup_within
from relay.server.system.resource_limits import refusal
from relay.store.contents import LogContents, total
from relay.store.errors import StoreError
from relay.store.file.created import was_created
from relay.store.file.directory import DataDirectory
from relay.store.file.integrity import DamagedLog
from relay.store.file.lock import read_refusal
from relay.store.file.schema import taken_away
from relay.store.file.snapshot import Snapshot, sync_with_name

MOMENT_S: Final = 30.0
"""How long to try to fix one moment."""
RETRY_S: Final = 0.1
"""Delay between two attempts: commits must not be held repeatedly."""
FILE_BYTES_MAX: Final = 1024 * 1024
"""Limit for a file beside the partitions: keys and settings, a few kilobytes each."""
Progress = Callable[[int, int], None]
"""Called with the number of copied partitions, and the total."""


class Running(Protocol):
    """The relay that uses the data directory."""

    def pause(self) -> object:
        """Hold all commits for some milliseconds. Raises RelayError: not possible now."""

    def resume(self, held: Any) -> bool:  # noqa: ANN401  # what ``pause`` returned
        """End that; return True if no commit was begun meanwhile. Raises RelayError."""


class Made(NamedTuple):
    """The result."""

    manifest: Manifest
    damaged: list[DamagedLog]
    """Accounts, invitations and rooms that are not whole, in the data as in the backup of it."""
    held_ms: float
    """How long commits were held; 0: no relay was running."""
    attempts: int


def create(data: Path, to: Path, running: Running | None, progress: Progress) -> Made:
    """Create a backup: a new directory, which is complete or does not exist.

    Args:
        data: the data directory.
        to: the directory to create; it may exist if it is empty.
        running: the relay that uses the data; None: none does, and none may start.
        progress: called to report progress.

    Raises:
        StartError: it cannot be created; nothing of it is left.
    """
    directory = DataDirectory.existing(data)
    refuse_backup_within(directory.path, to)
    _refuse_existing(to)
    try:
        make_directory(to.parent, 0o777)
        part = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".part", dir=to.parent))
    except OSError as error:
        raise StartError(f"backup {to}: {error.strerror}: {error.filename}") from None
    try:
        made = _make(directory, part, running, progress)
        with contextlib.suppress(FileNotFoundError):
            to.rmdir()  # an empty one
        part.rename(to)
        sync_directory(to.parent)
    except OSError as error:
        raise StartError(f"backup {to}: {refusal(error)}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def _refuse_existing(to: Path) -> None:
    try:
        there = any(to.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"backup {to}: {error.strerror}") from None
    if there:
        raise StartError(f"backup {to}: it exists and is not empty: name a new directory")


def _make(
    directory: DataDirectory, part: Path, running: Running | None, progress: Progress
) -> Made:
    logs = part / "logs"
    logs.mkdir(mode=0o700)
    copies: dict[int, Path] = {}
    with _snapshots(directory) as snapshots:
        moment = _Moment(snapshots, running)
        for done, (index, snapshot) in enumerate(snapshots.items(), 1):
            copies[index] = logs / directory.partition_path(index).name
            snapshot.copy(copies[index])
            progress(done, len(snapshots))
    files = _copy_others(directory.path, part)
    held, damaged = _checked(copies)
    files |= {f"logs/{copy.name}": manifest.file_of(copy) for copy in copies.values()}
    made = Manifest(
        format=manifest.FORMAT,
        relay=__version__,
        made_ms=moment.at_ms,
        partitions=PARTITIONS,
        files=files,
        **total(held)._asdict(),
    )
    manifest.write(part, made)
    return Made(made, damaged, moment.held_ms, moment.attempts)


def _checked(copies: dict[int, Path]) -> tuple[list[LogContents], list[DamagedLog]]:
    """Read the copies: a backup of damaged messages must not look like a good one."""
    try:
        return checked(copies)
    except StoreError as error:
        raise StartError(f"the data to be backed up is damaged: {error}") from None


@contextlib.contextmanager
def _snapshots(directory: DataDirectory) -> Iterator[dict[int, Snapshot]]:
    opened: dict[int, Snapshot] = {}
    try:
        try:
            for index in range(PARTITIONS):
                reason = read_refusal(directory.lock_path(index))
                if reason is not None:
                    raise StartError(
                        f"partition {index:02} is refused, so no backup can be whole: {reason}"
                    )
                path = directory.partition_path(index)
                if path.exists():
                    opened[index] = Snapshot(path)
                elif was_created(path, directory.lock_path(index)):
                    raise StartError(taken_away(path, "is missing"))
            yield opened
        except StoreError as error:
            raise StartError(str(error)) from None
    finally:
        for snapshot in opened.values():
            snapshot.close()


class _Moment:
    """Fixes one moment for all snapshots."""

    def __init__(self, snapshots: dict[int, Snapshot], running: Running | None) -> None:
        self.at_ms = 0
        self.held_ms = 0.0
        self.attempts = 0
        deadline = time.monotonic() + MOMENT_S
        while True:
            self.attempts += 1
            if running is None:
                self._take(snapshots)
                return
            try:
                if self._held(snapshots, running):
                    return
                why = "the machine is too busy"
            except RelayError as error:
                why = str(error)
            for snapshot in snapshots.values():
                snapshot.drop()
            if time.monotonic() > deadline:
                raise StartError(
                    f"no consistent moment for the backup was found within {MOMENT_S:.0f} s: "
                    f"{why}: try again later"
                )
            time.sleep(RETRY_S)

    def _held(self, snapshots: dict[int, Snapshot], running: Running) -> bool:
        began = time.monotonic()
        held = running.pause()
        try:
            self._take(snapshots)
        finally:
            quiet = running.resume(held)
        self.held_ms = round((time.monotonic() - began) * 1000, 1)
        return quiet

    def _take(self, snapshots: dict[int, Snapshot]) -> None:
        for snapshot in snapshots.values():
            snapshot.take()
        self.at_ms = time.time_ns() // 1_000_000


def _copy_others(data: Path, part: Path) -> dict[str, File]:
    """Copy the key and the other small files of the directory."""
    files = {}
    for path in sorted(data.iterdir()):
        if path.name in manifest.LEFT_OUT or path.name.endswith(".new"):
            continue
        if not path.is_file():  # the key may be a link
            continue
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise StartError(f"{path}: too large to belong to a relay: move it away")
        copy = part / path.name
        new = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(new, "wb") as file:
            file.write(content)
        sync_with_name(copy)
        files[path.name] = manifest.file_of(copy)
    return files
