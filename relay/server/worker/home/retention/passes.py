"""Removes, in the background, what the logs of this worker's partitions must not keep.

A thread determines what to remove, some logs at a time. A thread also removes it, in short commits
between which other commits run, so the loop never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import state as rooms
from relay.chat.rooms.state import Room
from relay.errors import EnvelopeError
from relay.server.worker.home.retention.inboxes import Inbox, Inboxes
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.store.errors import StoreCorrupt, StoreError
from relay.store.retention.limits import FOREVER, Excess, RetentionLimits, stricter

if TYPE_CHECKING:
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.home.retention.departures import Departures
    from relay.settings import Retention as Settings
    from relay.store.log import Removed
    from relay.store.retention.removal_reader import RemovalReader

PASS_S: Final = 60.0
"""From the end of one pass over all logs to the beginning of the next."""
LOGS_PER_SCAN: Final = 64
STATES_BYTES_MAX: Final = 256 * 1024
SLOWED_NS: Final = 3600 * 1_000_000_000
"""How long a log with many expired entries waits until more of it is removed (``Excess.more``)."""
SLOWED_MAX: Final = 65_536
DEFERRED_MAX: Final = 65_536
"""Removals of one pass that wait for the grace period; others wait for the next pass."""
STEP_S: Final = 0.005
"""Pause between two steps: commits run and clients are served meanwhile."""
BUSY_S: Final = 0.01
GRACE_MS: Final = 5000
"""Younger entries stay whatever the limits: they are on their way to readers."""
T = TypeVar("T")


class RunInThread(Protocol):
    """Runs a function in a thread."""

    def __call__(self, work: Callable[[], T], /) -> asyncio.Future[T]:
        """Return what the function returns, or raise what it raises."""


log = logging.getLogger("relay.worker")


class Removal(NamedTuple):
    """What is to be removed from one log."""

    log: str
    upto: int
    controls_upto: int
    undated: bool = False
    """See ``Excess``."""


class Scan(NamedTuple):
    """The result for some logs."""

    wanted: list[Removal]
    removed: list[str]
    """Handles of removed accounts among them."""
    after: str | None
    """The last of them; None: there are no more."""
    counting: bool = False
    """True if the messages of the next log are only partly counted."""


class Retention:
    """The retention of this worker's partitions."""

    def __init__(
        self,
        partitions: OwnPartitions,
        on_erased: Callable[[int], None],
        *,
        run_in_thread: RunInThread,
        new_reader: Callable[[int], RemovalReader],
        settings: Callable[[], Settings],
        wall_clock_ns: Callable[[], int],
        departures: Departures,
    ) -> None:
        """Create with nothing removed.

        Args:
            partitions: of the worker.
            on_erased: called with the partition after entries were removed.
            run_in_thread: runs a function in a thread.
            new_reader: creates a reader of a partition, in the thread.
            settings: returns the current settings.
            wall_clock_ns: nanoseconds since 1970.
            departures: ends the roles of removed accounts.
        """
        self._partitions = partitions
        self._departures = departures
        self._inboxes = Inboxes()
        self._on_erased = on_erased
        self._run_in_thread = run_in_thread
        self._new_reader = new_reader
        self._settings = settings
        self._wall_clock_ns = wall_clock_ns
        self._asked = asyncio.Event()
        self._slowed: dict[str, int] = {}
        """By log: until when (monotonic ns) nothing is removed from it because of age."""
        self._failing: set[str] = set()
        """Logs for which a failure has been logged."""
        self.grace_ms = GRACE_MS
        self.entries = 0
        self.bytes = 0
        """Bytes removed."""

    @property
    def counters(self) -> dict[str, Callable[[], int]]:
        """Counters for ``server.metrics``."""
        return {
            "retention_removed": lambda: self.entries,
            "retention_removed_bytes": lambda: self.bytes,
        }

    async def run(self) -> None:
        """Process all logs, repeatedly."""
        while True:
            self._asked.clear()
            await self.once()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), PASS_S)

    def ask(self) -> None:
        """Start the next pass soon: settings have changed, or an account was removed."""
        self._asked.set()

    async def once(self) -> None:
        """Process all logs once and remove what must be removed."""
        deferred: list[tuple[int, Removal]] = []
        for index in range(PARTITIONS):
            if self._partitions.owned(index):
                await self._attempt(index, self._scan_partition(index, deferred))
        if deferred:
            await asyncio.sleep(self.grace_ms / 1000)
        for index, one in deferred:
            await self._attempt(index, self._remove_from_log(index, one))

    async def _attempt(self, index: int, work: Coroutine[object, object, object]) -> None:
        """Run a part of a pass; log its failure."""
        try:
            await work
        except StoreError as error:
            log.warning("retention_failed", extra={"partition": index, "reason": str(error)})
        except Exception as bug:
            exit_if_out_of_memory(bug)
            log.exception("retention_failed")

    async def _scan_partition(self, index: int, deferred: list[tuple[int, Removal]]) -> None:
        for prefix in ("", INBOX_PREFIX):
            after: str | None = ""
            while after is not None:
                scanned = await self._in_thread(self._scanner(index, prefix, after))
                after = scanned.after
                for one in scanned.wanted:
                    if one.undated:
                        if len(deferred) < DEFERRED_MAX:
                            deferred.append((index, one))
                    elif not await self._remove_from_log(index, one):
                        return
                for handle in scanned.removed:
                    await self._departures.end(handle)
                if scanned.counting:
                    await asyncio.sleep(STEP_S)

    def _scanner(self, index: int, prefix: str, after: str) -> Callable[[], Scan]:
        settings, now_ms = self._settings(), self._wall_clock_ns() // 1_000_000
        slowed, now_ns = self._slowed, time.monotonic_ns()
        if len(slowed) > SLOWED_MAX:
            slowed.clear()
        default = RetentionLimits(settings.age_days * 86_400, settings.messages, settings.mib << 20)

        def scan() -> Scan:
            # This reader belongs to the thread: a cancelled caller must not close it.
            with contextlib.closing(self._new_reader(index)) as reader:
                return scan_with(reader)

        def scan_with(reader: RemovalReader) -> Scan:
            logs: list[tuple[str, bytes]]
            if prefix:
                logs = [(name, b"") for name in reader.names(prefix, after, LOGS_PER_SCAN)]
            else:
                states = reader.states(after, LOGS_PER_SCAN, STATES_BYTES_MAX)
                logs = [(name, state) for name, state, _ in states]
            found: list[Removal] = []
            removed: list[str] = []
            before = after
            for name, state in logs:
                try:
                    counted = scan_log(reader, name, state, found, removed)
                except Exception as error:
                    exit_if_out_of_memory(error)
                    if isinstance(error, StoreError) and not isinstance(error, StoreCorrupt):
                        raise  # an error of the partition
                    self._report_failure(name, error)
                    counted = True
                if not counted:
                    return Scan(found, removed, before, counting=True)
                before = name
            return Scan(found, removed, logs[-1][0] if logs else None)

        def scan_log(
            reader: RemovalReader, name: str, state: bytes, found: list[Removal], removed: list[str]
        ) -> bool:
            room = _room(name, state)
            if room is None:
                return True
            keep = default
            chosen = RetentionLimits(*room.keep)
            if prefix:
                inbox = self._inboxes.of(reader, name)
                if inbox.removed:
                    removed.append(name.removeprefix(prefix))
                    found += _all_of(reader, name, inbox)
                    return True
                chosen = RetentionLimits(*inbox.keep)
            if chosen != FOREVER:
                less = bool(prefix) or settings.rooms_choose == "less"
                keep = stricter(default, chosen) if less else chosen
            if slowed.get(name, 0) > now_ns:
                keep = keep._replace(age_s=0)
            one, excess = _wanted(reader, name, room, keep, now_ms, self.grace_ms)
            if excess.counted:
                if excess.more:
                    slowed[name] = now_ns + SLOWED_NS
                if one is not None:
                    found.append(one)
            return excess.counted

        return scan

    def _report_failure(self, name: str, error: Exception) -> None:
        """Log once why a log cannot be processed. The others continue."""
        if name not in self._failing:
            if len(self._failing) >= SLOWED_MAX:
                self._failing.clear()
            self._failing.add(name)
            log.error("retention_failed", extra={"log": name}, exc_info=error)

    async def _remove_from_log(self, index: int, wanted: Removal) -> bool:
        """Do it as ``_remove``; a failure that concerns only this log is logged.

        Raises:
            StoreError: of the partition.
        """
        try:
            return await self._remove(index, wanted)
        except Exception as error:
            exit_if_out_of_memory(error)
            if isinstance(error, StoreError) and not isinstance(error, StoreCorrupt):
                raise  # an error of the partition
            self._report_failure(wanted.log, error)
            return True

    async def _remove(self, index: int, wanted: Removal) -> bool:
        """Remove it step by step. Return False if the partition belongs to another worker now."""
        while self._partitions.owned(index):
            partition = self._partitions.begin_removal(index)
            if partition is None:
                # a commit or a checkpoint, or the snapshots of a backup
                await asyncio.sleep(BUSY_S)
                continue
            step: Callable[[], Removed] = partial(
                partition.remove, wanted.log, wanted.upto, wanted.controls_upto
            )
            try:
                removed = await self._in_thread(step, lambda: self._partitions.end_removal(index))
            except StoreError:
                self._on_erased(index)  # it may have been stored although the disk failed
                raise
            if not removed.entries:
                return True
            self.entries += removed.entries
            self.bytes += removed.bytes
            self._on_erased(index)
            await asyncio.sleep(STEP_S)
        return False

    async def _in_thread(self, work: Callable[[], T], ended: Callable[[], None] | None = None) -> T:
        """Run a function in a thread.

        If this task is cancelled, the function continues; ``ended`` waits for it.
        """
        future = self._run_in_thread(work)
        if ended is not None:
            future.add_done_callback(lambda _: ended())
        return await asyncio.shield(future)


