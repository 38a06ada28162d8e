"""``relay serve`` with planted faults: ``python -m tests.support.faulty serve ...``.

The faults are named by RELAY_TEST_FAULT (``name`` or ``name=argument``, several with commas) and
installed in each worker after the fork, from outside: the product has no code for them.
RELAY_TEST_FAULT_MARKER names a file that a fault writes when it strikes, so that it strikes once
in the life of the server, and the test can see that it did. Faults that the history checker must
catch are in ``variants``.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from relay.cli.__main__ import main as relay
from relay.server.startup import programs, recovery
from relay.server.system import boot_id
from tests.support import variants
from tests.support.taken_over import attack

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Head, Submission
    from relay.server.context import WorkerContext
    from relay.server.worker.process.parts import WorkerParts
    from relay.store.log import Outcome, Partition, Stored
    from relay.store.state import Changes
from relay.store.read_budget import ReadBudget

TRIGGER = b"fault"
"""A message whose body has this makes the fault strike."""


class Planting(NamedTuple):
    """The context of a fault when it is installed in a worker."""

    marker: Path
    argument: str
    context: WorkerContext


def _strikes(marker: Path) -> bool:
    """Claim the only strike: True for the first process that calls this."""
    try:
        fd = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    os.write(fd, str(os.getpid()).encode())
    os.close(fd)
    return True


def _with_parts(change: Callable[[WorkerParts], None]) -> None:
    """Change the parts of the worker when they are built, before it accepts connections."""
    from relay.server.worker.process.main import _Worker

    build = _Worker._build

    async def building(self: _Worker) -> bool:
        built = await build(self)
        change(self._parts)
        return built

    _Worker._build = building  # type: ignore[method-assign]


def stop_before_publish(planting: Planting) -> None:
    """The home stops after COMMIT, before anybody is notified."""
    from relay.server.worker.process.storage.stores import Stores
    from relay.store.sqlite import SqlitePartition

    open_partition = Stores.open_partition

    def strike(*stored: Submission) -> None:
        triggered = any(TRIGGER in submission.body for submission in stored)
        if triggered and _strikes(planting.marker):
            os.kill(os.getpid(), signal.SIGSTOP)

    class Stopping(Wrapped):
        def append(
            self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
        ) -> list[Outcome]:
            outcomes = self._partition.append(batch, now_ms, budget)
            strike(*batch)
            return outcomes

        def begin(
            self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
        ) -> list[Outcome]:
            return self.append(batch, now_ms, budget)

        def append_lone(self, submission: Submission, now_ms: int) -> Stored | None:
            stored = self._partition.append_lone(submission, now_ms)
            if stored is not None:
                strike(submission)
            return stored

    def opening(self: Stores, index: int) -> SqlitePartition:
        return cast("SqlitePartition", Stopping(open_partition(self, index)))

    Stores.open_partition = opening  # type: ignore[method-assign]


class Wrapped:
    """A partition, for faults that wrap one."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    @property
    def commits_blocked(self) -> bool:
        return self._partition.commits_blocked

    @property
    def checkpointing(self) -> bool:
        return self._partition.checkpointing

    def in_use(self, log: str) -> bool:
        return self._partition.in_use(log)

    def head(self, log: str) -> Head:
        return self._partition.head(log)

    def state(self, log: str) -> bytes:
        return self._partition.state(log)

    def due(self, now_ms: int) -> list[str]:
        return self._partition.due(now_ms)

    def pending(self) -> list[tuple[str, int, str]]:
        return self._partition.pending()

    def confirm(self, delivered: list[tuple[str, int]]) -> None:
        self._partition.confirm(delivered)

    def note_seen(self, seen: list[tuple[str, int]]) -> None:
        self._partition.note_seen(seen)

    def note_folds(self, folds: list[tuple[str, int, bytes]]) -> None:
        self._partition.note_folds(folds)

    def prove(self) -> None:
        self._partition.prove()

    def refuse(self, reason: str) -> None:
        self._partition.refuse(reason)

    def close(self) -> None:
        self._partition.close()


def drop_one_batch(planting: Planting) -> None:
    """One batch is lost between two workers, unnoticed."""
    from relay.bus.link import Link
    from relay.bus.messages import Batch, Event

    publish = Link.publish

    def dropping(self: Link, message: Batch | Event) -> None:
        if TRIGGER in message.content and _strikes(planting.marker):
            return
        publish(self, message)

    Link.publish = dropping  # type: ignore[method-assign]


_struck: Final = {"dropped": 0, "links_cut": 0}
"""What the faults by chance did in this worker: batches dropped, links cut."""


def drop_batches(planting: Planting) -> None:
    """Each batch between two workers is lost with the given probability."""
    from relay.bus.link import Link
    from relay.bus.messages import Batch, Event

    publish = Link.publish
    probability = float(planting.argument)

    def dropping(self: Link, message: Batch | Event) -> None:
        if isinstance(message, Batch) and random.random() < probability:
            _struck["dropped"] += 1
            return
        publish(self, message)

    Link.publish = dropping  # type: ignore[method-assign]


