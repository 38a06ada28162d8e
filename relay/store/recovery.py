"""Before the server serves: checks every partition that may not be what its last writer left.

Workers must not block their loops with such checks. After this they only find files that are beyond
doubt, unless something happens while the server runs.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

from relay.store.decide import Pack
from relay.store.errors import NotTheWriter, StoreCorrupt, StoreError, StoreOfAnotherVersion
from relay.store.file.companions import index_path
from relay.store.file.directory import DataDirectory
from relay.store.file.generation import Durability, Host
from relay.store.file.lock import lock_when_free
from relay.store.file.opening import needs_check
from relay.store.sqlite import SqlitePartition
from relay.store.view import UnpackEntry

log = logging.getLogger("relay.store")


def recover(
    directory: DataDirectory,
    *,
    boot_id: str,
    durability: Durability,
    pack: Pack,
    unpack_entry: UnpackEntry,
) -> dict[int, str]:
    """Check the partitions in doubt. Returns the refused ones with the reasons.

    An intact one is closed cleanly, in new epochs. A refused one is not opened until the next
    start; its lock file contains the reason. Other failures, such as a full disk, are left to the
    worker that opens the partition.

    Raises:
        NotTheWriter: another process holds one of them.
        StoreOfAnotherVersion: one has a format that this Relay does not read.
    """
    host = Host(boot_id, secrets.token_bytes)
    refused: dict[int, str] = {}
    for index in directory.unclean_partitions():
        path, lock_path = directory.partition_path(index), directory.lock_path(index)
        try:
            if _in_doubt(path, lock_path, host):
                with _index_kept_if_refused(path):
                    SqlitePartition(
                        path,
                        lock_path,
                        host=host,
                        durability=durability,
                        pack=pack,
                        unpack_entry=unpack_entry,
                        index=index,
                        check_limit_s=None,
                    ).close()
        except (NotTheWriter, StoreOfAnotherVersion):
            raise
        except StoreCorrupt as error:
            refused[index] = str(error)
            with contextlib.suppress(StoreError), lock_when_free(lock_path, path) as lock:
                lock.refuse(str(error))
        except StoreError as error:
            log.info("partition_not_recovered", extra={"partition": index, "reason": str(error)})
    return refused


def _in_doubt(path: Path, lock_path: Path, host: Host) -> bool:
    with lock_when_free(lock_path, path) as lock:
        index = saved_index(path)
        try:
            return needs_check(path, lock, host)
        finally:
            put_back(path, index)


@contextlib.contextmanager
def _index_kept_if_refused(path: Path) -> Iterator[None]:
    """Opening recreates the WAL index, which would hide the problem the next time."""
    index = saved_index(path)
    try:
        yield
    except StoreCorrupt:
        put_back(path, index)
        raise


def saved_index(path: Path) -> bytes | None:
    """Return the WAL index of a file that no process has open; None: there is none."""
    try:
        return index_path(path).read_bytes()
    except OSError:
        return None


def put_back(path: Path, index: bytes | None) -> None:
    """Restore a WAL index. No process has the file open: there are no workers."""
    with contextlib.suppress(OSError):
        if index is None:
            index_path(path).unlink(missing_ok=True)
        else:
            index_path(path).write_bytes(index)
