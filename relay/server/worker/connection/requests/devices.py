"""DEVICES and ACCOUNT: device chains of accounts, and requests about accounts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from relay import codec
from relay.chat import names
from relay.chat.accounts import answers, events, invitation, links, requests, snapshot
from relay.chat.partition import partition_of
from relay.errors import EnvelopeError
from relay.server.worker.connection.requests.charges import BYTES_PER_UNIT, CHANGE_UNITS, pays
from relay.server.worker.connection.requests.home_requests import asked, done, pass_on, turn_of
from relay.server.worker.connection.requests.last_operator import ends_operator, refused_as_last
from relay.server.worker.connection.requests.unreadable import refuse_unreadable
from relay.server.worker.home.accounts import open_invitations
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.stored import stored_entry
from relay.store.errors import LogDamaged, StoreError
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Chain
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Account, Devices

LINKS_PER_ANSWER: Final = 128
"""About 43 KB at most, which fits in a record."""
NAMES_PER_ANSWER: Final = 500


async def devices(session: Session, devices: Devices) -> None:
    """Answer with links of an account's device chain, as stored. Clients verify them."""
    name = names.normal(devices.name)
    if not names.is_handle(name):
        session.refuse(devices.request, ErrorCode.NAME_INVALID)
        return
    await turn_of(session)
    try:
        chain = chain_of(session, name)
    except StoreError as error:
        partition = partition_of(names.INBOX_PREFIX + name)
        refuse_unreadable(session, devices.request, partition, error)
        return
    wanted = chain[devices.first : devices.first + LINKS_PER_ANSWER]
    end = devices.first + LINKS_PER_ANSWER >= len(chain)
    session.answer(pack(Chain(devices.request, name, wanted, end)))


def chain_of(session: Session, name: str) -> list[bytes]:
    """Return an account's current links: those since its last beginning. Charge what is read.

    Raises:
        StoreError: they cannot be read.
    """
    log = names.INBOX_PREFIX + name
    chain: list[bytes] = []
    reader = session.services.reader_of(log)
    after, noted = reader.fold(log)
    if after:
        try:
            chain = snapshot.links_of(noted)
        except EnvelopeError:
            after = 0  # the entries contain the whole chain
    controls = reader.controls(log, after)
    read = len(noted) + sum(len(packed) for packed in controls)
    session.sends.owe_work(read // BYTES_PER_UNIT)
    for packed in controls:
        entry = stored_entry(log, packed)
        if entry.content_type != events.CONTENT_TYPE:
            continue
        try:
            event = events.unpack(entry.body)
        except EnvelopeError as error:
            raise LogDamaged(log, error) from None
        match event:
            case events.Created(link=link):
                chain = [link]
            case events.Linked(link=link):
                chain.append(link)
            case events.Reserved() | events.Removed():
                chain = []
            case _:
                pass
    return chain


def root_of(session: Session, name: str) -> bytes:
    """Return the root of the account that a handle names now; empty: there is none.

    Raises:
        StoreError: it cannot be read.
    """
    chain = chain_of(session, name)
    try:
        return links.parse(chain[0]).hash if chain else b""
    except links.LinkError as error:
        raise LogDamaged(names.INBOX_PREFIX + name, error) from None


async def account(session: Session, account: Account) -> None:
    """Forward a request about an account to its home, if the client may make it."""
    number = account.request
    request: requests.Request | None = None
    with contextlib.suppress(EnvelopeError):
        request = requests.unpack(account.content)
    if request is None or type(request) in requests.BETWEEN_WORKERS:
        session.refuse(number, ErrorCode.BAD_REQUEST, 0, "an unknown request about an account")
        return
    name = names.normal(account.name) or session.actor.handle
    kind = type(request)
    if kind is requests.LastSeen and session.key_id and names.is_handle(name):
        asking = requests.pack(requests.SeenBy(session.actor.root))
        answer = await asked(session, names.INBOX_PREFIX + name, session.actor, b"", asking)
        pass_on(session, number, answer)
        return
    own = name == session.actor.handle and bool(session.key_id) and kind in requests.OF_DEVICES
    if not own and not (session.actor.operator and kind in requests.OF_OPERATORS):
        session.refuse(number, ErrorCode.NOT_ALLOWED, 0, "only operators may do that")
        return
    if isinstance(request, requests.ListNames):
        _list(session, number, request)
        return
    if isinstance(request, requests.ListInvitations):
        _list_invitations(session, number, request)
        return
    if isinstance(request, requests.Marks):
        _marks(session, number, request.after)
        return
    if isinstance(request, requests.Invite):
        log = invitation.log_of(request.token_hash)
    elif names.is_handle(name):
        log = names.INBOX_PREFIX + name
    else:
        session.refuse(number, ErrorCode.NAME_INVALID)
        return
    if kind not in requests.QUESTIONS and not pays(session, number, CHANGE_UNITS):
        return
    ends_own = name == session.actor.handle and session.actor.operator and ends_operator(request)
    if ends_own and await refused_as_last(session, number):
        return
    answer = await asked(session, log, session.actor, session.key_id, account.content)
    pass_on(session, number, answer)


def _marks(session: Session, number: int, after: str) -> None:
    """Answer with the user's read marks, some logs at a time."""
    log = names.INBOX_PREFIX + session.actor.handle
    try:
        found = session.services.reader_of(log).marks(log, after, NAMES_PER_ANSWER + 1)
    except StoreError as error:
        refuse_unreadable(session, number, partition_of(log), error)
        return
    end = len(found) <= NAMES_PER_ANSWER
    done(session, number, codec.pack((found[:NAMES_PER_ANSWER], end)))


def _list(session: Session, number: int, request: requests.ListNames) -> None:
    """Answer with the names of one partition.

    Read here: existing names can be read without the home.
    """
    prefix = names.INBOX_PREFIX
    try:
        reader = session.services.reader_at(request.partition)
        found = reader.names(prefix, prefix + request.after, NAMES_PER_ANSWER)
    except StoreError as error:
        refuse_unreadable(session, number, request.partition, error)
        return
    done(session, number, codec.pack([name[len(prefix) :] for name in found]))


def _list_invitations(session: Session, number: int, request: requests.ListInvitations) -> None:
    """Answer with the open invitations of one partition. Read here, as in ``_list``."""
    services = session.services
    accounts = AccountLogs(services.reader_of, stored_entry, services.first_invitation)
    try:
        part = open_invitations.part_of(
            request.partition,
            request.after,
            services.reader_at(request.partition),
            accounts,
            services.wall_clock_ns() // 1_000_000,
            services.damage.report_log,
        )
    except StoreError as error:
        refuse_unreadable(session, number, request.partition, error)
        return
    done(session, number, answers.packed_invitations(part))
