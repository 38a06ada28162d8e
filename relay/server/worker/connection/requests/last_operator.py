"""Prevents the last operator from giving up operator rights.

This covers only what users do to their own account at a server. A user who does it to another
account remains an operator, and anybody with write access to the data directory can appoint one
(``relay ctl user promote``). Two operators who give up their rights at the same moment are not
detected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.chat import names
from relay.chat.accounts import requests
from relay.chat.partition import PARTITIONS
from relay.server.worker.connection.requests.home_requests import turn_of
from relay.server.worker.connection.requests.unreadable import refuse_unreadable
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.stored import stored_entry
from relay.store.errors import LogDamaged, StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.chat.accounts.requests import Request
    from relay.server.worker.connection.session import Session
    from relay.server.worker.member.damage import DamageReports

READ_AT_ONCE: Final = 8
"""Accounts to read before others get a turn. Each has its own log: about 1 ms in total."""
THE_ONLY_ONE: Final = (
    "you are the only operator: make another one first (relay user promote ADDRESS USER)"
)


def ends_operator(request: Request) -> bool:
    """Return True if a request would end an account's operator rights.

    A reset does not: the account begins anew with its rights.
    """
    match request:
        case requests.Disable() | requests.Remove() | requests.Promote(operator=False):
            return True
        case _:
            return False


async def refused_as_last(session: Session, number: int) -> bool:
    """Refuse a request if it would remove the last operator. True: it was refused."""
    services, own = session.services, session.actor.handle
    accounts = AccountLogs(services.reader_of, stored_entry, services.first_invitation)
    prefix = names.INBOX_PREFIX
    for partition in range(PARTITIONS):
        after = ""
        while True:
            await turn_of(session)
            try:
                found = services.reader_at(partition).names(prefix, prefix + after, READ_AT_ONCE)
                handles = [log[len(prefix) :] for log in found]
                if any(
                    _acts(accounts, handle, services.damage) for handle in handles if handle != own
                ):
                    return False
            except StoreError as error:
                refuse_unreadable(session, number, partition, error)
                return True
            accounts.forget()
            if len(found) < READ_AT_ONCE:
                break
            after = handles[-1]
    session.refuse(number, ErrorCode.NOT_ALLOWED, 0, THE_ONLY_ONE)
    return True


def _acts(accounts: AccountLogs, handle: str, damage: DamageReports) -> bool:
    """Tell whether an account can act as an operator. Raises StoreError: of the partition."""
    try:
        account = accounts.account(handle)
    except LogDamaged as error:
        damage.report_log(error)
        return False  # nobody can log in there
    return account.operator and account.chain is not None and not account.disabled
