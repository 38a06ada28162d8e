"""Expired entries are removed, on every path and for every worker, and readers get one gap."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import apsw
import pytest

from relay.chat.accounts import requests as accounts
from relay.chat.entries import NO_EPOCH, GapReason
from relay.chat.entries import Kind as EntryKind
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.chat.rooms.events import Kind
from relay.server.offline.repair import check, stopped
from relay.settings import Retention as Settings
from relay.store.errors import StoreUnavailable
from relay.store.file.checkpoint import Checkpointer
from relay.store.file.schema import rows
from relay.store.retention import removal
from relay.store.retention.limits import Excess, RetentionLimits
from relay.store.retention.message_counter import MessageCounter
from relay.store.retention.removal_reader import RemovalReader
from relay.store.sqlite import SqlitePartition
from relay.store.state import SEQ_BITS
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done, Gap, History, Join, Live, Page
from relay.wire.packing import unpack_entry
from tests.server.worker.test_damaged_logs import connection_of, neighbour_of
from tests.server.worker.test_logins import ask
from tests.server.worker.test_rooms import LOG, done, operator, refused, stored
from tests.support.cluster import until
from tests.support.scanning import leftovers
from tests.support.workers import Cluster, TestClient, Worker


async def look(worker: Worker) -> None:
    """Run the removal that a worker does each minute."""
    worker.retention.grace_ms = 0
    await worker.retention.once()


def seqs(client: TestClient, log: str = LOG) -> list[int]:
    return [entry.seq for entry in client.entries(log)]


async def written(cluster: Cluster, count: int, log: str = LOG) -> TestClient:
    """Alice, who has written to her room from the other worker: entries 2 to count + 1."""
    alice = await TestClient.login(cluster.other(log), "alice")
    alice.send(log, 1, count)
    await alice.acked(log, count)
    return alice


async def test_readers_behind_get_one_gap_and_the_rest(tmp_path: Path) -> None:
    """With a cursor from before; from the beginning; live members notice nothing."""
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=20)) as cluster:
        alice = await written(cluster, 60)
        await alice.join(LOG)
        first = stored(cluster.home(LOG))[0]
        await look(cluster.home(LOG))
        for name, epoch, seq in (("bob", first.epoch, 5), ("carol", NO_EPOCH, 0)):
            reader = await TestClient.login(cluster.other(LOG), name)
            reader.send_envelopes(Join(1, LOG, epoch, seq, 0))
            await reader.expect(Live, lambda e: e.log == LOG)
            [gap] = [e for e in reader.received if isinstance(e, Gap)]
            assert (gap.from_seq, gap.to_epoch, gap.to_seq) == (seq, first.epoch, 41)
            assert gap.reason == GapReason.RETENTION
            assert seqs(reader) == list(range(42, 62))
            reader.send_envelopes(History(2, LOG, False, 0, 100))
            page = await reader.expect(Page)
            assert [one.seq for one in page.entries] == list(range(42, 62))
            assert page.end
        alice.send(LOG, 61)
        await alice.until(lambda: seqs(alice) == [62], "the next message")
        assert not [e for e in alice.received if isinstance(e, Gap)]


async def test_a_reader_that_catches_up_while_its_place_is_removed(tmp_path: Path) -> None:
    """The gap comes between two pages; a worker's cached pages are not served any more."""
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=100)) as cluster:
        alice = await TestClient.login(cluster.other(LOG), "alice")
        alice.send(LOG, 1, 300, size=2000)
        await alice.acked(LOG, 300)
        other = cluster.other(LOG)
        catchup = other.parts.member.catchup
        reader = await TestClient.login(other, "reader")
        serve = catchup._serve_subscription
        pages = 0

        def serving(*args: object) -> None:
            nonlocal pages
            pages += 1
            serve(*args) if pages <= 2 else held.append(args)  # type: ignore[arg-type]

        held: list[tuple[object, ...]] = []
        catchup._serve_subscription = serving  # type: ignore[method-assign, assignment]
        reader.send_envelopes(Join(1, LOG, NO_EPOCH, 0, 0))
        await until(lambda: bool(held), "a reader between two pages")
        await look(cluster.home(LOG))
        catchup._serve_subscription = serve  # type: ignore[method-assign]
        for args in held:
            serve(*args)  # type: ignore[arg-type]
        await reader.expect(Live, lambda e: e.log == LOG)
        [gap] = [e for e in reader.received if isinstance(e, Gap)]
        got = seqs(reader)
        assert got == [*range(1, gap.from_seq + 1), *range(gap.to_seq + 1, 302)]
        assert (gap.to_seq, gap.reason) == (201, GapReason.RETENTION)
        assert other.parts.services.counts.gaps["retention"] == 1


