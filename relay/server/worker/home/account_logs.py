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
    from relay.chat.entries import Entry
    from relay.store.log import Reader

REMEMBERED_MAX: Final = 8192
"""About 1 KiB each."""


class AccountLogs:
    """See the module's docstring."""

    def __init__(
        self,
        reader_of: Callable[[str], Reader],
        unpack_entry: Callable[[bytes], Entry],
        first_invitation: bytes,
    ) -> None:
        """Begin with nothing remembered.

        Args:
            reader_of: reads a log.
            unpack_entry: returns a packed entry.
            first_invitation: the hash of the one that lies in the data directory; empty: none.
        """
        self._reader_of = reader_of
        self._unpack_entry = unpack_entry
        self._first = first_invitation
        self.inbox_entries_max = 0
        """Of each inbox; 0: no bound."""
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

    def has_written(self, handle: str, to: str) -> bool:
        """Tell whether somebody has written to somebody.

        Raises:
            StoreError: the inbox cannot be read.
        """
        log = names.INBOX_PREFIX + handle
        return self._reader_of(log).has_written(log, to)

    def seen_ms(self, handle: str) -> int:
        """Return when somebody was last here; 0: it is not known.

        Raises:
            StoreError: the inbox cannot be read.
        """
        log = names.INBOX_PREFIX + handle
        return self._reader_of(log).seen(log)

    def is_full(self, handle: str) -> bool:
        """Tell whether an inbox takes no more.

        Raises:
            StoreError: it cannot be read.
        """
        if not self.inbox_entries_max:
            return False
        log = names.INBOX_PREFIX + handle
        reader = self._reader_of(log)
        seq = reader.head(log).seq
        return seq - reader.floor_of_last(log, seq, seq) >= self.inbox_entries_max

    def forget(self) -> None:
        """Other workers may write these logs now."""
        self._accounts.clear()
        self._handles.clear()

    def _events(self, log: str) -> list[events.Event]:
        # By their kind, which no client can choose: a message may have any content type.
        controls = map(self._unpack_entry, self._reader_of(log).controls(log))
        return [
            events.unpack(entry.body)
            for entry in controls
            if entry.content_type == events.CONTENT_TYPE
        ]
