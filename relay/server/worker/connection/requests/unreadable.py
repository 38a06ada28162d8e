"""Refuses a request whose answer cannot be read from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.server.worker.error_codes import unavailable_text
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.store.errors import StoreError


def refuse_unreadable(session: Session, number: int, partition: int, error: StoreError) -> None:
    """Refuse it temporarily, or permanently if the partition's file is damaged."""
    code = session.services.damage.report(partition, error)
    if code == ErrorCode.DAMAGED:
        session.refuse(number, code)
    else:
        session.refuse(number, code, limits.RETRY_MS, unavailable_text(error))
