"""The partition of a log: fixed permanently, so that the number of workers may change."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from relay.chat.names import INBOX_PREFIX, skeleton

PARTITIONS: Final = 16
"""Part of the data directory's format."""


@lru_cache(maxsize=4096)
def partition_of(log: str) -> int:
    """Return the partition of a log: the first 8 bytes of BLAKE2b of its name, modulo 16.

    For ``@handle`` the skeleton is hashed, so that handles that look alike have the same home. The
    result of ``names.skeleton`` is therefore part of the data directory's format, too.
    """
    if log.startswith(INBOX_PREFIX):
        log = INBOX_PREFIX + skeleton(log[len(INBOX_PREFIX) :])
    digest = blake2b(log.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % PARTITIONS
