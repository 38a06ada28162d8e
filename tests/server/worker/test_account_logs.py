"""An account that was changed often: the number of entries folded again is bounded."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import NoReturn

import pytest

from relay.chat.accounts import links, requests
from relay.chat.accounts.account import Account as AccountState
from relay.chat.accounts.chain import LINKS_MAX
from relay.chat.accounts.chain import Chain as DeviceChain
from relay.chat.accounts.preferences import BLOCKED_MAX
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


def account_of(number: int, changes: int, blocked: int) -> AccountState:
    """Return an account with so many added devices, half of them removed, all with objects of its
    own.
    """
    handle = f"a-rather-long-handle-{number:05}"
    keys = [(number << 16 | key).to_bytes(32, "big") for key in range(1, changes + 2)]
    devices = {key: index + 300 for index, key in enumerate(keys[: changes // 2 + 1])}
    chain = DeviceChain(
        keys[0][::-1], handle, keys[0][:16], keys[0][8:], changes, keys[0][1:], devices,
        frozenset(keys[changes // 2 + 1 :]),
    )  # fmt: skip
    return AccountState(
        handle, 1000 + number, chain,
        offer=bytes(bytearray(links.LINK_BYTES_MAX)),
        names=tuple((bytes(bytearray(key)), f"{key.hex()}") for key in devices),
        blocked=frozenset((f"foe-{number}-{one:020}", one.to_bytes(32)) for one in range(blocked)),
        links=tuple(key + bytes(links.LINK_BYTES_MAX - 32) for key in keys),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "blocked"), [(0, 0), (4, 10), (LINKS_MAX - 1, 0), (0, BLOCKED_MAX)]
)
def test_no_more_is_held_than_the_limit(changes: int, blocked: int) -> None:
    """How large an account is, is its owner's choice."""
    mine = AccountLogs(_nothing_is_read, stored_entry, b"")
    mine.remembered_bytes_max = 4 * 1024 * 1024
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        number = 0
        while len(mine._accounts) == number:
            number += 1
            mine.remember(account_of(number, changes, blocked), 1)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held <= mine.remembered_bytes <= mine.remembered_bytes_max
    largest = account_of(number, changes, blocked)
    mine.remember(largest._replace(blocked=frozenset(), links=(), names=()), 2)
    assert mine.account(largest.handle).links == ()
    for other in list(mine._accounts):
        mine.remember(AccountState(other), 3)
    assert mine.remembered_bytes == len(mine._accounts) * account_logs.ACCOUNT_BYTES
    mine.forget()
    assert mine.remembered_bytes == 0


def _nothing_is_read(log: str) -> NoReturn:
    raise AssertionError(log)
