"""The reading side of a simulated user: its own greenlet, which checks and times what comes."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

import gevent

from loadtest.bodies import this_clock
from loadtest.checks import Doubled, LogCheck, Lost, Missing, SendCheck, Violation
from loadtest.swarm import SWARM
from relay.chat.entries import Cursor
from relay.client.closes import ClosedByServer
from relay.client.errors import ClientError
from relay.client.events import (
    Behind,
    Event,
    Gap,
    HistoryPage,
    Live,
    LogEntry,
    Message,
    RoomChanged,
    State,
    StateChanged,
    Unfollowed,
)
from relay.client.refusals import Refused
from relay.errors import RelayError

if TYPE_CHECKING:
    from loadtest.socket_watch import WatchedSocket
    from relay.client.blocking import BlockingClient
    from relay.client.identity import Identity

SETTLE_S: Final = 30.0
"""At the end of a test: for what was acknowledged to arrive everywhere. More than the longest pause
of a client before it connects again."""
SILENT_S: Final = 5.0
"""A live reader that hears nothing for so long will not hear what it misses."""
REASON_CHARS: Final = 90
"""Of a reason that is counted: there are few different ones."""
CLOCK: Final = this_clock()


class RequestFailed(Exception):
    """A request that ended with an error of the server's, or without an answer."""

    def __init__(self, error: RelayError) -> None:
        code = f" {error.code}" if isinstance(error, ClosedByServer | Refused) else ""
        super().__init__(f"{type(error).__name__}{code}: {error}")


class Reader(Protocol):
    """The user that a Reading reads for."""

    handle: str
    identity: Identity
    instance: bytes
    timed: bool
    """False: what it receives says nothing about the server's speed."""
    socket: WatchedSocket | None
    """Of the running connection, or of the last one."""
    heard: deque[str]
    """Who wrote lately."""
    latest: Message | None
    own: Message | None
    """What came last of others, and of the user."""

    def received(self, message: Message) -> None:
        """Take an entry, after the checks."""


