"""Lists the invitations that can still be used, read from their logs in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from relay.chat.accounts import invitation
from relay.chat.accounts.answers import INVITATIONS_MAX, Invitation, Invitations
from relay.chat.partition import partition_of
from relay.store.errors import LogDamaged

if TYPE_CHECKING:
    from relay.server.worker.home.accounts.logs import AccountLogs
    from relay.store.log import Reader


def parts_of(
    partition: int,
    reader: Reader,
    accounts: AccountLogs,
    now_ms: int,
    report: Callable[[LogDamaged], None],
) -> Iterator[tuple[Invitation, ...]]:
    """Yield those of a partition, some at a time, but for damaged ones. Raises StoreError."""
    after, end = "", False
    while not end:
        part = part_of(partition, after, reader, accounts, now_ms, report)
        yield part.some
        after, end = part.after, not part.after


def part_of(
    partition: int,
    after: str,
    reader: Reader,
    accounts: AccountLogs,
    now_ms: int,
    report: Callable[[LogDamaged], None],
) -> Invitations:
    """Return the invitations of a partition that come after a log; ``report`` damaged ones.

    Raises:
        StoreError: the partition cannot be read.
    """
    # One more than is returned, to find out whether there are more.
    logs = reader.names(invitation.PREFIX, after, INVITATIONS_MAX)
    more = len(logs) == INVITATIONS_MAX
    if more:
        logs.pop()
    end = logs[-1] if more else ""
    first = accounts.first_invitation_log
    if not after and first and partition_of(first) == partition and first not in logs:
        logs.append(first)  # it has no log before it is used
    found = []
    for log in logs:
        try:
            state = accounts.invitation(log)
        except LogDamaged as error:
            report(error)
            continue
        if invitation.is_open(state, now_ms):
            invited = state.invited
            assert invited is not None
            found.append(Invitation(*invited))
    return Invitations(tuple(found), end)