def cut_links(planting: Planting) -> None:
    """With each batch, its link is lost with the given probability."""
    from relay.bus.link import Link
    from relay.bus.messages import Batch, Event

    publish = Link.publish
    probability = float(planting.argument)

    def cutting(self: Link, message: Batch | Event) -> None:
        publish(self, message)
        if random.random() < probability:
            _struck["links_cut"] += 1
            self.abort()

    Link.publish = cutting  # type: ignore[method-assign]


def small_outbox(planting: Planting) -> None:
    """Not a fault: readers fall behind when this many bytes are queued for them."""

    def small(parts: WorkerParts) -> None:
        parts.member.fanout.outbox_bytes_max = int(planting.argument)

    _with_parts(small)


def quick_retention(planting: Planting) -> None:
    """Not a fault: retention removes at once, and not within a minute."""
    from relay.server.worker.home.retention import passes

    passes.PASS_S = 0.1  # type: ignore[misc]
    passes.GRACE_MS = 0  # type: ignore[misc]


OBSERVED = ("bus_repairs", "pages_read")
"""The metrics of a worker that a torture run sums up, over all workers that there were."""


def observe(planting: Planting) -> None:
    """Not a fault: each worker writes its counters to MARKER.BOOT.GENERATION.json, as it beats."""
    from relay.server.worker.process.reporting.status import WorkerStatus

    beat = WorkerStatus.beat
    path = planting.marker.with_name(
        f"{planting.marker.name}.{os.getppid()}.{planting.context.generation}.json"
    )

    def observed(self: WorkerStatus) -> None:
        beat(self)
        counted = {name: self.counters[name]() for name in OBSERVED} | _struck
        new = path.with_suffix(".new")
        new.write_text(json.dumps(counted))
        new.replace(path)  # whole, whenever this worker is killed

    WorkerStatus.beat = observed  # type: ignore[method-assign]


def note_collections(planting: Planting) -> None:
    """Not a fault: each worker appends its garbage collections to MARKER.gc.INDEX, one a line.

    A line has the end in ns of the monotonic clock, the generation, and the duration in ns.
    """
    import gc
    import time

    path = planting.marker.with_name(f"{planting.marker.name}.gc.{planting.context.index}")
    file = path.open("a", buffering=1, encoding="ascii")
    began_ns = 0

    def noting(phase: str, facts: dict[str, int]) -> None:
        nonlocal began_ns
        now_ns = time.monotonic_ns()
        if phase == "start":
            began_ns = now_ns
        else:
            file.write(f"{now_ns} {facts['generation']} {now_ns - began_ns}\n")

    gc.callbacks.append(noting)


def name_threads(_: Planting) -> None:
    """Not a fault: sets the kernel's names of each worker's threads, as Python 3.14 does."""
    import ctypes
    import threading

    libc = ctypes.CDLL(None)
    begin = threading.Thread.run

    def running(self: threading.Thread) -> None:
        libc.prctl(15, self.name.encode()[:15], 0, 0, 0)  # PR_SET_NAME
        begin(self)

    threading.Thread.run = running  # type: ignore[method-assign]


def lose_on_one_worker(planting: Planting) -> None:
    """The first worker delivers some entries to nobody, and hides the hole from its members."""
    from relay.bus.messages import Batch
    from relay.chat.entries import Head
    from relay.wire.envelopes import EntryMessage
    from relay.wire.packing import pack, unpack_server

    if planting.context.index != 0:
        return
    probability = float(planting.argument)
    shown: dict[str, int] = {}  # for logs with a hole: the last entry that members have

    def losing(parts: WorkerParts) -> None:
        handlers = parts.dispatcher.handlers
        receive = handlers[Batch]
        feeds = parts.member.feeds.by_log

        def receiving(port: Port, batch: Batch) -> None:
            feed = feeds.get(batch.log)
            if feed is None or not feed.known or feed.repair_to or batch.prev != feed.received.seq:
                receive(port, batch)
                return
            if random.random() < probability:
                shown.setdefault(feed.log, batch.prev)
                feed.received = Head(batch.epoch, batch.last)
                return
            prev = shown.pop(feed.log, None)
            if prev is not None:
                first, *others = unpack_server(batch.content)
                assert isinstance(first, EntryMessage)
                patched = [first._replace(prev=prev), *others]
                batch = batch._replace(content=b"".join(map(pack, patched)))
            receive(port, batch)

        handlers[Batch] = receiving

    _with_parts(losing)


def taken_over(planting: Planting) -> None:
    """An attacker controls this worker, tries what can be reached, and lets it continue."""
    attack(planting.context, planting.argument)