async def test_a_clock_that_was_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits by count need no clock: what its times do not show, the grace period does."""
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=20)) as cluster:
        await written(cluster, 60)
        home = cluster.home(LOG)
        retention, sleep = home.retention, asyncio.sleep
        retention._wall_clock_ns = lambda: time.time_ns() - 365 * 86_400 * 10**9
        retention.grace_ms = 54_321_000
        stored_then: list[int] = []

        async def slept(seconds: float, result: None = None) -> None:
            if seconds == retention.grace_ms / 1000:
                stored_then.append(len(stored(home)))
                seconds = 0
            await sleep(seconds, result)

        monkeypatch.setattr(asyncio, "sleep", slept)
        await retention.once()
        assert stored_then == [61]
        assert [one.seq for one in stored(home)] == list(range(42, 62))


async def test_an_owner_chooses_for_a_room(tmp_path: Path) -> None:
    """Less than the configured limit, or the limit; the choice is an entry of the room."""
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=40)) as cluster:
        alice = await written(cluster, 60)
        bob = await TestClient.login(cluster.other(LOG), "bob")
        home = cluster.home(LOG)
        wish = requests.SetKeep(0, 10, 0)
        assert await refused(bob, wish) == ErrorCode.NOT_ALLOWED
        await done(alice, wish)
        assert await refused(alice, requests.SetKeep(0, 11, 0), seen=1) == ErrorCode.CHANGED
        await look(home)
        assert [one.kind for one in stored(home)] == [EntryKind.MESSAGE] * 10 + [EntryKind.SYSTEM]
        await done(alice, requests.SetKeep(0, 1000, 0))
        alice.send(LOG, 61, 160)
        await alice.acked(LOG, 160)
        await look(home)
        assert len(stored(home)) == 40, "not more than the configured limit"
        assert alice.received  # and no member was removed by it
        await done(alice, requests.SetKeep(0, 0, 0))
        await done(await operator(cluster), requests.SetKeep(1, 0, 0))


async def test_inboxes_too(tmp_path: Path) -> None:
    """Accounts, whose state is in the same logs, are kept."""
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=5)) as cluster:
        ann = await TestClient.login(cluster.workers[0], "ann")
        await TestClient.login(cluster.workers[1], "bert")
        ann.send("@bert", 1, 30)
        await ann.acked("@ann", 30)
        home = cluster.home("@bert")
        await until(lambda: len(stored(home, "@bert")) > 30, "the copies")
        for worker in cluster.workers.values():
            await look(worker)
        await until(lambda: len(stored(home, "@bert")) == 5, "fewer")
        again = await TestClient.login(cluster.workers[0], "bert")
        ann.send("@bert", 31)
        await ann.acked("@ann", 31)
        await again.join("@bert")


async def test_a_deleted_room_leaves_no_word(tmp_path: Path) -> None:
    """Neither messages nor topics, in any file of the data directory; a new room may be created."""
    async with Cluster(tmp_path, 2, rights=True) as cluster:
        alice = await TestClient.login(cluster.other(LOG), "alice")
        await done(alice, requests.Create())
        await done(alice, requests.SetTopic("secret topic"))
        alice.send(LOG, 1, 300)
        await alice.acked(LOG, 300)
        await done(alice, requests.Delete())
        home = cluster.home(LOG)
        await look(home)
        partition = home.parts.home.partitions.partition(partition_of(LOG))
        assert isinstance(partition, SqlitePartition)
        assert partition.erased
        await Checkpointer(partition, asyncio.to_thread).run()
        assert not leftovers(tmp_path / "data", rb"secret topic|alice \d+")
        bob = await TestClient.login(cluster.other(LOG), "bob")
        await done(bob, requests.Create())
        bob.send(LOG, 1)
        await bob.acked(LOG, 1)
        await look(home)
        assert [e.sender for e in stored(home)][-2:] == ["bob", "bob"]


async def test_what_is_left_means_what_it_did(tmp_path: Path) -> None:
    """A check folds the remaining entries: of deleted rooms and of accounts only the last one."""
    data = tmp_path / "data"
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=5)) as cluster:
        opera = await operator(cluster)
        alice = await TestClient.login(cluster.other(LOG), "alice")
        for log in ("gone", "again", "kept"):
            await done(alice, requests.Create(Kind.PRIVATE), log=log)
            await done(alice, requests.SetTopic("a topic"), log=log)
            alice.send(log, 1, 30)
            await alice.acked(log, 30)
            if log != "kept":
                await done(alice, requests.Delete(), log=log)
        assert isinstance(await ask(opera, 1, accounts.Remove(), "alice"), Done)
        for worker in cluster.workers.values():
            await look(worker)
        await done(opera, requests.Create(), log="again")
        for worker in cluster.workers.values():
            await look(worker)
    with stopped(data) as directory:
        found = list(check(directory))
    assert [(one.refused, one.damaged) for one in found] == [(None, [])] * len(found)


@pytest.mark.parametrize("kind", ["commits", "backup"])
async def test_it_waits_for_others(tmp_path: Path, kind: str) -> None:
    """And what arrives during the removal is stored."""
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=10)) as cluster:
        alice = await written(cluster, 500)
        home = cluster.home(LOG)
        home.parts.home.partitions.paused = kind == "backup"
        tries: list[int] = []

        class Tried:
            """The partitions, counting how often a removal is about to begin."""

            def __getattr__(self, name: str) -> object:
                if name == "begin_removal":
                    tries.append(0)
                return getattr(home.parts.home.partitions, name)

        home.retention._partitions = Tried()  # type: ignore[assignment]
        looking = asyncio.ensure_future(look(home))
        if kind == "backup":
            await until(lambda: len(tries) > 2, "tries")
            assert len(stored(home)) == 501
            home.parts.home.partitions.paused = False
        alice.send(LOG, 501, 700)
        await alice.acked(LOG, 700)
        await looking
        await look(home)
        assert [e.seq for e in stored(home)] == list(range(692, 702))


async def test_it_ends_with_its_worker_though_a_thread_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Cluster(tmp_path, 1, rights=True) as cluster:
        home = cluster.home(LOG)
        alice = await TestClient.login(home, "alice")
        alice.send(LOG, 1, 5)
        await alice.acked(LOG, 5)
        partition = home.parts.home.partitions.partition(partition_of(LOG))
        assert isinstance(partition, SqlitePartition)
        path = partition.path
        reading, read_on = threading.Event(), threading.Event()

        def wait(*_: object) -> bool:
            reading.set()
            return read_on.wait()

        class Slow(RemovalReader):
            def states(self, *_: object) -> list[tuple[str, bytes, int]]:
                connection = self._opened()
                assert connection is not None
                connection.create_scalar_function("wait", wait)
                connection.execute("SELECT wait()").fetchall()
                return []

        home.retention._new_reader = lambda _: Slow(path, MessageCounter(unpack_entry))
        task = asyncio.create_task(home.retention.run())
        try:
            await until(reading.is_set, "a look")
            task.cancel()
            await until(task.cancelled, "its end")
        finally:
            task.cancel()
            read_on.set()
    assert "retention_failed" not in caplog.text


async def test_a_damaged_page_of_one_log_keeps_no_other_one_forever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others of its partition are gone through in the same pass; it is named once."""
    async with Cluster(tmp_path, 1, retention=Settings(messages=5)) as cluster:
        home = cluster.workers[0]
        alice = await TestClient.login(home, "alice")
        first, second = sorted([LOG, neighbour_of(LOG)])
        for log in (first, second):
            alice.send(log, 1, 20)
            await alice.acked(log, 20)
        connection = connection_of(home, first)
        [(log_id,)] = rows(connection, "SELECT id FROM log WHERE name=?", (first,))

        def damaged(_cursor: object, statement: str, bindings: object) -> bool:
            of_it = isinstance(bindings, tuple) and bindings[0] == log_id << SEQ_BITS
            if statement == removal._NEXT and of_it:
                raise apsw.CorruptError("database disk image is malformed")
            return True

        connection.exec_trace = damaged
        await look(home)
        assert len(stored(home, first)) == 20
        assert len(stored(home, second)) == 5
        assert home.parts.home.partitions.refused == {}
        [told] = [one for one in caplog.records if one.getMessage() == "retention_failed"]
        assert vars(told)["log"] == first
        await look(home)
        assert len(stored(home, first)) == 5


