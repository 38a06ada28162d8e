"""Who is an operator now, whatever a request states about its sender.

A request carries the rights that its session had. When an account stops being an operator, its
sessions end, and all homes drop what they hold of them (``revocations``). But what a worker had
sent to a home before may arrive there after the devices were accepted again, with fewer rights. So
a home does not take a request's word: it reads the account's log, in which the change was committed
before any home was told, and remembers the answer until it is told of a change.

If that log cannot be read, the answer is not known. The request then has the rights of everybody
else, and is not refused for lack of the others: it is answered with UNAVAILABLE and made again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from relay.chat import names
from relay.chat.rooms.rights import Actor
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.stored import stored_entry
from relay.store.errors import StoreError

if TYPE_CHECKING:
    from relay.bus.messages import Ask
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.store.log import Reader

REMEMBERED_MAX: Final = 1024


class Confirmed(Enum):
    """Whether somebody has the rights that a request states."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()
    """Their account cannot be read now."""


class Operators:
    """The operators that have asked this home for something."""

    def __init__(self, reader_of: Callable[[str], Reader], damaged: DamagedLogs) -> None:
        """Create without operators.

        Args:
            reader_of: reads a log.
            damaged: reports logs that cannot be read.
        """
        self._reader_of = reader_of
        self._damaged = damaged
        self._known: set[tuple[str, bytes]] = set()
        """(handle, root) of accounts that are operators."""

    def confirms(self, handle: str, root: bytes) -> Confirmed:
        """Return whether an account is an operator."""
        who = handle, root
        if who in self._known:
            return Confirmed.YES
        try:
            account = AccountLogs(self._reader_of, stored_entry, b"").account(handle)
        except StoreError as error:
            self._damaged.report(names.INBOX_PREFIX + handle, error)
            return Confirmed.UNKNOWN
        chain = account.chain
        if chain is None or chain.root != root or not account.operator or account.disabled:
            return Confirmed.NO
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known.add(who)
        return Confirmed.YES

    def actor(self, ask: Ask) -> tuple[Actor, bool]:
        """Return the user who makes a request, as an operator only if it is one now.

        The second value is True if that is not known. A request without a device is of this
        machine's operator (``process.admin``).
        """
        confirmed = Confirmed.NO
        if ask.operator:
            confirmed = self.confirms(ask.by, ask.root) if ask.key_id else Confirmed.YES
        actor = Actor(ask.by, ask.root, confirmed is Confirmed.YES)
        return actor, confirmed is Confirmed.UNKNOWN

    def forget(self, handle: str) -> None:
        """The account has changed."""
        if self._known:
            self._known = {who for who in self._known if who[0] != handle}

    def forget_all(self) -> None:
        """Homes have changed: one that has died may not have told of a change."""
        self._known.clear()