def _room(name: str, state: bytes) -> Room | None:
    """Return the state of a room, an empty one for an inbox; None: damaged, remove nothing."""
    try:
        return rooms.unpack(state)
    except EnvelopeError:
        log.warning("retention_failed", extra={"log": name, "reason": "its state is damaged"})
        return None


def _wanted(
    reader: RemovalReader, name: str, room: Room, keep: RetentionLimits, now_ms: int, grace_ms: int
) -> tuple[Removal | None, Excess]:
    """Return what is to be removed (None: nothing), and what exceeds the limits.

    Entries from before a room has ended are removed completely.
    """
    if keep == FOREVER and not room.floor:
        return None, Excess(0)
    floor, controls_upto = reader.floor(name), 0
    excess = reader.removable(name, keep, now_ms, grace_ms)
    upto = excess.upto
    if room.floor:
        upto, controls_upto = max(upto, room.floor - room.deleted), room.floor - room.deleted
    has_controls = controls_upto and reader.first_control(name) <= controls_upto
    if upto <= floor and not has_controls:
        return None, excess
    return Removal(name, upto, controls_upto, excess.undated and excess.upto > floor), excess


def _all_of(reader: RemovalReader, name: str, inbox: Inbox) -> list[Removal]:
    """Return what to remove from a removed account's inbox: all but the entry of its removal."""
    head, before = reader.head(name).seq, inbox.removed - 1
    upto = head if head > inbox.removed else before
    held = (
        reader.floor(name) < upto
        or reader.first_control(name) <= before
        or reader.fold(name)[0]
        or reader.seen(name)
        or reader.marks(name, "", 1)
    )
    return [Removal(name, upto, before)] if held else []
