"""``RelayUser``: a simulated person on a real connection. Derive your own users from it::

    from locust import task
    from loadtest.user import RelayUser

    class Lurker(RelayUser):
        def on_start(self) -> None:
            super().on_start()
            self.join("lobby")

        @task
        def speak(self) -> None:
            self.pace(10.0)  # about every 10 s
            self.say("lobby", size=80)

Start Locust with ``--host relay://FINGERPRINT@HOST:PORT``. Receiving runs in a greenlet of its own;
everything received and sent is checked, and a broken promise is a failure of the run.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import gevent
from locust import User
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from loadtest import summary  # noqa: F401  # it prints the end of the run, and decides the exit code
from loadtest.bodies import CONTENT_TYPE, Body, pack_body, this_clock
from loadtest.checks import Doubled, LogCheck, Lost, Missing, SendCheck, Violation
from loadtest.socket_watch import GOOD, WatchedSocket, dial_watched
from loadtest.swarm import SWARM
from relay.chat.entries import Cursor
from relay.client.address import Address, parse_address
from relay.client.blocking import BlockingClient
from relay.client.errors import ClientError, ClosedByServer, Refused
from relay.client.events import (
    Behind,
    Event,
    Gap,
    HistoryPage,
    Live,
    Message,
    State,
    StateChanged,
    Unfollowed,
)
from relay.client.identity import new_identity

if TYPE_CHECKING:
    from locust.env import Environment

RETRY_S: Final = 0.5
PATIENCE_S: Final = 60.0
"""Without a connection for so long, a first connect is a failure (and goes on trying)."""
SETTLE_S: Final = 20.0
"""At the end of a test: for what was acknowledged to arrive everywhere."""
CLOSE_S: Final = 2.0
"""At the very end: for the last acknowledgements."""
REASON_CHARS: Final = 90
"""Of a reason that is counted: there are few different ones."""
_CLOCK: Final = this_clock()


class RequestFailed(Exception):
    """A request that ended with an error of the server's, or without an answer."""

    def __init__(self, error: ClientError) -> None:
        code = f" {error.code}" if isinstance(error, ClosedByServer | Refused) else ""
        super().__init__(f"{type(error).__name__}{code}: {error}")