def failing_disk(planting: Planting) -> None:
    """Messages are written to a disk that is full, or broken, at a share of all writes:
    ``full:0.01`` or ``broken:0.01``. Only messages: who registers just then is refused, which is
    right, and no client of a test would try again.
    """
    import apsw

    from relay.store.opened import Opened
    from tests.support import disks

    kind, _, share = planting.argument.partition(":")
    errors: dict[str, disks.Fails] = {"full": disks.full, "broken": disks.broken}
    error = errors[kind]
    chance = random.Random(os.getpid())
    disk = disks.Disk(powered=True)
    write, end, append_lone = Opened.write, Opened.end, Opened.append_lone
    messages = [False]

    def writing(self: Opened, changes: Changes, *, forced: bool, apart: bool) -> None:
        messages[0] = not forced
        try:
            write(self, changes, forced=forced, apart=apart)
        finally:
            messages[0] = False

    def ending(self: Opened, changes: Changes, *, forced: bool, now_ms: int) -> None:
        messages[0] = not forced
        try:
            end(self, changes, forced=forced, now_ms=now_ms)
        finally:
            messages[0] = False

    def appending(self: Opened, *args: Any, ruled: bool) -> Stored | None:  # noqa: ANN401
        messages[0] = True
        try:
            return append_lone(self, *args, ruled=ruled)
        finally:
            messages[0] = False

    Opened.write = writing  # type: ignore[method-assign]
    Opened.end = ending  # type: ignore[method-assign]
    Opened.append_lone = appending  # type: ignore[method-assign, assignment]

    def fails(operation: disks.Operation, name: str) -> apsw.Error | None:
        written = messages[0] and operation == "write" and name.endswith(".sqlite-wal")
        if not written or chance.random() >= float(share):
            return None
        planting.marker.touch()
        return error(operation, name)

    using = disk.in_use()
    using.__enter__()  # until the process ends

    def begin(parts: WorkerParts) -> None:
        _HELD.append(using)
        disk.fails = fails

    _with_parts(begin)


def disk_for_a_while(planting: Planting) -> None:
    """While the file ``bad_while(MARKER)`` exists, the disk fails (EIO): writes and syncs, or
    (``=all``) reads as well.
    """
    import apsw

    from tests.support import disks

    flag, everything = bad_while(planting.marker), planting.argument == "all"
    disk = disks.Disk(powered=True)

    def fails(operation: disks.Operation, name: str) -> apsw.Error | None:
        if (operation == "read" and not everything) or not flag.exists():
            return None
        return disks.broken(operation, name)

    disk.fails = fails
    using = disk.in_use()
    using.__enter__()  # until the process ends
    _HELD.append(using)


def bad_while(marker: Path) -> Path:
    """Return what exists while the disk of ``disk-for-a-while`` fails."""
    return marker.with_suffix(".bad-disk")


_HELD: list[object] = []


def unsynced(marker: Path) -> None:
    """Not a fault: records what is written and not synced, for a power cut (``power``)."""
    from tests.support import power

    power.record(power_notes(marker))


def power_notes(marker: Path) -> Path:
    """Where ``unsynced`` notes it."""
    return marker.with_suffix(".power")


def _in_recovery(plants: list[Callable[[], None]]) -> None:
    """Plant in the process that checks partitions before the start, too."""
    check = recovery._main

    def checking(*args: Any) -> int:  # noqa: ANN401
        for plant in plants:
            plant()
        return check(*args)

    recovery._main = checking  # type: ignore[assignment]


FAULTS: dict[str, Callable[[Planting], None]] = {
    "stop-before-publish": stop_before_publish,
    "drop-one-batch": drop_one_batch,
    "drop-batches": drop_batches,
    "cut-links": cut_links,
    "lose-on-one-worker": lose_on_one_worker,
    "small-outbox": small_outbox,
    "observe": observe,
    "quick-retention": quick_retention,
    "taken-over": taken_over,
    "name-threads": name_threads,
    "note-collections": note_collections,
    "failing-disk": failing_disk,
    "disk-for-a-while": disk_for_a_while,
}


def _boot_id(marker: Path, argument: str) -> None:
    """Another boot id: the server believes that the machine was restarted.

    Invariant "Epochs are segments".
    """
    path = marker.with_suffix(".boot")
    path.write_text(f"test boot {argument}\n", encoding="ascii")
    boot_id._BOOT_ID = path  # type: ignore[misc]


def _install() -> None:
    marker = Path(os.environ["RELAY_TEST_FAULT_MARKER"])
    named: list[tuple[Callable[[Planting], None], str]] = []
    everywhere: list[Callable[[], None]] = []
    for fault in os.environ["RELAY_TEST_FAULT"].split(","):
        name, _, argument = fault.partition("=")
        if name == "boot-id":
            _boot_id(marker, argument)  # the supervisor reads it, before any worker is there
        elif name in variants.OF_STORES:
            everywhere.append(variants.OF_STORES[name])
        elif name == "unsynced":
            everywhere.append(lambda: unsynced(marker))
        elif name in FAULTS:
            named.append((FAULTS[name], argument))
        else:
            named.append((_variant(name), argument))
    run = programs._worker_main

    _in_recovery(everywhere)

    def worker_main(context: WorkerContext) -> int:
        for plant_in_store in everywhere:
            plant_in_store()
        for plant, argument in named:
            plant(Planting(marker, argument, context))
        return run(context)

    programs._worker_main = worker_main


def _variant(name: str) -> Callable[[Planting], None]:
    plant = variants.VARIANTS[name]
    return lambda planting: plant(planting.context)


def main() -> int:
    """Run ``relay`` with them."""
    _install()
    return relay()


if __name__ == "__main__":
    main()
