"""REGISTER and ENROL, before the login: a key becomes the first or another device of a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.chat import names
from relay.chat.accounts import decide_request, invitation, requests
from relay.chat.accounts.links import key_id
from relay.chat.rooms.rights import Actor
from relay.server.worker.connection.requests.charges import CHANGE_UNITS
from relay.server.worker.connection.requests.home_requests import asked, done, refuse
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Done
from relay.wire.login import Operation
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.bus.messages import Answered
    from relay.server.worker.connection.budgets.spending import Refusal
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Enrol, Register

ATTEMPTS_MAX: Final = 8
"""Requests per connection before its login: each costs two signatures or a commit."""


async def register(session: Session, register: Register) -> None:
    """Create an account, using an invitation if one is required."""
    number, key = register.request, register.key
    name = names.normal(register.name)
    if not _may_try(session) or not _is_proved(
        session, number, Operation.REGISTER, key, name, register.signature
    ):
        return
    log = names.INBOX_PREFIX + name
    token_hash = invitation.hash_of(register.token) if register.token else b""
    if not token_hash:
        if not _accepted(session, session.sends.spend_account()):
            return
        await _create(session, number, log, key, register.link, b"", invited=False)
        return
    # The invitation is bound at its own home first, and only if the name would be granted: it is
    # valid for one name and one key, and a mistyped name must not use it up.
    probe = requests.Register(register.link, token_hash, True, False, True)
    answer = await asked(session, log, Actor(name), key_id(key), requests.pack(probe))
    if answer.code:
        # Perhaps this is the repetition of a request that was bound, and then came too late.
        await _release(session, name, key, token_hash, answer)
        _refuse(session, number, answer)
        return
    bind = requests.Bind(token_hash, name, key)
    answer = await asked(
        session, invitation.log_of(token_hash), Actor(name), key_id(key), requests.pack(bind)
    )
    bound = not answer.code
    if answer.code not in (0, ErrorCode.INVITATION_NEEDED):
        _refuse(session, number, answer)
        return
    # Not bound: it may be the token of a reserved name, which that name's home checks.
    await _create(
        session,
        number,
        log,
        key,
        register.link,
        token_hash,
        invited=bound,
        operator=answer.content == b"\1",
    )


async def _create(
    session: Session,
    number: int,
    log: str,
    key: bytes,
    link: bytes,
    token_hash: bytes,
    *,
    invited: bool,
    operator: bool = False,
) -> None:
    request = requests.Register(link, token_hash, invited, operator, False)
    name = log[len(names.INBOX_PREFIX) :]
    answer = await asked(session, log, Actor(name), key_id(key), requests.pack(request))
    if answer.code:
        if invited:
            await _release(session, name, key, token_hash, answer)
        _refuse(session, number, answer)
    else:
        session.answer(pack(Done(number, b"")))


async def _release(
    session: Session, name: str, key: bytes, token_hash: bytes, refusal: Answered
) -> None:
    """Release the invitation of somebody whose name went to somebody else first.

    The name is never given out again, so no account can be created as the invitation was bound. It
    is released before the client is told, and may use it for another name.
    """
    if refusal.content == decide_request.LOST:
        request = requests.pack(requests.Release(token_hash, name, key))
        await asked(session, invitation.log_of(token_hash), Actor(name), key_id(key), request)


async def enrol(session: Session, enrol: Enrol) -> None:
    """Give a new key what a device has approved, or make it a device."""
    number, key = enrol.request, enrol.key
    name = names.normal(enrol.name)
    if not _may_try(session) or not _is_proved(
        session, number, Operation.ADD_DEVICE, key, name, enrol.signature
    ):
        return
    request = requests.Enrol(key, enrol.countersignature)
    log = names.INBOX_PREFIX + name
    answer = await asked(session, log, Actor(name), key_id(key), requests.pack(request))
    if answer.code:
        _refuse(session, number, answer)
    else:
        done(session, number, answer.content)


def _refuse(session: Session, number: int, answer: Answered) -> None:
    """Refuse a request; one that has to be repeated ends the connection, as a login does.

    The client then repeats it by itself, with the same key. It finds what was done: an invitation
    may be bound to the name and this key.
    """
    if answer.code in (ErrorCode.BUSY, ErrorCode.UNAVAILABLE):
        retry_s = session.services.overloaded_retry_s
        session.close(CloseCode.LOGIN_UNAVAILABLE, retry_s, detail=answer.text)
    else:
        refuse(session, number, answer)


def _may_try(session: Session) -> bool:
    if not _accepted(session, session.sends.spend_work(CHANGE_UNITS)):
        return False
    session.attempts += 1
    if session.attempts > ATTEMPTS_MAX:
        session.close(CloseCode.LIMIT, detail="too many requests before the login")
        return False
    return True


def _accepted(session: Session, refusal: Refusal | None) -> bool:
    """Close the connection if a budget is used up: the client retries by itself."""
    if refusal is not None:
        session.close(CloseCode.OVERLOADED, -(-refusal.wait_ms // 1000), detail=refusal.text)
    return refusal is None


def _is_proved(
    session: Session, number: int, operation: Operation, key: bytes, name: str, signature: bytes
) -> bool:
    wrong = names.person_error(name)
    if names.is_guest(name):
        wrong = "a guest's name is not registered"
    if wrong:
        session.refuse(number, ErrorCode.NAME_INVALID, 0, wrong)
        return False
    if not session.channel.proves(operation, key, name, signature):
        session.refuse(number, ErrorCode.KEY_REFUSED, 0, "the key or its signature is wrong")
        return False
    return True