async def test_a_removal_that_failed_after_it_was_stored_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program_errors: list[str]
) -> None:
    """The disk reports an error after the commit: pages from before it are not served any more."""
    async with Cluster(tmp_path, 1, retention=Settings(messages=5)) as cluster:
        home = cluster.workers[0]
        alice = await TestClient.login(home, "alice")
        alice.send(LOG, 1, 20)
        await alice.acked(LOG, 20)
        catchup = home.parts.member.catchup
        before, remove = catchup.erasures(LOG), SqlitePartition.remove

        def stored_and_failed(partition: SqlitePartition, *wanted: Any) -> NoReturn:  # noqa: ANN401
            remove(partition, *wanted)
            raise StoreUnavailable("the disk failed")

        monkeypatch.setattr(SqlitePartition, "remove", stored_and_failed)
        await look(home)
        assert len(stored(home)) == 5
        assert catchup.erasures(LOG) != before
    program_errors.clear()


async def test_a_log_that_cannot_be_handled_stands_in_no_others_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, program_errors: list[str]
) -> None:
    """It is logged once."""
    async with Cluster(tmp_path, 1, retention=Settings(messages=5)) as cluster:
        home = cluster.workers[0]
        alice = await TestClient.login(home, "alice")
        index = partition_of(LOG)
        bad = next(name for name in map("a{}".format, range(10**6)) if partition_of(name) == index)
        for name in (bad, LOG):
            alice.send(name, 1, 20)
            await alice.acked(name, 20)
        partition = home.parts.home.partitions.partition(index)
        assert isinstance(partition, SqlitePartition)
        path = partition.path

        class Failing(RemovalReader):
            def removable(
                self, log: str, keep: RetentionLimits, now_ms: int, grace_ms: int
            ) -> Excess:
                if log == bad:
                    raise ValueError(log)
                return super().removable(log, keep, now_ms, grace_ms)

        home.retention._new_reader = lambda _: Failing(path, MessageCounter(unpack_entry))
        await look(home)
        await look(home)
        assert len(stored(home)) == 5
    assert caplog.text.count("ValueError: " + bad) == 1
    program_errors.clear()