class Reading:
    """What one user has read and sent, through all its connections."""

    def __init__(self, user: Reader) -> None:
        self._user = user
        self._checks: dict[str, LogCheck] = {}
        """Of the logs that are followed."""
        self._sends = SendCheck()
        self._live: set[str] = set()
        """Logs whose entries come as they are committed."""
        self._behind: set[str] = set()
        """Logs that were told to be behind and are not live again: entries may come again."""
        self._online = False
        self._told = False
        """True until a client's first login is heard of by its events: the user knows it sooner."""
        self._resuming: set[str] = set()
        """After a reconnect: followed logs that are not live again."""
        self._seen: Counter[str] = Counter()
        """The client's own counts of repeats and rejoins, as last looked at."""

    # --- what the user does -----------------------------------------------------------------------
    def joined(self, log: str, start: Cursor) -> None:
        """A log is followed from ``start`` on; entries may have come before this is called."""
        check = self._checks.setdefault(log, LogCheck(log, start))
        if check.start != start.seq:
            self._violated(Missing(f"{log}: joined at {start.seq}, heard from {check.start} on"))

    def left(self, log: str) -> None:
        """A log is no longer followed."""
        self._checks.pop(log, None)
        self._sends.left(log)
        for logs in (self._live, self._behind, self._resuming):
            logs.discard(log)

    def acknowledged(self, log: str, number: int, seq: int) -> None:
        """The user's message is stored."""
        SWARM.acknowledged(log, seq)
        with self._checking():
            self._sends.acked(log, number, seq, following=log in self._checks)

    def amended(self, log: str, seq: int) -> None:
        """What the user has stored besides messages: readers must receive it, too."""
        SWARM.acknowledged(log, seq)

    def page(self, log: str, page: HistoryPage) -> None:
        """Check a page of history."""
        if not page.entries:
            return
        first = page.entries[0]
        check = LogCheck(log, Cursor(first.epoch, first.prev))
        with self._checking():
            for entry in page.entries:
                check.entry(entry)
        SWARM.here.counts["history entries checked"] += len(page.entries)

    def logged_in(self) -> None:
        """A connection is ready: time what led there, and wait for what is followed."""
        watched = self._user.socket
        if watched is None or len(watched.writes_ns) < 2:
            return
        _, log_in = watched.writes_ns
        SWARM.request("handshake", (log_in - watched.dialled_ns) / 1e6, watched.bytes_in)
        SWARM.request("login", (watched.received_ns - log_in) / 1e6)
        self._resuming = set(self._checks)

    # --- what comes -------------------------------------------------------------------------------
    def read(self, client: BlockingClient) -> None:
        """Read until the client is closed: what the reader's greenlet runs."""
        self._seen.clear()
        self._live.clear()
        self._told = True
        try:
            for event in client.events():
                self._take(client, event)
        except ClientError as error:
            SWARM.request("connection", None, 0, RequestFailed(error))

    def _take(self, client: BlockingClient, event: Event) -> None:
        if isinstance(event, LogEntry | RoomChanged):
            with self._checking():
                self._delivered(event)
        elif isinstance(event, Live):
            self.audit(client)
            self._behind.discard(event.room)
            self._live.add(event.room)
            self._resumed(event.room)
        elif isinstance(event, Behind):
            self._live.discard(event.room)
            self._behind.add(event.room)
            SWARM.here.counts["fell behind"] += 1
        elif isinstance(event, StateChanged):
            self._changed(event)
        elif isinstance(event, Gap):
            check = self._checks.setdefault(event.room, LogCheck(event.room, event.start))
            with self._checking():
                check.gap(event)
        elif isinstance(event, Unfollowed):
            self._violated(Lost(f"{event.room} can no longer be followed: {event.detail}"))

    def _delivered(self, message: LogEntry | RoomChanged) -> None:
        log, user = message.room, self._user
        check = self._checks.get(log)
        if check is None:  # before the greenlet that joined has its answer: see ``joined``
            check = self._checks[log] = LogCheck(log, Cursor(message.epoch, message.prev))
        counts = SWARM.here.counts
        counts["deliveries checked"] += 1
        body = check.entry(message)
        if body is not None:
            if body.instance == user.instance:
                self._sends.echoed(log, body.number, message.seq)
            live = log in self._live
            if not live:
                counts["deliveries caught up"] += 1
            if live and body.clock == CLOCK and user.timed and user.socket is not None:
                late_us = (user.socket.received_ns - body.intended_ns) / 1000.0
                SWARM.delivered_us.append(late_us)
            else:
                SWARM.delivered_untimed += 1
        if isinstance(message, Message):
            if message.sender != user.handle:
                user.heard.append(message.sender)
                user.latest = message
            else:
                user.own = message
            user.received(message)

    def _changed(self, event: StateChanged) -> None:
        was_online, self._online = self._online, event.state is State.ONLINE
        if event.state is State.WAITING:
            name = "connections lost" if was_online else "connects failed"
            SWARM.here.counts[name] += 1
            SWARM.here.counts[f"{name}: {event.detail}"[:REASON_CHARS]] += 1
            self._live.clear()
        elif event.state is State.ONLINE:
            if self._told:
                self._told = False
            else:
                self.logged_in()

    def _resumed(self, log: str) -> None:
        watched = self._user.socket
        if log not in self._resuming or watched is None:
            return
        self._resuming.discard(log)
        if not self._resuming:
            SWARM.request("resume", (watched.received_ns - watched.dialled_ns) / 1e6)

    # --- judging ----------------------------------------------------------------------------------
    def audit(self, client: BlockingClient) -> None:
        """Check that the client had no repeats to hide and no holes to repair."""
        for name, kind in (("repeats", Doubled), ("rejoins", Missing)):
            count = client.statistics[name]
            new = count - self._seen[name]
            self._seen[name] = count
            if new and not (name == "repeats" and self._behind):
                self._violated(kind(f"{new} {name}, mended by the client"))

    def settle(self, timeout_s: float = SETTLE_S) -> None:
        """Wait until everything acknowledged before now has arrived here, or report it lost."""
        wanted = {log: SWARM.heads.get(log, 0) for log in self._checks}
        began = time.monotonic()
        while (owed := self._owed(wanted)) and time.monotonic() - began < timeout_s:
            heard = self._user.socket.received_ns / 1e9 if self._user.socket is not None else 0.0
            silent_s = time.monotonic() - max(began, heard)
            if silent_s > SILENT_S and self._live.issuperset(owed):
                break  # nothing is under way to a reader that is live
            gevent.sleep(0.05)
        for log, (have, want) in self._owed(wanted).items():
            self._violated(Lost(f"{log}: {want} is stored, {have} was the last here"))
        for (log, number), seq in self._sends.awaited.items():
            if log in self._checks and self._checks[log].seq >= seq:
                self._violated(Lost(f"{log}: own message {number}, stored as {seq}, never came"))

    def _owed(self, wanted: dict[str, int]) -> dict[str, tuple[int, int]]:
        return {
            log: (self._checks[log].seq, seq)
            for log, seq in wanted.items()
            if log in self._checks and self._checks[log].seq < seq
        }

    @contextlib.contextmanager
    def _checking(self) -> Iterator[None]:
        try:
            yield
        except Violation as violation:
            self._violated(violation)

    def _violated(self, violation: Violation) -> None:
        SWARM.violated(type(violation)(f"{self._user.handle}: {violation}"))
