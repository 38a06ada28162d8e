"""Changes to accounts of a stopped relay: the same decisions, made on its data directory."""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from relay.chat import names
from relay.chat.accounts import decide_request, invitation
from relay.chat.accounts.decide import Policy
from relay.chat.accounts.refusal import Refused
from relay.chat.partition import PARTITIONS, partition_of
from relay.errors import StartError
from relay.server import registration
from relay.server.system.boot_id import boot_id
from relay.server.system.resource_limits import need_command_files
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.home.accounts import open_invitations
from relay.server.worker.home.accounts.entries import OPERATOR, entry_of
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.stored import stored_entry
from relay.store.file.directory import DataDirectory
from relay.store.file.generation import Host
from relay.store.log import Repeated, Stored
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.wire.device_keys import verify
from relay.wire.packing import pack_entry, unpack_entry

if TYPE_CHECKING:
    from relay.chat.accounts.account import Account
    from relay.chat.accounts.answers import Invitation
    from relay.chat.accounts.requests import Request
    from relay.chat.entries import Submission

_NO_SERVER: Final = bytes(32)
"""Nobody can register here, since that needs a connection; so no link's server id is checked."""


class OfflineAccounts:
    """The accounts in a data directory. A context manager: the directory is locked inside."""

    def __init__(self, path: Path) -> None:
        """Create without locking.

        Args:
            path: of the data directory; it must exist.
        """
        self._path = path

    def __enter__(self) -> Self:
        """Lock the directory.

        Raises:
            StartError: it is not one, a relay uses it, a partition was taken away, or the limit on
                open files is too low.
        """
        need_command_files()
        self._directory = DataDirectory.existing(self._path)
        self._lock = self._directory.lock()
        try:
            self._directory.refuse_gone()
        except StartError:
            self._lock.close()
            raise
        self._policy = Policy(registration.chosen(self._path), _NO_SERVER)
        self._readers: dict[int, SqliteReader] = {}
        first = b""
        with contextlib.suppress(StartError):  # an invalid file invites nobody
            first = registration.first_invitation(self._path / registration.FIRST_INVITATION)
        self._logs = AccountLogs(self._reader_of, stored_entry, first)
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock it."""
        for reader in self._readers.values():
            reader.close()
        self._lock.close()

    def names(self) -> list[str]:
        """Return the names of all accounts, including removed ones."""
        found: list[str] = []
        for index in range(PARTITIONS):
            found += self._reader(index).names(names.INBOX_PREFIX)
        return sorted(name[len(names.INBOX_PREFIX) :] for name in found)

    def invitations(self) -> list[Invitation]:
        """Return the invitations that can still be used.

        Raises:
            StoreError: a partition cannot be read.
        """
        found: list[Invitation] = []
        now_ms = int(time.time() * 1000)
        damaged = DamagedLogs(time.monotonic)
        for index in range(PARTITIONS):
            for some in open_invitations.parts_of(
                index,
                self._reader(index),
                self._logs,
                now_ms,
                lambda error: damaged.report(error.log, error),
            ):
                found += some
        return found

    def ask(self, log: str, request: Request) -> bytes:
        """Carry out a request as the operator; return the answer.

        Args:
            log: of an account or an invitation.
            request: about it.

        Raises:
            StartError: it is refused, or cannot be stored.
        """
        account: Account | None = None
        context = decide_request.Context(
            self._policy, verify, int(time.time() * 1000), False, OPERATOR
        )
        try:
            if log.startswith(names.INBOX_PREFIX):
                account = self._logs.account(log[len(names.INBOX_PREFIX) :])
                version = account.version
                decided = decide_request.about_account(account, request, context)
            else:
                state = self._logs.invitation(log)
                version = state.version
                decided = decide_request.about_invitation(state, request, context)
        except Refused as refusal:
            raise StartError(str(refusal)) from None
        if decided.event is not None:
            self._store(log, entry_of(log, version, decided.event, OPERATOR, b""))
            self._logs.forget()
            if invitation.is_end(decided.event, context.now_ms):
                with contextlib.suppress(StartError):
                    registration.ended(self._path / registration.FIRST_INVITATION, log)
        return decided.data

    def _store(self, log: str, entry: Submission) -> None:
        index = partition_of(log)
        reader = self._readers.pop(index, None)
        if reader is not None:
            reader.close()
        partition = SqlitePartition(
            self._directory.partition_path(index),
            self._directory.lock_path(index),
            host=Host(boot_id(), secrets.token_bytes),
            durability="power",
            pack=pack_entry,
            unpack_entry=unpack_entry,
        )
        try:
            (outcome,) = partition.append([entry], int(time.time() * 1000))
        finally:
            partition.close()
        if not isinstance(outcome, Stored | Repeated):
            raise StartError(f"it could not be stored: {outcome}")

    def _reader_of(self, log: str) -> SqliteReader:
        return self._reader(partition_of(log))

    def _reader(self, index: int) -> SqliteReader:
        reader = self._readers.get(index)
        if reader is None:
            path = self._directory.partition_path(index)
            reader = self._readers[index] = SqliteReader(path)
        return reader
