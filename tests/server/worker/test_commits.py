"""How commits are answered, and throttling of slow commits by partition."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from relay.bus.messages import TAG_STEP, Acks, Refused
from relay.chat.entries import Kind, Submission
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.home.committing.commits import (
    COMMITS_S,
    THROTTLE_AHEAD_NS,
    THROTTLE_FACTOR,
    Commit,
    Commits,
)
from relay.server.worker.home.submissions import GROUP_MIN, Waiting
from relay.server.worker.process.messaging.own_home import LocalPort
from relay.server.worker.wakeup import Wakeup
from relay.store.errors import StoreCorrupt
from relay.store.log import Outcome, Partition, Repeated, Stored
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done, Room
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

ROOM = "lobby"
SENDERS = 16
MS = 1_000_000
LONG_NS = THROTTLE_AHEAD_NS // THROTTLE_FACTOR + 10 * MS
"""A commit after which a partition has the maximal debt of rest, and more."""


class Clock:
    """A clock in nanoseconds that a test advances."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def read_ns(self) -> int:
        return self.now_ns


class Disk:
    """A partition whose every commit takes a given time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.takes_ns = 0
        self.power = False

    def begin(
        self, batch: list[Submission], now_ms: int, budget: object
    ) -> list[object] | Callable[[], list[object]]:
        """Messages wait for the disk only if all commits do."""

        def commit() -> list[object]:
            self.clock.now_ns += self.takes_ns
            return []

        waits = self.power or batch[0].kind == Kind.SYSTEM
        return commit if waits else commit()


def made(clock: Clock, *, power: bool) -> Commits:
    """Commits whose threads finish at once."""

    def at_once(work: Callable[[], Commit]) -> asyncio.Future[Commit]:
        future: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()
        future.set_result(work())
        return future

    return Commits(
        at_once, Wakeup(lambda _: None), lambda ns: None, clock_ns=clock.read_ns,
        wall_clock_ns=clock.read_ns, power=power,
    )  # fmt: skip


async def commit(made: Commits, disk: Disk, kind: Kind, takes_ns: int) -> None:
    """Commit a group of one submission."""
    disk.takes_ns = takes_ns
    submission = Submission("lobby", "ann", b"", b"p" * 16, 2, int(kind), "", b"")
    waiting = Waiting(cast(Any, None), 0, submission)
    if made.begin(3, cast(Any, disk), [waiting], quick=False) is None:
        while not made.finished():
            await asyncio.sleep(0)


def test_answers_have_the_order_of_what_is_answered() -> None:
    """Runs of new messages with repeats between them, each answered to the worker that asked."""
    here, there = (LocalPort(n, 1, Wakeup(lambda _: None)) for n in (0, 1))
    submission = Submission("lobby", "ann", b"", b"p" * 16, 2, 0, "", b"")
    epoch = b"epoch..."
    said: list[tuple[LocalPort, int, Outcome]] = [
        (here, 1, Stored(epoch, 7, 6, b"")),
        (here, 2, Stored(epoch, 8, 7, b"")),
        (here, 3, Repeated(epoch, 3)),
        (there, 1, Stored(epoch, 9, 8, b"")),
        (here, 4, Stored(epoch, 10, 9, b"")),
        (here, 6, Stored(epoch, 11, 10, b"")),
        (here, 7, Stored(b"another.", 12, 11, b"")),
    ]
    group = [Waiting(port, number * TAG_STEP, submission) for port, number, _ in said]
    outcomes = [outcome for _, _, outcome in said]
    Commit(3, group, outcomes, []).answer(outcomes, DamagedLogs(lambda: 0.0))
    runs: list[list[Any]] = [
        [1, epoch, 7, 2],
        [3, epoch, 3, 1],
        [4, epoch, 10, 1],
        [6, epoch, 11, 1],
        [7, b"another.", 12, 1],
    ]
    assert list(here.queue) == [Acks([[TAG_STEP * run[0], *run[1:]] for run in runs])]
    assert list(there.queue) == [Acks([[TAG_STEP, epoch, 9, 1]])]


async def test_commits_that_wait_for_the_disk_are_throttled() -> None:
    """They get a twentieth of a partition's time, and no other partition is affected."""
    made_, disk = made(clock := Clock(), power=False), Disk(clock)
    await commit(made_, disk, Kind.SYSTEM, LONG_NS)
    assert made_.throttled(3)
    assert not made_.throttled(4)
    clock.now_ns += THROTTLE_FACTOR * LONG_NS - THROTTLE_AHEAD_NS - 1
    assert made_.throttled(3)
    clock.now_ns += 1
    assert not made_.throttled(3)


