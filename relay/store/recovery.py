"""Before the server serves: open every partition that was not closed cleanly.

A worker that opens partitions has a loop that must not stand still. After this it finds only files
that were closed cleanly, unless something happens to them while the server runs.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Final

from relay.store.directory import DataDirectory
from relay.store.errors import NotTheWriter, StoreCorrupt, StoreError
from relay.store.generation import Durability, Host
from relay.store.group import Pack, UnpackContent
from relay.store.sqlite import SqlitePartition

LOCK_S: Final = 20.0
"""How long to wait for a worker of the last run, which the kernel is ending."""
RETRY_S: Final = 0.02
log = logging.getLogger("relay.store")


def recover(
    directory: DataDirectory,
    *,
    boot_id: str,
    durability: Durability,
    pack: Pack,
    unpack_content: UnpackContent,
) -> list[str]:
    """Open and close the partitions that are not clean. Returns why any of them are refused.

    What else can go wrong, such as a full disk, is left to the worker that opens the partition.

    Raises:
        NotTheWriter: another process holds one of them.
    """
    refused = []
    for index in directory.unclean_partitions():
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                SqlitePartition(
                    directory.partition_path(index),
                    directory.lock_path(index),
                    host=Host(boot_id, secrets.token_bytes),
                    durability=durability,
                    pack=pack,
                    unpack_content=unpack_content,
                    index=index,
                    check_limit_s=None,
                ).close()
            except NotTheWriter:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_S)
                continue
            except StoreCorrupt as error:
                refused.append(str(error))
            except StoreError as error:
                extra = {"partition": index, "reason": str(error)}
                log.info("partition_not_recovered", extra=extra)
            break
    return refused
