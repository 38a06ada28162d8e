"""SEND of anything but a plain room message: direct messages, and entries about other entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.chat import names
from relay.chat.entries import UNDECIDED, Extra, GapReason, Kind, submission
from relay.chat.relations import FORMER, OWN, is_offered, is_reaction
from relay.chat.rooms.rights import Right, refusal
from relay.server.worker.connection.requests.charges import BYTES_PER_UNIT
from relay.server.worker.connection.requests.former import former_author
from relay.server.worker.stored import stored_room
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Send


def send_about(session: Session, send: Send) -> None:
    """Offer a reply, an edit, a redaction or a reaction to the home of its room."""
    if _is_refused(session, send.log, send, well=send.kind != Kind.MARK):
        return
    verdict = _verdict(session, send.log, send)
    if verdict is not None:
        extra = Extra(about_epoch=send.about_epoch, about_seq=send.about_seq, verdict=verdict)
        _submit(session, send.log, send, extra)


def send_direct(session: Session, send: Send) -> None:
    """Offer a direct message to the home of the sender's own inbox, which numbers it.

    The answer always names that inbox, whatever name the message was sent to.
    """
    own = names.INBOX_PREFIX + session.actor.handle
    to = send.log[len(names.INBOX_PREFIX) :]
    if not session.key_id or names.is_guest(to):
        _refuse(session, own, send, ErrorCode.NOT_ALLOWED, "a guest has no inbox")
        return
    if not names.is_handle(to):
        _refuse(session, own, send, ErrorCode.NAME_INVALID, "invalid name")
        return
    well = send.kind != Kind.MARK or (to == session.actor.handle and _is_mark(send))
    if _is_refused(session, own, send, well=well):
        return
    verdict = _verdict(session, own, send)
    if verdict == FORMER:  # nobody can erase the entries of others here: there is nothing to decide
        _refuse(session, own, send, ErrorCode.NOT_ALLOWED, "of an earlier account of your name")
    elif verdict is not None:
        lost = _lost_mark(session, own, send) if send.kind == Kind.MARK else 0
        extra = Extra(
            to=to, about_epoch=send.about_epoch, about_seq=send.about_seq, origin_after=lost
        )
        _submit(session, own, send, extra)


def _verdict(session: Session, log: str, send: Send) -> int | None:
    """Return what is known here about the target entry's author; None: the send was refused."""
    if send.kind not in OWN:
        return UNDECIDED
    former = former_author(session, log, send.about_seq)
    if former is None:
        _refuse(session, log, send, ErrorCode.UNAVAILABLE, "", limits.RETRY_MS)
        return None
    return FORMER if former else UNDECIDED


def _is_refused(session: Session, log: str, send: Send, *, well: bool) -> bool:
    """Refuse a send that is invalid whatever the log holds.

    ``well``: the result of other checks.
    """
    if not is_offered(send.kind):
        _refuse(session, log, send, ErrorCode.NOT_SUPPORTED, "kind", send.kind)
    elif send.kind != Kind.MESSAGE and not send.about_seq:
        _refuse(session, log, send, ErrorCode.NO_SUCH_ENTRY, "no entry is named")
    elif not well or (send.kind == Kind.REACTION and not is_reaction(send.body)):
        _refuse(session, log, send, ErrorCode.BAD_REQUEST, "not valid for an entry of this kind")
    else:
        return False
    return True


def _is_mark(send: Send) -> bool:
    if send.content_type or not send.body.isascii() or len(send.about_epoch) != limits.EPOCH_BYTES:
        return False
    log = send.body.decode()
    return names.is_room(log) or names.is_inbox(log)


def _lost_mark(session: Session, own: str, send: Send) -> int:
    """Return the seq of a mark that is ahead of its log, which has lost its end; 0: none is.

    After a backup was restored it would hide all that is written up to there. A device that comes
    back with a place from before that end replaces nothing.
    """
    about = send.body.decode()
    log = about if names.is_room(about) else own
    try:
        before = session.services.reader_of(own).mark(own, about)
        if before.seq < send.about_seq:
            return 0  # mostly
        reader = session.services.reader_of(log)
        head = reader.head(log)  # first, so that rights are newer
        if log != own and not _may_read(session, log):
            return 0  # otherwise marks would reveal how many entries the room has
        gap = reader.resume(log, before, head).gap
    except StoreError:
        return 0  # the next mark
    if gap is None or gap.reason == GapReason.RETENTION:
        return 0
    later = gap.reason == GapReason.AHEAD or send.about_seq >= gap.end.seq
    return before.seq if later else 0


def _may_read(session: Session, room: str) -> bool:
    """Return True if the user may read a room, as stored. Raises StoreError."""
    packed = session.services.reader_of(room).state(room)
    session.sends.owe_work(len(packed) // BYTES_PER_UNIT)
    state = stored_room(room, packed)
    return refusal(state, session.actor, Right.READ) is None


def _submit(session: Session, log: str, send: Send, extra: Extra) -> None:
    actor = session.actor
    identity = b"" if extra.to else send.identity  # it is a room's
    session.sends.submit(
        submission(
            log, actor.handle, session.key_id, session.producer, send.counter, send.kind,
            send.content_type, send.body, actor.root, actor.operator, identity, extra,
        )
    )  # fmt: skip


def _refuse(
    session: Session, log: str, send: Send, code: ErrorCode, text: str, arg: int = 0
) -> None:
    session.sends.refuse(log, send.counter, code, arg, text)
