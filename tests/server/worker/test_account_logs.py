"""An account that was changed often: the number of entries folded again is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.chat.accounts import requests
from relay.chat.entries import Entry
from relay.chat.partition import partition_of
from relay.server.worker.connection.requests.devices import chain_of
from relay.server.worker.home.accounts import logs as account_logs
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.stored import stored_entry
from relay.store.sqlite import SqlitePartition
from relay.wire.envelopes import Account, Chain, Devices, Done
from relay.wire.packing import unpack_entry
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient

CHANGES = 60
SOME = 16


@pytest.mark.parametrize("noted", ["whole", "damaged"])
async def test_few_entries_are_folded_again(
    tmp_path: Path, noted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached state equals the fold of all entries, which remain the source of truth."""
    monkeypatch.setattr(account_logs, "FOLDED_MAX", SOME)
    async with Cluster(tmp_path, 1) as cluster:
        worker = cluster.workers[0]
        alice = await TestClient.login(worker, "alice")
        for number in range(CHANGES):
            name = f"foe-{number // 2}"
            change: requests.Request = requests.Block(name, bytes(32))
            if number % 4 == 3:
                change = requests.Unblock(name)
            alice.send_envelopes(Account(number + 1, "", requests.pack(change)))
        await alice.until(
            lambda: sum(isinstance(e, Done) for e in alice.received) > CHANGES, "all answers"
        )
        reader = worker.parts.services.reader_of("@alice")
        await until(lambda: reader.fold("@alice")[0], "a note")
        kept = worker.parts.home.accounts.logs.account("alice")
        if noted == "damaged":
            partition = worker.parts.home.partitions.partition(partition_of("@alice"))
            assert isinstance(partition, SqlitePartition)
            assert partition._opened is not None
            partition._opened.connection.execute("UPDATE fold SET packed=x'c1'")
        read = 0

        def counted(_: str, packed: bytes) -> Entry:
            nonlocal read
            read += 1
            return unpack_entry(packed)

        again = AccountLogs(lambda _: reader, counted, b"")
        assert again.account("alice") == kept
        assert kept.version > CHANGES // 2
        assert (read < SOME + CHANGES // 4) if noted == "whole" else (read == kept.version)
        session = next(iter(worker.parts.connections.sessions))
        assert chain_of(session, "alice") == list(kept.links)
        alice.send_envelopes(Devices(999, "alice", 0))
        assert (await alice.expect(Chain)).links == list(kept.links)


async def test_what_others_may_have_written_is_read_anew(tmp_path: Path) -> None:
    """A home that gets its partition back from another one discards what it had cached."""
    async with Cluster(tmp_path, 1) as cluster:
        worker = cluster.workers[0]
        mine = AccountLogs(worker.parts.services.reader_of, stored_entry, b"")
        assert mine.account("bell").chain is None
        assert not mine.looks_alike("be11")
        await TestClient.login(worker, "bell")
        assert mine.account("bell").chain is None, "it was not notified"
        assert not mine.looks_alike("be11")
        mine.forget()
        assert mine.looks_alike("be11")
        assert mine.account("bell").chain is not None
