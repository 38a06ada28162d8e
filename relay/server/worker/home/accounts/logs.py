"""The states of accounts and invitations, read from their logs and cached.

A state is computed when it is needed and then updated with each commit. For a long log the state is
also stored from time to time (``on_long``), so that only few entries have to be replayed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from relay.chat import names
from relay.chat.accounts import account as accounts
from relay.chat.accounts import events, invitation, snapshot
from relay.chat.accounts.account import Account
from relay.chat.accounts.links import LinkError
from relay.chat.accounts.refusal import Reason, Refused
from relay.chat.accounts.requests import Register, Request
from relay.chat.partition import partition_of
from relay.errors import EnvelopeError
from relay.server.worker.grouped import Grouped
from relay.store.errors import LogDamaged, StoreError

if TYPE_CHECKING:
    from relay.chat.accounts.events import AccountEvent, InvitationEvent
    from relay.chat.accounts.invitation import Invitation
    from relay.chat.entries import Entry
    from relay.store.log import Reader

FOLDED_MAX: Final = 256
"""Events that are folded again, about: 5 ms."""
REMEMBERED_BYTES_MAX: Final = 24 * 1024 * 1024
"""About 9,800 accounts as most are, or about 40 of the largest."""
ACCOUNT_BYTES: Final = 2048
LINK_BYTES: Final = 512
"""With the device that it adds or removes."""
PAIR_BYTES: Final = 256
"""Of a blocked account, and of the name of a device."""


class AccountLogs:
    """See the module's docstring."""

    def __init__(
        self,
        reader_of: Callable[[str], Reader],
        unpack_entry: Callable[[str, bytes], Entry],
        first_invitation: bytes,
    ) -> None:
        """Begin with nothing remembered.

        Args:
            reader_of: reads a log.
            unpack_entry: returns a packed entry of a log; raises LogDamaged.
            first_invitation: the hash of the one that lies in the data directory; empty: none.
        """
        self._reader_of = reader_of
        self._unpack_entry = unpack_entry
        self._first = first_invitation
        self.inbox_entries_max = 0
        """Limit for the entries of each inbox; 0: none."""
        self.on_long: Callable[[str, int, bytes], None] = _nothing
        """Called with a log, a seq, and the state after the control entries up to it, to be stored.
        """
        self.remembered_bytes_max = REMEMBERED_BYTES_MAX
        """Limit for the cached accounts: how large one is, is its owner's choice."""
        self.remembered_bytes = 0
        """What they take, about."""
        self._noted: dict[str, int] = {}
        """For each cached account, by handle: the version of the stored state, if there is one."""
        self._accounts: dict[str, Account] = {}
        self._handles: dict[int, Grouped[str, str, str]] = {}
        """For each partition: skeleton to the handles that have it. Read once, at the first use."""

    def account(self, handle: str) -> Account:
        """Return the account of a handle; version 0 if the handle was never used.

        Raises:
            StoreError: its log cannot be read.
        """
        found = self._accounts.get(handle)
        if found is None:
            log = names.INBOX_PREFIX + handle
            handles = self._handles.get(partition_of(log))
            if handles is not None and handles.get(names.skeleton(handle), handle) is None:
                return Account(handle)  # and nothing of it is remembered: anybody may ask for any
            noted, seq = self._noted_account(log, handle)
            try:
                happened, seq = self._events(log, seq)
                found = accounts.folded(noted, cast("list[AccountEvent]", happened))
            except (LinkError, EnvelopeError) as error:
                raise LogDamaged(log, error) from None
            if noted.version:
                self._noted[handle] = noted.version
            self.remember(found, seq)
        return found

    def _noted_account(self, log: str, handle: str) -> tuple[Account, int]:
        """Return the stored state of an account, and the entry up to which it is valid."""
        seq, packed = self._reader_of(log).fold(log)
        if seq:
            with contextlib.suppress(EnvelopeError):  # the entries contain everything
                return snapshot.unpack(handle, packed), seq
        return Account(handle), 0

    def remember(self, account: Account, seq: int) -> None:
        """Cache the state of an account after its last commit, which has this seq."""
        handle = account.handle
        long = account.version - self._noted.get(handle, 0) >= FOLDED_MAX
        # for a removed account retention searches the entry that removed it
        if long and not account.removed:
            self._noted[handle] = account.version
            self.on_long(names.INBOX_PREFIX + handle, seq, snapshot.pack(account))
        remembered = self._accounts
        before = remembered.pop(handle, None)
        if before is not None:
            self.remembered_bytes -= _bytes_of(before)
        remembered[handle] = account
        self.remembered_bytes += _bytes_of(account)
        while self.remembered_bytes > self.remembered_bytes_max and len(remembered) > 1:
            oldest = next(iter(remembered))
            self.remembered_bytes -= _bytes_of(remembered.pop(oldest))
            self._noted.pop(oldest, None)
        if account.version:
            handles = self._handles.get(partition_of(names.INBOX_PREFIX + handle))
            if handles is not None:
                handles.add(_skeleton(handle), handle)

    @property
    def first_invitation_log(self) -> str:
        """The log of the invitation in the data directory; empty: there is none."""
        return invitation.log_of(self._first) if self._first else ""

    def invitation(self, log: str) -> Invitation:
        """Return the invitation of a log; version 0 if there is none.

        Raises:
            StoreError: its log cannot be read.
        """
        try:
            happened, _ = self._events(log, 0)
            state = invitation.folded(cast("list[InvitationEvent]", happened))
        except EnvelopeError as error:
            raise LogDamaged(log, error) from None
        if state.invited is None and log == self.first_invitation_log:
            first = events.Invited(self._first, 0, True, "operator")
            return state._replace(invited=first)
        return state

    def looks_alike(self, handle: str) -> bool:
        """Return True if another handle, existing or former, looks like this one.

        Raises:
            StoreError: the partition cannot be read.
        """
        log = names.INBOX_PREFIX + handle
        partition = partition_of(log)
        handles = self._handles.get(partition)
        if handles is None:
            handles = self._handles[partition] = Grouped(_itself)
            for name in self._reader_of(log).names(names.INBOX_PREFIX):
                existing = name[len(names.INBOX_PREFIX) :]
                handles.add(_skeleton(existing), existing)
        return any(other != handle for other in handles.values(names.skeleton(handle)))

    def is_lost(self, account: Account | None, request: Request, refusal: Refused) -> bool:
        """Return True if a refusal means ``decide_request.LOST``.

        The account that has the name may have been created with the same invitation, and have other
        keys since. Of a removed account nothing is kept that would show it.
        """
        if account is None or not isinstance(request, Register) or not request.token_hash:
            return False
        if refusal.reason is Reason.LOOKS_ALIKE:  # there was never an account of this name
            return True
        if refusal.reason is not Reason.NAME_TAKEN or account.removed:
            return False
        with contextlib.suppress(StoreError, EnvelopeError):
            happened, _ = self._events(names.INBOX_PREFIX + account.handle, 0)
            # The later ones, after a reset, were not created with invitations.
            first = next(event for event in happened if isinstance(event, events.Created))
            return first.token_hash != request.token_hash
        return False

    def has_written(self, handle: str, to: str) -> bool:
        """Return True if an account has written to another one.

        Raises:
            StoreError: the inbox cannot be read.
        """
        log = names.INBOX_PREFIX + handle
        return self._reader_of(log).has_written(log, to)

    def seen_ms(self, handle: str) -> int:
        """Return when the user was last connected; 0 if unknown.

        Raises:
            StoreError: the inbox cannot be read.
        """
        log = names.INBOX_PREFIX + handle
        return self._reader_of(log).seen(log)

    def is_full(self, handle: str, *, knows: bool) -> bool:
        """Return True if an inbox has reached its limit for a sender.

        Strangers fill half of it at most: otherwise anybody could keep all others from writing to
        its owner.

        Args:
            handle: the owner.
            knows: True if the owner has written to the sender.

        Raises:
            StoreError: it cannot be read.
        """
        if not self.inbox_entries_max:
            return False
        log = names.INBOX_PREFIX + handle
        reader = self._reader_of(log)
        held = reader.head(log).seq - reader.floor(log)
        return (held if knows else 2 * held) >= self.inbox_entries_max

    def forget(self) -> None:
        """Clear the cache: other workers may write these logs now."""
        self._accounts.clear()
        self.remembered_bytes = 0
        self._noted.clear()
        self._handles.clear()

    def _events(self, log: str, after: int) -> tuple[list[events.Event], int]:
        """Return the events after an entry, and the seq of the last one."""
        # Selected by kind, which no client can choose: a message may have any content type.
        packed = self._reader_of(log).controls(log, after)
        controls = [self._unpack_entry(log, one) for one in packed]
        found = [
            events.unpack(entry.body)
            for entry in controls
            if entry.content_type == events.CONTENT_TYPE
        ]
        return found, controls[-1].seq if controls else after


def _bytes_of(account: Account) -> int:
    """Return about what a cached account takes."""
    pairs = len(account.blocked) + len(account.names)
    return ACCOUNT_BYTES + len(account.links) * LINK_BYTES + pairs * PAIR_BYTES


def _skeleton(handle: str) -> str:
    """Return the skeleton. If it equals the handle, the same string object, to save memory."""
    skeleton = names.skeleton(handle)
    return handle if skeleton == handle else skeleton


def _itself(handle: str) -> str:
    return handle


def _nothing(_log: str, _seq: int, _packed: bytes) -> None:
    """Do nothing: default of ``on_long``."""
