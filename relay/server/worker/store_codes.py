"""The error code of the protocol for an error of the store."""

from __future__ import annotations

from relay.store.errors import StoreCorrupt, StoreError
from relay.wire.codes import ErrorCode


def code_of(error: StoreError) -> ErrorCode:
    """Return what is answered: DAMAGED is final, UNAVAILABLE is tried again."""
    return ErrorCode.DAMAGED if isinstance(error, StoreCorrupt) else ErrorCode.UNAVAILABLE