class RelayUser(User):
    """A user with one client, which lives through lost connections and restarts."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.random = random.Random(secrets.randbits(64))
        """Seeded anew by scenarios that are to be repeatable."""
        self.handle = f"lt-{secrets.token_hex(5)}"
        self.identity = new_identity(secrets.token_bytes)
        self.client: BlockingClient | None = None
        """None before ``connect``."""
        self.socket: WatchedSocket | None = None
        """Of the running connection, or of the last one."""
        self.network = GOOD
        """Of the next connection."""
        self.timed = True
        """False: what this user receives says nothing about the server's speed."""
        self.due = time.monotonic()
        """When the next turn is meant to be: see ``pace``."""
        self.checks: dict[str, LogCheck] = {}
        self.sends = SendCheck()
        self.live: set[str] = set()
        """Logs whose entries come as they are committed."""
        self._numbers: Counter[str] = Counter()
        self._reader: gevent.Greenlet | None = None
        self._resuming: set[str] | None = None
        """After a reconnect: followed logs that are not live again. None: no resume is measured."""
        self._online = False
        self._behind: set[str] = set()
        self._seen: Counter[str] = Counter()
        """The client's own counts of repeats and rejoins, as last looked at."""

    # --- life -------------------------------------------------------------------------------------
    def on_start(self) -> None:
        """Connect; Locust calls it."""
        self.connect()

    def on_stop(self) -> None:
        """Wait for what must still arrive, judge, and leave; Locust calls it."""
        if self.client is None:
            return
        if self.client.state is State.CLOSED:  # for good, and reported: it waits for nothing
            self._end_client(self.client, 0.0)
            return
        self.network = GOOD
        if self.socket is not None:
            self.socket.cut_after = self.socket.cut_answer_after = self.socket.bytes_per_s = None
        self.settle()
        self._end_client(self.client, CLOSE_S)

    @property
    def address(self) -> Address:
        """Where the relay is: Locust's host."""
        host = self.environment.host or self.host
        return parse_address(host or "127.0.0.1")

    def dial(self, address: Address, timeout_s: float) -> WatchedSocket:
        """Open a connection over this user's network."""
        self.socket = dial_watched(address, timeout_s, self.network)
        self.dialled(self.socket)
        return self.socket

    def dialled(self, watched: WatchedSocket) -> None:
        """Take each new connection before anything is sent on it. For users of your own."""

    def connect(self) -> None:
        """Connect and log in, and keep trying: users do not give up while the server restarts."""
        self.client = None
        failing_since = time.monotonic()
        while self._state != LOCUST_STATE_STOPPING:
            client = BlockingClient(
                self.address,
                name=self.handle,
                identity=self.identity,
                dial=self.dial,
                agent="relay-loadtest",
            )
            try:
                client.connect()
            except ClientError as error:
                SWARM.here.counts["connects failed"] += 1
                if time.monotonic() - failing_since > PATIENCE_S:
                    failing_since = time.monotonic()
                    SWARM.request("handshake", None, 0, RequestFailed(error))
                gevent.sleep(RETRY_S * (1.0 + self.random.random()))
                continue
            self.client = client
            self._seen.clear()
            self._reader = gevent.spawn(self._read, client)
            self._reader.link_exception(_reader_died)
            return
        raise StopUser

    def reconnect(self) -> None:
        """As a program that is stopped and started: a new client goes on from the saved cursors."""
        client = self.client
        assert client is not None, "the user is not connected"
        if self._reader is not None:
            self._reader.kill()
        cursors = client.cursors
        self._end_client(client, 0.0)
        self.identity = client.identity
        self.live.clear()
        self._resuming = set(cursors)
        self.connect()
        for log, cursor in cursors.items():
            self.join(log, cursor=cursor)

    def cut(self) -> None:
        """Lose the connection, as by a bad network; the client comes back by itself."""
        if self.socket is not None:
            SWARM.here.counts["connections cut by users"] += 1
            self.socket.reset()

    def _end_client(self, client: BlockingClient, timeout_s: float) -> None:
        with contextlib.suppress(ClientError):
            client.close(timeout_s)
        if self._reader is not None:
            self._reader.kill()
        self._audit(client)

    @property
    def _client(self) -> BlockingClient:
        assert self.client is not None, "the user is not connected"
        if self.client.state is State.CLOSED:
            self.reconnect()  # the relay ended it for good, which was reported; a person comes back
        return self.client

    # --- pace -------------------------------------------------------------------------------------
    def pace(self, mean_s: float) -> None:
        """Mean the next turn to come after a random pause, exponentially distributed.

        From the time that was *meant* for this one: a slow server does not slow the swarm, and the
        wait that it causes is measured. Equal pauses would make all users speak at once.
        """
        self.due += self.random.expovariate(1.0 / mean_s)

    def wait_time(self) -> float:
        """Return the pause before the next turn; Locust calls it."""
        return max(0.0, self.due - time.monotonic())

    # --- requests ---------------------------------------------------------------------------------
    @contextlib.contextmanager
    def request(self, name: str, since: float | None = None) -> Iterator[dict[str, Any]]:
        """Time a request until its answer came in; errors of the server are failures, swallowed.

        Yields:
            A dict to put the ``size`` of the answer and a ``done`` flag into.
        """
        began = time.monotonic() if since is None else since
        answer: dict[str, Any] = {"size": 0}
        try:
            yield answer
        except ClientError as error:
            SWARM.request(name, None, 0, RequestFailed(error))
        else:
            SWARM.request(name, (self._answered_at(began) - began) * 1000.0, answer["size"])

    def _answered_at(self, began: float) -> float:
        """When the bytes of the answer came: our own queue does not count as the server's time."""
        received = self.socket.received_ns / 1e9 if self.socket is not None else 0.0
        return received if received > began else time.monotonic()

    def join(self, log: str, *, last: int = 0, cursor: Cursor | None = None) -> None:
        """Follow a log."""
        with self.request("join"):
            joined = self._client.join(log, last, cursor=cursor)
            # The reader may have had entries before this greenlet had the answer.
            check = self.checks.setdefault(log, LogCheck(log, joined.start))
            if check.start != joined.start.seq and cursor is None:
                self._violated(
                    Missing(f"{log}: joined at {joined.start.seq}, heard from {check.start} on")
                )

    def leave(self, log: str) -> None:
        """Stop following a log."""
        with self.request("leave"):
            self._client.leave(log)
        self.checks.pop(log, None)
        self.live.discard(log)
        self._behind.discard(log)
        self.sends.left(log)
        if self._resuming is not None:
            self._resuming.discard(log)

    def say(self, log: str, size: int) -> None:
        """Send a message of ``size`` bytes and wait until it is stored.

        Its time counts from when this turn was meant to be.
        """
        now = time.monotonic()
        meant = min(self.due, now) if now - self.due < PATIENCE_S else now
        number = self._numbers[log] = self._numbers[log] + 1
        body = pack_body(Body(self.identity.producer, number, int(meant * 1e9), _CLOCK), size)
        with self.request("publish→stored", since=meant):
            stored = self._client.send(log, body, content_type=CONTENT_TYPE)
            SWARM.here.counts["messages stored"] += 1
            if stored.seq:
                SWARM.acknowledged(log, stored.seq)
                with self._checking():
                    self.sends.acked(log, number, stored.seq, following=log in self.checks)

    def page(self, log: str, before: int | None = None, count: int = 100) -> HistoryPage | None:
        """Read a page of history and check it; None when it failed."""
        page: HistoryPage | None = None
        with self.request("history page") as answer:
            page = self._client.history(log, before=before, count=count)
            answer["size"] = sum(len(entry.body) for entry in page.entries)
        if page is not None and page.entries:
            check = LogCheck(log, Cursor(page.entries[0].epoch, page.entries[0].prev))
            with self._checking():
                for entry in page.entries:
                    check.entry(entry)
            SWARM.here.counts["history entries checked"] += len(page.entries)
        return page

    # --- reading ----------------------------------------------------------------------------------
    def received(self, message: Message) -> None:
        """Take a message, after the checks. For users of your own; it must be quick."""

    def _read(self, client: BlockingClient) -> None:
        try:
            for event in client.events():
                self._take(client, event)
        except ClientError as error:
            SWARM.request("connection", None, 0, RequestFailed(error))

    def _take(self, client: BlockingClient, event: Event) -> None:
        if type(event) is Message:
            with self._checking():
                self._delivered(event)
        elif isinstance(event, Live):
            self._audit(client)
            self._behind.discard(event.log)
            self.live.add(event.log)
            self._resumed(event.log)
        elif isinstance(event, Behind):
            self.live.discard(event.log)
            self._behind.add(event.log)
            SWARM.here.counts["fell behind"] += 1
        elif isinstance(event, StateChanged):
            self._changed(event)
        elif isinstance(event, Gap):
            check = self.checks.setdefault(event.log, LogCheck(event.log, event.start))
            with self._checking():
                check.gap(event)
        elif isinstance(event, Unfollowed):
            self._violated(Lost(f"{event.log} can no longer be followed: {event.detail}"))

    def _delivered(self, message: Message) -> None:
        log = message.log
        check = self.checks.get(log)
        if check is None:
            check = self.checks[log] = LogCheck(log, Cursor(message.epoch, message.prev))
        counts = SWARM.here.counts
        counts["deliveries checked"] += 1
        body = check.entry(message)
        if body is None:
            return
        if body.instance == self.identity.producer:
            self.sends.echoed(log, body.number, message.seq)
        if body.clock == _CLOCK and self.socket is not None:
            late_us = (self.socket.received_ns - body.intended_ns) / 1000.0
            if log in self.live and self.timed:
                SWARM.delivered_us.append(late_us)
            else:
                counts["deliveries caught up"] += 1
        self.received(message)

    def _changed(self, event: StateChanged) -> None:
        was_online, self._online = self._online, event.state is State.ONLINE
        if event.state is State.WAITING:
            name = "connections lost" if was_online else "connects failed"
            SWARM.here.counts[name] += 1
            SWARM.here.counts[f"{name}: {event.detail}"[:REASON_CHARS]] += 1
            self.live.clear()
        elif event.state is State.ONLINE and self.socket is not None:
            watched = self.socket
            if len(watched.writes_ns) == 2:
                answered, log_in = watched.writes_ns
                assert answered <= log_in
                SWARM.request("handshake", (log_in - watched.dialled_ns) / 1e6, watched.bytes_in)
                SWARM.request("login", (watched.received_ns - log_in) / 1e6)
            if self.checks and self._resuming is None:
                self._resuming = set(self.checks)

    def _resumed(self, log: str) -> None:
        if self._resuming is None or self.socket is None:
            return
        self._resuming.discard(log)
        if not self._resuming:
            self._resuming = None
            took_ns = self.socket.received_ns - self.socket.dialled_ns
            SWARM.request("resume", took_ns / 1e6)

    # --- judging ----------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _checking(self) -> Iterator[None]:
        try:
            yield
        except Violation as violation:
            self._violated(violation)

    def _violated(self, violation: Violation) -> None:
        SWARM.violated(type(violation)(f"{self.handle}: {violation}"))

    def _audit(self, client: BlockingClient) -> None:
        """The client hides repeats and mends holes; a correct server gives it no cause to."""
        for name, kind in (("repeats", Doubled), ("rejoins", Missing)):
            count = client.statistics[name]
            new = count - self._seen[name]
            self._seen[name] = count
            if new and not (name == "repeats" and self._behind):
                self._violated(kind(f"{new} {name}, mended by the client"))

    def settle(self, timeout_s: float = SETTLE_S) -> None:
        """Wait until everything acknowledged before now has arrived here, or report it lost."""
        wanted = {log: SWARM.heads.get(log, 0) for log in self.checks}
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._owed(wanted):
            gevent.sleep(0.05)
        for log, (have, want) in self._owed(wanted).items():
            self._violated(Lost(f"{log}: {want} is stored, {have} was the last here"))
        for (log, number), seq in self.sends.awaited.items():
            if log in self.checks and self.checks[log].seq >= seq:
                self._violated(Lost(f"{log}: own message {number}, stored as {seq}, never came"))

    def _owed(self, wanted: dict[str, int]) -> dict[str, tuple[int, int]]:
        return {
            log: (self.checks[log].seq, seq)
            for log, seq in wanted.items()
            if log in self.checks and self.checks[log].seq < seq
        }


def _reader_died(reader: gevent.Greenlet) -> None:
    """A bug of ours, or an error in ``received``: without its reader a user checks nothing."""
    SWARM.request("reader", None, 0, RuntimeError(f"a reader ended: {reader.exception!r}"))
