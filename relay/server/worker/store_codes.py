"""The error code of the protocol for an error of the store."""

from __future__ import annotations

from relay.store.errors import StoreCorrupt, StoreError, StoreFull
from relay.wire.codes import ErrorCode


def code_of(error: StoreError) -> ErrorCode:
    """Return what is answered: DAMAGED is final, UNAVAILABLE is tried again."""
    return ErrorCode.DAMAGED if isinstance(error, StoreCorrupt) else ErrorCode.UNAVAILABLE


def unavailable_text(error: StoreError) -> str:
    """Return what clients are told of one that is tried again. The log has the rest of it."""
    return "the disk is full" if isinstance(error, StoreFull) else "the store is unavailable"
