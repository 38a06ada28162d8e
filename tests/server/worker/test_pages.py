"""Pages that are kept: what many missed is read once, and is complete for each of them."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import cast

import pytest

from relay import limits
from relay.bus.link import Link
from relay.chat.entries import NO_EPOCH, Cursor, GapReason, Head, Kind, Submission
from relay.chat.partition import partition_of
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.home.followers.publishing import Interest, Publishing
from relay.server.worker.home.submissions import Waiting
from relay.server.worker.member.feed import Feed
from relay.server.worker.member.pages import BYTES_MAX, COUNT_MAX, Page, Pages
from relay.server.worker.process.messaging.own_home import LocalPort
from relay.server.worker.wakeup import Wakeup
from relay.settings import Retention as Settings
from relay.store.log import Reader, Repeated, ResumePoint
from relay.wire.envelopes import Join, Live, Send
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
NONE = 1, 0
"""No erasures."""


async def _read_whole(worker: Worker, name: str, count: int) -> int:
    """Let a client without an entry read the log; return how many pages were read for it."""
    before = worker.parts.member.catchup.pages_read
    client = await TestClient.login(worker, name)
    client.send_envelopes(Join(9, LOG, NO_EPOCH, 0, 0))
    await client.ends_with(LOG, count)
    assert client.seqs(LOG) == list(range(1, count + 1))
    bodies = [entry.body for entry in client.entries(LOG)[-count:]]
    assert len(bodies) == len(set(bodies)), "no entry twice"
    client.disconnect()
    await client.gone(worker)
    return worker.parts.member.catchup.pages_read - before


async def test_what_many_missed_is_read_once(cluster: Cluster) -> None:
    """All have the same cursor. What comes while they return is read once as well."""
    worker = cluster.other(LOG)
    writer = await TestClient.login(worker, "writer")
    await writer.join(LOG)
    writer.send(LOG, 1, 20)
    await writer.ends_with(LOG, 20)
    assert await _read_whole(worker, "first", 20) == 1
    assert await _read_whole(worker, "second", 20) == 0
    writer.send(LOG, 21, 30)
    await writer.ends_with(LOG, 30)
    checked = worker.parts.member.catchup.checked.entries
    assert await _read_whole(worker, "third", 30) == 1
    assert worker.parts.member.catchup.checked.entries == checked + 10, (
        "only what came since was read"
    )
    assert await _read_whole(worker, "fourth", 30) == 0


async def test_a_kept_page_grows_to_the_size_of_a_page(cluster: Cluster) -> None:
    """However much comes between two readers, the next one gets all of it, in pages."""
    worker = cluster.other(LOG)
    writer = await TestClient.login(worker, "writer")
    await writer.join(LOG)
    size = limits.PAGE_BYTES_MAX // 10
    first = 1
    sizes: list[int] = []
    for last in (3, 6, 9, 14, 30):
        writer.send(LOG, first, last, size=size)
        await writer.ends_with(LOG, last)
        first = last + 1
        await _read_whole(worker, f"reader{last}", last)
        erasures = worker.parts.member.catchup.erasures(LOG)
        kept = worker.parts.member.catchup.pages.get(worker.feed(LOG), 0, erasures)
        assert kept is not None
        sizes.append(len(kept.content))
    assert sizes[:3] == sorted(sizes[:3])
    assert 9 * size < sizes[2] == sizes[3] == sizes[4] <= limits.PAGE_BYTES_MAX


async def test_pages_end_with_the_feed(cluster: Cluster) -> None:
    """A worker that nobody needs the log of any more keeps nothing of it."""
    worker = cluster.other(LOG)
    writer = await TestClient.login(worker, "writer")
    await writer.join(LOG)
    writer.send(LOG, 1, 5)
    await writer.ends_with(LOG, 5)
    await _read_whole(worker, "reader", 5)
    pages = worker.parts.member.catchup.pages
    assert pages.count == 1
    writer.disconnect()
    await writer.gone(worker)
    assert (pages.count, pages.bytes) == (0, 0)


async def test_what_was_erased_is_not_served_whatever_the_home_can_still_tell(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its acknowledgement on: the home tells other workers nothing more, then it dies."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    readers = list(itertools.islice(cluster.names_of(other), 4))
    writer = await TestClient.login(home, next(cluster.names_of(home)))
    await writer.join(LOG)
    writer.send(LOG, 1, 5)
    await writer.ends_with(LOG, 5)
    member = await TestClient.login(other, readers[0])
    await member.join(LOG)
    assert await _read_whole(other, readers[1], 5) == 1
    silent, flush = set(home.parts.links.values()), Link.flush
    monkeypatch.setattr(Link, "flush", lambda link: None if link in silent else flush(link))
    third = writer.entries(LOG)[2]
    writer.send_envelopes(
        Send(LOG, 6, int(Kind.REDACTION), "text/plain", b"", third.epoch, third.seq)
    )
    await writer.acked(LOG, 6)
    await _reads_erased(other, readers[2], third.seq)
    await cluster.kill(home.index)
    await until(lambda: not other.parts.links, "the end of the link")
    await _reads_erased(other, readers[3], third.seq)


async def _reads_erased(worker: Worker, name: str, seq: int) -> None:
    reader = await TestClient.login(worker, name)
    reader.send_envelopes(Join(9, LOG, NO_EPOCH, 0, 0))
    await reader.expect(Live)
    found = [(entry.kind, entry.body) for entry in reader.entries(LOG) if entry.seq == seq]
    assert found == [(Kind.ERASED, b"")]


def test_an_erasure_while_a_page_is_read_ends_it() -> None:
    """The page may have been read before the erasure, so it is kept for nobody."""
    feed, pages, page = object(), Pages(), Page(0, 1, b"entry")
    assert pages.get(feed, 0, (1, 0)) is None
    pages.put(feed, 0, page, (1, 0))
    assert pages.get(feed, 0, (1, 0)) == page
    assert pages.get(feed, 0, (1, 1)) is None
    assert (pages.count, pages.bytes) == (0, 0)


def test_pages_are_bounded() -> None:
    """By number and by size; the feed that was not used for longest gives its oldest page."""
    damaged = DamagedLogs(time.monotonic)
    used, unused, large = (Feed(name, damaged) for name in ("used", "unused", "large"))
    pages = Pages()
    for feed in (used, unused):
        for after in range(COUNT_MAX // 2):
            pages.put(feed, after, Page(after, after + 1, b"entry"), NONE)
    assert (pages.count, pages.bytes) == (COUNT_MAX, COUNT_MAX * len(b"entry"))
    assert pages.get(used, 0, NONE) is not None
    pages.put(used, COUNT_MAX, Page(COUNT_MAX, COUNT_MAX + 1, b"entry"), NONE)
    assert pages.count == COUNT_MAX
    assert pages.get(unused, 0, NONE) is None
    assert pages.get(unused, 1, NONE) is not None
    pages.put(unused, 1, Page(1, 3, b"entry" * 2), NONE)
    assert (pages.count, pages.bytes) == (COUNT_MAX, (COUNT_MAX + 1) * len(b"entry"))
    page = bytes(limits.PAGE_BYTES_MAX)
    for after in range(100):
        pages.put(large, after, Page(after, after + 1, page), NONE)
        assert pages.bytes <= BYTES_MAX
    assert pages.get(large, 99, NONE) is not None
    for feed in (used, unused, large):
        pages.drop(feed)
    assert (pages.count, pages.bytes) == (0, 0)


def test_an_erasure_that_is_acknowledged_as_a_repeat_is_counted() -> None:
    """The commit of the first one may have failed, for all that its home knew, and was stored."""
    erased: list[int] = []
    publishing = Publishing(Interest(), erased.append)
    for kind in (Kind.MESSAGE, Kind.REDACTION):
        submission = Submission(LOG, "ann", b"", b"p" * 16, 2, int(kind), "", b"")
        waiting = Waiting(LocalPort(0, 1, Wakeup(lambda _: None)), 0, submission)
        publishing.publish([waiting], [Repeated(b"epoch...", 3)])
    assert erased == [partition_of(LOG)]
    assert publishing.repeated == 2


class _Asked:
    """A log's reader that counts how often it is asked where a cursor continues."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.count = 0

    def resume(self, log: str, cursor: Cursor, head: Head) -> ResumePoint:
        self.count += 1
        return self._reader.resume(log, cursor, head)

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)


