"""Detects requests to change an entry that an earlier account wrote under the same name.

This is determined on the worker where the user is logged in and passed to the log's home, which
decides: the home recognises repeats and knows who may redact the entries of others. All such
entries were stored before the current account was created, and its keys do not change, so the
result cannot become outdated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.chat import names
from relay.chat.accounts import events
from relay.chat.accounts.former import former_keys
from relay.chat.accounts.links import LinkError
from relay.chat.partition import partition_of
from relay.errors import EnvelopeError
from relay.server.worker.stored import stored_entry
from relay.store.errors import LogDamaged, StoreError

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session


def former_author(session: Session, log: str, seq: int) -> bytes | None:
    """Return the root of the earlier account of the session's name that wrote an entry.

    Empty: no such account; the author is the user, somebody else, or the entry does not exist.
    None: the data needed to decide cannot be read now.
    """
    if not session.key_id:
        return b""
    services = session.services
    if session.former is None:
        own = names.INBOX_PREFIX + session.actor.handle
        try:
            session.former = _former(own, services.reader_of(own).controls(own), session.actor.root)
        except (StoreError, LinkError, EnvelopeError) as error:
            _report(session, own, error)
            return None
    if not session.former:
        return b""  # the common case
    try:
        page = services.reader_of(log).read(log, seq - 1, seq, limits.PAGE_BYTES_MAX)
        entries = [stored_entry(log, packed) for _, packed in page.rows]
    except StoreError as error:
        _report(session, log, error)
        return None
    for entry in entries:
        if entry.sender == session.actor.handle:
            return session.former.get(entry.key_id, b"")
    return b""


def _former(log: str, controls: list[bytes], root: bytes) -> dict[bytes, bytes]:
    if not any(map(events.may_be_reset, controls)):
        return {}
    entries = [stored_entry(log, packed) for packed in controls]
    happened = (one.body for one in entries if one.content_type == events.CONTENT_TYPE)
    return former_keys(map(events.unpack, happened), root)


def _report(session: Session, log: str, error: Exception) -> None:
    if not isinstance(error, StoreError):
        error = LogDamaged(log, error)
    session.services.damage.report(partition_of(log), error)
