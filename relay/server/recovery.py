"""Partitions that were not closed cleanly are examined before any worker exists, by a child.

The supervisor must not load SQLite, and a worker's loop must not stand still while a large file is
read. A start after a clean stop forks nothing here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.errors import StartError
from relay.server.supervisor import process
from relay.store.directory import DataDirectory
from relay.store.errors import StoreError

if TYPE_CHECKING:
    from relay.store.generation import Durability

REFUSED: Final = 3
log = logging.getLogger("relay.supervisor")


def recover(
    directory: DataDirectory,
    boot_id: str,
    durability: Durability,
    close_in_child: Callable[[], None],
) -> None:
    """Check what may not be what its last writer left. Returns at once if all is clean.

    Raises:
        StartError: a partition is torn or damaged; the message names what to do.
    """
    unclean = directory.unclean_partitions()
    if not unclean:
        return
    log.info("recovery_began", extra={"partitions": unclean})
    try:
        child = process.fork(
            "relay: recovery",
            lambda ready_fd: _main(directory, boot_id, durability, ready_fd),
            close_in_child,
        )
    except OSError as error:
        raise StartError(f"no process can be forked: {error.strerror}") from error
    os.set_blocking(child.ready_fd, True)
    with os.fdopen(child.ready_fd, "rb") as pipe:
        refused = pipe.read().decode(errors="replace").splitlines()
    _, status = os.waitpid(child.pid, 0)
    how = process.Exit(os.waitstatus_to_exitcode(status))
    if refused:
        more = f" ({len(refused)} partitions are refused)" if len(refused) > 1 else ""
        for line in refused[1:]:
            log.error("partition_refused", extra={"reason": line})
        raise StartError(refused[0] + more)
    if how.code != 0:
        raise StartError(f"the check of the messages ended with {how}; try again")
    log.info("recovery_ended", extra={"partitions": unclean})


def _main(directory: DataDirectory, boot_id: str, durability: Durability, report_fd: int) -> int:
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
    except StoreError as error:
        refused = [str(error)]
    except KeyboardInterrupt:
        return REFUSED
    with os.fdopen(report_fd, "wb") as pipe:
        pipe.write("".join(f"{line}\n" for line in refused).encode())
    return REFUSED if refused else 0
