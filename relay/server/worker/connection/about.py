"""SEND of what is not a plain message in a room: direct messages, and entries about others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.chat import names
from relay.chat.about import well_formed
from relay.chat.entries import Extra, Kind, submission
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Send


def send_about(session: Session, send: Send) -> None:
    """Offer a reply, an edit, a redaction or a reaction to the home of its room."""
    if not well_formed(send.kind, send.body, send.about_seq):
        _refuse(session, send.log, send)
        return
    extra = Extra(about_epoch=send.about_epoch, about_seq=send.about_seq)
    _submit(session, send.log, send, extra)


def send_direct(session: Session, send: Send) -> None:
    """Offer a message to somebody to the home of the sender's own inbox, which numbers it."""
    own = names.INBOX_PREFIX + session.actor.handle
    if not session.key_id:
        _refuse(session, own, send, ErrorCode.NOT_ALLOWED, "a guest has no inbox")
        return
    to = send.log[len(names.INBOX_PREFIX) :]
    if send.kind == Kind.MARK:
        well = to == session.actor.handle and _is_mark(send)
    else:
        well = well_formed(send.kind, send.body, send.about_seq)
    if not well:
        _refuse(session, own, send)
        return
    extra = Extra(to=to, about_epoch=send.about_epoch, about_seq=send.about_seq)
    _submit(session, own, send, extra)


def _is_mark(send: Send) -> bool:
    if not send.about_seq or send.content_type or not send.body.isascii():
        return False
    log = send.body.decode()
    return names.is_room(log) or names.is_inbox(log)


def _submit(session: Session, log: str, send: Send, extra: Extra) -> None:
    actor = session.actor
    session.sends.submit(
        submission(
            log, actor.handle, session.key_id, session.producer, send.counter, send.kind,
            send.content_type, send.body, actor.root, actor.operator, extra,
        )
    )  # fmt: skip


def _refuse(
    session: Session,
    log: str,
    send: Send,
    code: ErrorCode = ErrorCode.NOT_SUPPORTED,
    text: str = "kind",
) -> None:
    arg = send.kind if code == ErrorCode.NOT_SUPPORTED else 0
    session.sends.refuse(log, send.counter, code, arg, text)