async def test_a_stalled_disk_does_not_throttle_for_long() -> None:
    """Bans and removals of devices must not wait 19 times as long again."""
    made_, disk = made(clock := Clock(), power=False), Disk(clock)
    await commit(made_, disk, Kind.SYSTEM, 60_000 * MS)
    assert made_.throttled(3)
    clock.now_ns += 2_000 * MS
    assert not made_.throttled(3)


async def test_a_few_commits_are_not_throttled() -> None:
    """Throttling begins at a debt of more than a second."""
    made_, disk = made(clock := Clock(), power=False), Disk(clock)
    few = THROTTLE_AHEAD_NS // (THROTTLE_FACTOR * MS)
    for _ in range(few):
        await commit(made_, disk, Kind.SYSTEM, MS)
        assert not made_.throttled(3)
    for _ in range(few):
        await commit(made_, disk, Kind.SYSTEM, MS)
    assert made_.throttled(3)


async def test_commits_that_do_not_wait_for_the_disk_cost_nothing() -> None:
    """Messages, however long they take, and any commit in a mode without fsync."""
    made_, disk = made(clock := Clock(), power=False), Disk(clock)
    await commit(made_, disk, Kind.MESSAGE, LONG_NS)
    assert not made_.throttled(3)
    made_ = made(clock, power=True)
    disk.power = True
    await commit(made_, disk, Kind.SYSTEM, LONG_NS)
    assert not made_.throttled(3)


async def test_a_throttled_partition_commits_only_fast_submissions(tmp_path: Path) -> None:
    """A change of a room waits; messages to that room do not."""
    async with Cluster(tmp_path, 2, rights=True) as cluster:
        worker = cluster.home(ROOM)
        alice = await TestClient.login(worker, "alice")
        bob = await TestClient.login(worker, "bob")
        alice.send(ROOM, 1)
        await alice.acked(ROOM, 1)
        resting = worker.parts.home.writer._commits._throttled_until_ns
        resting[partition_of(ROOM)] = time.monotonic_ns() + 3600 * 10**9
        topic = requests.pack(requests.SetTopic("tea"), requests.ANYTHING_SEEN)
        alice.send_envelopes(Room(77, ROOM, topic))
        for number in range(1, 11):  # enough turns for the change, if it could be committed
            bob.send(ROOM, number)
            await bob.acked(ROOM, number)

        def answers() -> list[Done]:
            return [one for one in alice.received if isinstance(one, Done) and one.request == 77]

        assert not answers(), "it was committed while its partition was throttled"
        resting.clear()
        await alice.until(answers, "the answer")


def _never_due(_now_ms: int) -> bool:
    return False


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_thread_only_runs_the_end_of_a_commit(tmp_path: Path, durability: str) -> None:
    """A batch is decided and written in the loop: in a thread, each statement would wait for the
    interpreter, and the partition with it.
    """
    async with Cluster(tmp_path, 1, rights=True, durability=durability) as cluster:
        worker = cluster.workers[0]
        in_thread: list[str] = []
        in_loop: list[str] = []

        def ran(_cursor: object, statement: str, _bindings: object) -> bool:
            loop = threading.current_thread() is threading.main_thread()
            (in_loop if loop else in_thread).append(statement)
            return True

        for partition in worker.parts.home.partitions.opened.values():
            opened = cast(Any, partition)._opened
            opened.connection.exec_trace = ran
            # What drops unused producers is no part of a batch (``test_producers``).
            opened.expiry.due = _never_due
        alice = await TestClient.login(worker, "alice")
        for room in range(3):
            for number in (1, 2):
                alice.send(f"room-{room}", number)
            await alice.acked(f"room-{room}", 2)
        topic = requests.pack(requests.SetTopic("tea"), requests.ANYTHING_SEEN)
        alice.send_envelopes(Room(77, "room-0", topic))
        await alice.until(lambda: Done(77, b"") in alice.received, "the topic")
        await until(lambda: not worker.parts.home.writer.busy, "no commit")
    assert set(in_thread) <= {"COMMIT", "PRAGMA synchronous=NORMAL"}
    assert in_thread.count("COMMIT") >= 4, "three rooms and a topic"
    assert in_loop.count("BEGIN IMMEDIATE") >= 4


async def written(single: Cluster) -> tuple[Worker, int]:
    """Write to a room. Return the worker and the room's partition, when no thread uses it."""
    worker = single.workers[0]
    alice = await TestClient.login(worker, "alice")
    alice.send(ROOM, 1)
    await alice.acked(ROOM, 1)
    await until(lambda: not worker.parts.home.writer.busy, "nothing at work in it")
    return worker, partition_of(ROOM)


