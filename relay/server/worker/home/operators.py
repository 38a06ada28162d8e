"""Who is an operator now, whatever a request states about its sender.

A request carries the rights that its session had. When an account stops being an operator, its
sessions end, and all homes drop what they hold of them (``revocations``). But what a worker had
sent to a home before may arrive there after the devices were accepted again, with fewer rights. So
a home does not take a request's word: it reads the account's log, in which the change was committed
before any home was told, and remembers the answer until it is told of a change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.chat.rooms.rights import Actor
from relay.server.worker.home.account_logs import AccountLogs
from relay.server.worker.stored import stored_entry
from relay.store.errors import StoreError

if TYPE_CHECKING:
    from relay.bus.messages import Ask
    from relay.store.log import Reader

REMEMBERED_MAX: Final = 1024


class Operators:
    """The operators that have asked this home for something."""

    def __init__(self, reader_of: Callable[[str], Reader]) -> None:
        """Create without operators. ``reader_of``: reads a log."""
        self._reader_of = reader_of
        self._known: set[tuple[str, bytes]] = set()
        """(handle, root) of accounts that are operators."""

    def confirms(self, handle: str, root: bytes) -> bool:
        """Return True if an account is an operator. One that cannot be read is none."""
        who = handle, root
        if who in self._known:
            return True
        try:
            account = AccountLogs(self._reader_of, stored_entry, b"").account(handle)
        except StoreError:
            return False
        chain = account.chain
        if chain is None or chain.root != root or not account.operator or account.disabled:
            return False
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known.add(who)
        return True

    def actor(self, ask: Ask) -> Actor:
        """Return the user who makes a request, as an operator only if it is one now.

        A request without a device is of this machine's operator (``process.admin``).
        """
        operator = ask.operator and (not ask.key_id or self.confirms(ask.by, ask.root))
        return Actor(ask.by, ask.root, operator)

    def forget(self, handle: str) -> None:
        """The account has changed."""
        if self._known:
            self._known = {who for who in self._known if who[0] != handle}

    def forget_all(self) -> None:
        """Homes have changed: one that has died may not have told of a change."""
        self._known.clear()
