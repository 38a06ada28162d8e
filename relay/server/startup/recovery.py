"""Examines partitions that were not closed cleanly, in a child, before any worker exists.

The supervisor must not load SQLite, and a worker's loop must not block while a large file is read.
A start after a clean stop forks nothing here. Only the damaged partition itself is refused: its
workers find the note about it, and serve the others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.errors import StartError
from relay.server.boot_report import BOOT_FAILED, BootReport
from relay.server.supervisor import process
from relay.server.system.resource_limits import fork_refusal
from relay.store.errors import NotTheWriter, StoreError
from relay.store.file.directory import DataDirectory
from relay.store.file.lock import lock_when_free

if TYPE_CHECKING:
    from relay.store.file.generation import Durability

log = logging.getLogger("relay.supervisor")


def recover(
    directory: DataDirectory,
    boot_id: str,
    durability: Durability,
    close_in_child: Callable[[], None],
) -> None:
    """Check what may differ from what its last writer left. Returns at once if all is clean.

    Raises:
        StartError: another process uses a partition, one has a format of a newer Relay, or all that
            exist are refused; the message names what to do.
    """
    _refuse_shared(directory)
    if gone := directory.begin_anew():
        log.warning("partitions_begin_anew", extra={"partitions": gone})
    unclean = directory.unclean_partitions()
    if not unclean:
        return
    log.info("recovery_began", extra={"partitions": unclean})
    try:
        child = process.fork(
            "relay: recovery",
            lambda boot: _main(directory, boot_id, durability, boot),
            close_in_child,
        )
    except OSError as error:
        raise StartError(f"the process that checks files: {fork_refusal(error)}") from error
    os.set_blocking(child.ready_fd, True)
    with os.fdopen(child.ready_fd, "rb") as pipe:
        lines = pipe.read().decode(errors="replace").splitlines()
    _, status = os.waitpid(child.pid, 0)
    how = process.Exit(os.waitstatus_to_exitcode(status))
    if how.code == BOOT_FAILED and lines:
        raise StartError(lines[0].removeprefix("E "))
    if how.code != 0:
        raise StartError(f"the check of the messages has failed: {how.before_ready}")
    refused = [line.partition(" ") for line in lines]
    if refused and len(refused) == directory.partitions_there:
        more = f" (and so are all {len(refused)} partitions)" if len(refused) > 1 else ""
        raise StartError(refused[0][2] + more)
    for index, _, reason in refused:
        log.error("partition_refused", extra={"partition": int(index), "reason": reason})
    log.info("recovery_ended", extra={"partitions": unclean})


def _refuse_shared(directory: DataDirectory) -> None:
    """Raise StartError if the target of a partition's link belongs to another relay (``cp -a``)."""
    for index in directory.linked_partitions():
        try:
            lock_when_free(directory.lock_path(index), directory.partition_path(index)).close()
        except NotTheWriter as error:
            raise StartError(str(error)) from None
        except StoreError:
            continue  # reported by the worker that opens it


def _main(directory: DataDirectory, boot_id: str, durability: Durability, boot: BootReport) -> int:
    """Write a line for each refused partition. Raises StoreError: the server cannot start."""
    # Imported in the child: the supervisor must not load SQLite.
    from relay.store import recovery
    from relay.wire.packing import pack_entry, unpack_entry

    try:
        refused = recovery.recover(
            directory,
            boot_id=boot_id,
            durability=durability,
            pack=pack_entry,
            unpack_entry=unpack_entry,
        )
    except KeyboardInterrupt:
        return BOOT_FAILED
    lines = [f"{index} {reason}" for index, reason in refused.items()]
    with os.fdopen(boot.fd, "wb", closefd=False) as pipe:
        text = "".join(f"{line.replace(chr(10), ' ')}\n" for line in lines)
        pipe.write(text.encode(errors="backslashreplace"))
    return 0