async def test_a_partition_found_damaged_is_not_written_again_in_the_same_turn(
    single: Cluster,
) -> None:
    """After damage found by the fast submissions, the slow ones get the same answer."""
    worker, index = await written(single)
    parts = worker.parts.home
    queues, home, partitions = parts.queues, parts.writer, parts.partitions
    new = next(name for n in range(1000) if partition_of(name := f"room-{n}") == index)
    damaged = Damaged(partitions.opened[index])
    partitions.opened[index] = cast(Any, damaged)
    asker = LocalPort(0, 1, Wakeup(lambda _: None))
    for tag, (room, counter) in enumerate([(ROOM, 2), (new, 1)]):
        producer = bytes([tag]) * 16
        submission = Submission(room, "ann", b"", producer, counter, 0, "", b"x")
        queues.by_partition[index].put([Waiting(cast(Any, asker), tag, submission)], 1)
    queues.waiting[index] = None
    ended: list[object] = []
    partitions.refuse_partition = lambda partition, _: ended.append(partition)
    home.commit()
    assert damaged.appends == 1
    assert ended == [damaged]
    codes = [(one.tag, one.code) for one in asker.queue if isinstance(one, Refused)]
    assert codes == [(0, ErrorCode.DAMAGED), (1, ErrorCode.DAMAGED)]
    assert not home.busy
    damaged.partition.close()


async def test_a_message_that_waits_alone_needs_no_group(single: Cluster) -> None:
    """Unless its sender has sent many, or other submissions wait, or none may be committed."""
    worker, index = await written(single)
    parts = worker.parts.home
    queues, home, partitions = parts.queues, parts.writer, parts.partitions
    worker.sweeps = False
    grouped = Watched(partitions.opened[index])
    partitions.opened[index] = cast(Any, grouped)
    asker = LocalPort(0, 1, Wakeup(lambda _: None))
    first = Submission(ROOM, "ann", b"", b"p" * 16, 1, 0, "", b"x")
    grouped.partition.append([first], time.time_ns() // MS)

    def commit(*counters: int, heavy: bool = False) -> None:
        for counter in counters:
            one = Waiting(cast(Any, asker), counter, first._replace(counter=counter), heavy)
            queues.by_partition[index].put([one], 1)
        queues.waiting[index] = None
        home.commit()

    try:
        commit(2)
        assert [ack[0] for one in asker.queue if isinstance(one, Acks) for ack in one.acks] == [2]
        assert (grouped.appends, home.busy) == (0, False)
        home.blocked.add(index)
        commit(3)
        assert grouped.appends == 1, "it may be a throttled one"
        commit(4, heavy=True)
        assert grouped.appends == 2
        commit(5, 6)
        assert grouped.appends == 3
        home._notes.noted.add(index)
        commit(7)
        assert grouped.appends == 4
        commit(8)
        assert grouped.appends == 4
        assert partitions.opened[index].head(ROOM).seq == 1 + 8
    finally:
        partitions.opened[index] = grouped.partition


class Damaged:
    """A partition in whose file the first commit finds damage."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.appends = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a partition has
        return getattr(self.partition, name)

    def append(self, *_: object) -> list[Outcome]:
        """Raise it."""
        self.appends += 1
        raise StoreCorrupt("the test's disk")

    begin = append


class Watched(Damaged):
    """A partition that counts its groups, and what the last one was."""

    size = 0

    def append(self, *arguments: Any) -> list[Outcome]:  # noqa: ANN401  # as a partition's
        """Store one group, or as much of it as there is time for."""
        self.appends += 1
        self.size = len(arguments[0])
        return self.partition.append(*arguments)


async def test_a_short_slice_has_small_commits(single: Cluster) -> None:
    """A commit is not interrupted, so one that is as large as ever would make the turn long."""
    worker, index = await written(single)
    writer, queues = worker.parts.home.writer, worker.parts.home.queues
    opened = worker.parts.home.partitions.opened
    watched = Watched(opened[index])
    opened[index] = cast(Any, watched)
    port = LocalPort(0, 1, Wakeup(lambda _: None))
    for producer in range(2 * SENDERS):
        for counter in range(1, GROUP_MIN // SENDERS + 1):
            submission = Submission(
                ROOM, "alice", b"", bytes([producer]) * 16, counter, Kind.MESSAGE, "", b"x"
            )
            queues.submit_own(port, 0, submission)
    try:
        writer.commit_remaining(COMMITS_S / 4)
        assert watched.size == GROUP_MIN // 4
        writer.commit_remaining(COMMITS_S)
        assert watched.size >= GROUP_MIN
    finally:
        opened[index] = watched.partition
