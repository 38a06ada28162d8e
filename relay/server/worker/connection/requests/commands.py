"""The operations that a client may request in each stage, and the function for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.chat import names
from relay.codec import Unknown
from relay.server.worker.connection.requests.charges import charged
from relay.server.worker.connection.requests.devices import account, devices
from relay.server.worker.connection.requests.history import history, who
from relay.server.worker.connection.requests.join import join, leave
from relay.server.worker.connection.requests.login import hello
from relay.server.worker.connection.requests.next_key import prove
from relay.server.worker.connection.requests.registration import enrol, register
from relay.server.worker.connection.requests.rooms import room
from relay.server.worker.connection.requests.search import search
from relay.server.worker.connection.requests.special_sends import send_about, send_direct
from relay.server.worker.connection.stages import Stage
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import (
    Account,
    Devices,
    Enrol,
    Hello,
    History,
    Join,
    Leave,
    Prove,
    Register,
    Room,
    Search,
    Send,
    Who,
)

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Operations, Session


def send(session: Session, send: Send) -> None:
    """Offer a message to the log's home. Not a coroutine: it never waits.

    Plain messages to rooms, nearly all messages, do not come here: see ``Sends.take``.
    """
    log = send.log
    if names.is_room(log):
        assert send.kind or send.about_seq, "a plain message was taken"
        send_about(session, send)
    elif log.startswith(names.INBOX_PREFIX):
        send_direct(session, send)
    else:
        session.sends.refuse(log, send.counter, ErrorCode.NAME_INVALID)


def unknown(session: Session, unknown: Unknown) -> None:
    """Refuse an operation of a later protocol version."""
    session.refuse(0, ErrorCode.UNKNOWN_OPERATION, unknown.op)


OPERATIONS: Final[Operations] = {
    Stage.HELLO: {Hello: hello, Register: register, Enrol: enrol},
    Stage.READY: {
        Join: charged(join, 1),
        Leave: charged(leave, 1),
        Send: send,
        Who: charged(who, 2),
        History: charged(history, 4),
        Devices: charged(devices, 4),
        Account: charged(account, 2),
        Prove: charged(prove, 10),
        Room: charged(room, 2),
        Search: charged(search, 10),
        Unknown: unknown,
    },
}
