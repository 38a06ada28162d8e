"""Whether an operator may end what makes him one: not while nobody else could act in his place.

Only for what somebody does to the own account at a server: who does it to others stays an operator,
and whoever can write the data directory makes another one (``relay ctl user promote``). Two
operators who end their rights at the same moment do not see each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.chat import names
from relay.chat.accounts import requests
from relay.chat.partition import PARTITIONS
from relay.server.worker.connection.home_requests import turn_of
from relay.server.worker.connection.unread import refuse_unread
from relay.server.worker.home.account_logs import AccountLogs
from relay.server.worker.stored import report_log, stored_entry
from relay.store.errors import LogDamaged, StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.chat.accounts.requests import Request
    from relay.server.worker.connection.session import Session

READ_AT_ONCE: Final = 8
"""Accounts that are read before others have their turn, each a log of its own: about 1 ms."""
THE_ONLY_ONE: Final = (
    "you are the only operator: make another one first (relay user promote ADDRESS USER)"
)


def ends_operator(request: Request) -> bool:
    """Tell whether a request ends the rights of an account that is an operator's.

    A reset does not: what it answers begins the account anew, with them.
    """
    match request:
        case requests.Disable() | requests.Remove() | requests.Promote(operator=False):
            return True
        case _:
            return False


async def refused_as_last(session: Session, number: int) -> bool:
    """Refuse what would end the asker's own rights, if nobody else has them. True: it was."""
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
                if any(_acts(accounts, handle) for handle in handles if handle != own):
                    return False
            except StoreError as error:
                refuse_unread(session, number, partition, error)
                return True
            accounts.forget()
            if len(found) < READ_AT_ONCE:
                break
            after = handles[-1]
    session.refuse(number, ErrorCode.NOT_ALLOWED, 0, THE_ONLY_ONE)
    return True


def _acts(accounts: AccountLogs, handle: str) -> bool:
    """Tell whether an account can act as an operator. Raises StoreError: of the partition."""
    try:
        account = accounts.account(handle)
    except LogDamaged as error:
        report_log(error)
        return False  # nobody can log in there
    return account.operator and account.chain is not None and not account.disabled
