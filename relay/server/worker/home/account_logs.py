"""The states of accounts and invitations, read from their logs and remembered.

Nothing is stored but the logs: a state is folded when it is needed, and kept up to date by whoever
commits. The number of entries of a log is bounded by what ``chat.accounts`` allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from relay.chat import names
from relay.chat.accounts import account as accounts
from relay.chat.accounts import events, invitation
from relay.chat.accounts.links import LinkError
from relay.chat.partition import partition_of
from relay.errors import EnvelopeError
from relay.store.errors import StoreCorrupt

if TYPE_CHECKING:
    from relay.chat.accounts.account import Account
    from relay.chat.accounts.events import AccountEvent, InvitationEvent
    from relay.chat.accounts.invitation import Invitation
    from relay.chat.entries import Content
    from relay.store.log import Reader

REMEMBERED_MAX: Final = 8192
"""About 1 KiB each."""
READ_BYTES: Final = 262_144
ALL: Final = 2**40 - 1
"""Above every seq."""


class AccountLogs:
    """See the module's docstring."""

    def __init__(
        self,
        reader_of: Callable[[str], Reader],
        unpack_content: Callable[[bytes], Content],
        first_invitation: bytes,
    ) -> None:
        """Begin with nothing remembered.

        Args:
            reader_of: reads a log.
            unpack_content: returns what a packed entry says.
            first_invitation: the hash of the one that lies in the data directory; empty: none.
        """
        self._reader_of = reader_of
        self._unpack_content = unpack_content
        self._first = first_invitation
        self._accounts: dict[str, Account] = {}
        self._handles: dict[int, dict[str, set[str]]] = {}
        """By partition: skeleton to the handles that have it; read once, when it is first asked."""

    def account(self, handle: str) -> Account:
        """Return the account of a handle; one of version 0 if nobody ever had it.

        Raises:
            StoreError: its log cannot be read.
        """
        found = self._accounts.get(handle)
        if found is None:
            log = names.INBOX_PREFIX + handle
            try:
                found = accounts.folded(handle, cast("list[AccountEvent]", self._events(log)))
            except (LinkError, EnvelopeError) as error:
                raise StoreCorrupt(f"the log {log} is damaged: {error}") from None
            self.remember(found)
        return found

    def remember(self, account: Account) -> None:
        """Note the state of an account, as of its last commit."""
        remembered = self._accounts
        remembered.pop(account.handle, None)
        remembered[account.handle] = account
        if len(remembered) > REMEMBERED_MAX:
            del remembered[next(iter(remembered))]
        if account.version:
            handles = self._handles.get(partition_of(names.INBOX_PREFIX + account.handle))
            if handles is not None:
                handles.setdefault(names.skeleton(account.handle), set()).add(account.handle)

    def invitation(self, log: str) -> Invitation:
        """Return the invitation of a log; one of version 0 if there is none.

        Raises:
            StoreError: its log cannot be read.
        """
        try:
            state = invitation.folded(cast("list[InvitationEvent]", self._events(log)))
        except EnvelopeError as error:
            raise StoreCorrupt(f"the log {log} is damaged: {error}") from None
        if state.invited is None and self._first and log == invitation.log_of(self._first):
            first = events.Invited(self._first, 0, True, "operator")
            return state._replace(invited=first)
        return state

    def looks_alike(self, handle: str) -> bool:
        """Tell whether another handle that exists, or did, looks like this one.

        Raises:
            StoreError: the partition cannot be read.
        """
        log = names.INBOX_PREFIX + handle
        partition = partition_of(log)
        handles = self._handles.get(partition)
        if handles is None:
            handles = self._handles[partition] = {}
            for name in self._reader_of(log).names(names.INBOX_PREFIX):
                existing = name[len(names.INBOX_PREFIX) :]
                handles.setdefault(names.skeleton(existing), set()).add(existing)
        return bool(handles.get(names.skeleton(handle), set()) - {handle})

    def forget(self) -> None:
        """Other workers may write these logs now."""
        self._accounts.clear()
        self._handles.clear()

    def _events(self, log: str) -> list[events.Event]:
        reader = self._reader_of(log)
        found: list[events.Event] = []
        after = 0
        while True:
            page = reader.read(log, after, ALL, READ_BYTES)
            for seq, packed in page.rows:
                after = seq
                _, content_type, body = self._unpack_content(packed)
                if content_type == events.CONTENT_TYPE:
                    found.append(events.unpack(body))
            if page.end:
                return found
