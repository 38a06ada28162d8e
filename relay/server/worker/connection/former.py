"""Whether somebody asks to change what another account wrote under the same name.

Found out here, where the person is logged in, and told to the home of the log, which judges: it
knows what is a repeat, and who may erase what others wrote. All such entries were stored before
this account was begun, and its keys do not change: what is read here cannot be overtaken.
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
    """Return the root of the earlier account of the session's name that has written an entry.

    Empty: there is none; it is the person's own, somebody else's, or not there. None: what tells it
    cannot be read now.
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
        return b""  # nearly everybody
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