async def test_where_many_continue_is_looked_up_once(tmp_path: Path) -> None:
    """Until something is removed; a cursor before, beyond or of another epoch is looked up."""
    async with Cluster(tmp_path, 1, retention=Settings(messages=5)) as cluster:
        worker = cluster.workers[0]
        writer = await TestClient.login(worker, "writer")
        await writer.join(LOG)
        writer.send(LOG, 1, 20)
        await writer.ends_with(LOG, 20)
        member = worker.parts.member
        feed = member.feeds.by_log[LOG]
        asked = _Asked(worker.parts.services.reader_of(LOG))

        def gap(seq: int, epoch: bytes = feed.epoch) -> GapReason | None:
            found = member.catchup.gap(feed, cast("Reader", asked), Cursor(epoch, seq))
            return None if found is None else found.reason

        assert [gap(10), gap(10), gap(15), gap(feed.seq)] == [None] * 4
        assert asked.count == 1
        assert [gap(9), gap(9), gap(10)] == [None] * 3
        assert asked.count == 2
        assert gap(feed.seq + 1) is GapReason.AHEAD
        assert gap(10, b"another!") is GapReason.EPOCH
        assert gap(8, NO_EPOCH) is None
        assert asked.count == 5
        assert gap(10) is None
        assert asked.count == 5
        worker.retention.grace_ms = 0
        await worker.retention.once()
        assert gap(10) is GapReason.RETENTION
        assert gap(feed.seq) is None
        assert gap(10) is GapReason.RETENTION
        assert asked.count == 8
