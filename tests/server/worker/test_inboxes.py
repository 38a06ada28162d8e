"""A permanently removed account is found by retention, whatever was noted about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.chat.accounts import account as accounts
from relay.chat.accounts import events, snapshot
from relay.chat.accounts.account import Account
from relay.chat.entries import Kind, Submission
from relay.server.worker.home.accounts import logs as account_logs
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.home.retention.inboxes import Inbox, Inboxes
from relay.server.worker.stored import stored_entry
from relay.store.reading.reader import SqliteReader
from relay.store.retention.message_counter import MessageCounter
from relay.store.retention.removal_reader import RemovalReader
from relay.wire.packing import unpack_entry
from tests.support.logs import NOW_MS, append, message, open_partition

INBOX = "@alice"
HAPPENED: list[events.AccountEvent] = [
    events.KeepSet(60, 0, 0), events.Disabled(), events.Enabled(), events.Removed(),
]  # fmt: skip


def entry(counter: int, event: events.AccountEvent) -> Submission:
    return message(counter, events.pack(event), log=INBOX)._replace(
        kind=int(Kind.SYSTEM), content_type=events.CONTENT_TYPE
    )


def test_an_account_is_removed_though_that_was_noted(tmp_path: Path) -> None:
    """A version that noted the account after its removal did not note by which entry."""
    partition = open_partition(tmp_path)
    append(partition, *(entry(n, event) for n, event in enumerate(HAPPENED, 1)))
    reader = RemovalReader(partition.path, MessageCounter(unpack_entry))
    assert Inboxes().of(reader, INBOX) == Inbox((0, 0, 0), 4)
    account = accounts.folded(Account("alice"), HAPPENED)
    assert account.removed
    partition.note_folds([(INBOX, 4, snapshot.pack(account))])
    partition.append([], NOW_MS)
    assert reader.fold(INBOX)[0] == 4
    assert Inboxes().of(reader, INBOX) == Inbox((0, 0, 0), 4)
    reader.close()
    partition.close()


@pytest.mark.parametrize("removed", [True, False])
def test_nothing_is_noted_of_a_removed_account(
    tmp_path: Path, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its 256th event, for example. Other accounts are noted."""
    monkeypatch.setattr(account_logs, "FOLDED_MAX", 4)
    noted: list[str] = []
    reader = SqliteReader(tmp_path / "none")
    logs = AccountLogs(lambda _: reader, stored_entry, b"")
    logs.on_long = lambda log, _, __: noted.append(log)
    happened = HAPPENED if removed else [*HAPPENED[:3], events.Disabled()]
    logs.remember(accounts.folded(Account("alice"), happened), 4)
    assert noted == ([] if removed else [INBOX])
