"""Checks copies of partitions completely, as ``relay data check`` does a data directory."""

from __future__ import annotations

from pathlib import Path

from relay.server.meaning import meaningless
from relay.store.contents import LogContents
from relay.store.examine import examine_still
from relay.store.file.integrity import DamagedLog
from relay.wire.packing import unpack_entry


def checked(copies: dict[int, Path]) -> tuple[list[LogContents], list[DamagedLog]]:
    """Return what the copies of partitions contain, and which logs are damaged.

    Raises:
        StoreError: one cannot be read.
    """
    held: list[LogContents] = []
    damaged: list[DamagedLog] = []
    for index, path in copies.items():
        logs, wrong = examine_still(
            path, unpack=unpack_entry, partition=index, meaningless=meaningless
        )
        held += logs
        damaged += wrong
    return held, damaged
