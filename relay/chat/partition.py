"""Which partition a log lives in: fixed for ever, so that worker counts may change."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

PARTITIONS: Final = 16
"""Part of the data directory's format."""


@lru_cache(maxsize=4096)
def partition_of(log: str) -> int:
    """Return the partition of a log: the first 8 bytes of BLAKE2b of its name, modulo 16."""
    digest = blake2b(log.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % PARTITIONS
