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
            self.send_message("lobby", size=80)

Start Locust with ``--host relay://FINGERPRINT@HOST:PORT``. Receiving runs in a greenlet of its own;
everything received and sent is checked, and a broken promise is a failure of the run.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NoReturn

import gevent
from locust import User
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from loadtest import listeners
from loadtest.bodies import CONTENT_TYPE, INSTANCE_BYTES, Body, pack_body
from loadtest.mistakes import host_of
from loadtest.reading import CLOCK, Reading, RequestFailed
from loadtest.socket_watch import GOOD, WatchedSocket, dial_watched
from loadtest.swarm import SWARM
from relay.chat.entries import Cursor
from relay.client.address import Address, parse_address
from relay.client.blocking import BlockingClient
from relay.client.devices.device_key import DeviceKey
from relay.client.errors import ClientError, ServerKeyError
from relay.client.events import HistoryPage, Message, State, Stored
from relay.client.identity import new_identity
from relay.errors import RelayError, UsageError

if TYPE_CHECKING:
    from locust.env import Environment

RETRY_S: Final = 0.5
PATIENCE_S: Final = 60.0
"""Without a connection for so long, a first connect is a failure (and goes on trying)."""
LAG_S_MAX: Final = 10.0
"""A user that is so late begins anew: the objective is long broken, and load that was too much must
not weigh on what is measured after it."""
HEARD_MAX: Final = 16
CLOSE_S: Final = 2.0
"""At the very end: for the last acknowledgements."""


class RelayUser(User):
    """A user with one client, which lives through lost connections and restarts."""

    abstract = True

    def __init_subclass__(cls, **options: object) -> None:
        """Install measuring and checking for every locustfile with relay users."""
        super().__init_subclass__(**options)
        listeners.install()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.random = random.Random(secrets.randbits(64))
        """Seeded anew by scenarios that are to be repeatable."""
        self.handle = f"lt-{secrets.token_hex(5)}"
        self.key = DeviceKey.generate()
        """In memory alone: the name is nobody's after the run."""
        self.identity = new_identity(secrets.token_bytes)
        self.instance = secrets.token_bytes(INSTANCE_BYTES)
        """What its bodies are known by."""
        self.client: BlockingClient | None = None
        """None before ``connect``."""
        self.socket: WatchedSocket | None = None
        """Of the running connection, or of the last one."""
        self.network = GOOD
        """Of the next connection."""
        self.leaving = False
        """True once the user waits for the last that is to arrive: over a good network."""
        self.timed = True
        """False: what this user receives says nothing about the server's speed."""
        self.due = time.monotonic()
        """When the next turn is meant to be: see ``pace``."""
        self.heard: deque[str] = deque(maxlen=HEARD_MAX)
        """Who wrote lately, where this user could read it: whom it may write to."""
        self.latest: Message | None = None
        """What this user has read last of somebody else."""
        self.own: Message | None = None
        """What came back last of its own."""
        self.reading = Reading(self)
        """What it has read and sent, and the judge of it."""
        self._numbers: Counter[str] = Counter()
        """Of each log, the number of the last message."""
        self._unsure: dict[str, tuple[str, bytes]] = {}
        """Of each log, the message without an answer, and where it goes: it goes again before
        anything new."""
        self._reader: gevent.Greenlet | None = None

    # --- life -------------------------------------------------------------------------------------
    def on_start(self) -> None:
        """Connect; Locust calls it."""
        self.connect()
        self.due = time.monotonic()

    def on_stop(self) -> None:
        """Wait for what must still arrive, check, and leave; Locust calls it."""
        if self.client is None:
            return
        if self.client.state is State.CLOSED:  # for good, and reported: it waits for nothing
            self._end_client(self.client, 0.0)
            return
        self.leaving = True
        self.network = GOOD
        if self.socket is not None:
            self.socket.cut_after = self.socket.cut_answer_after = self.socket.bytes_per_s = None
        self.reading.settle()
        self._end_client(self.client, CLOSE_S)
        SWARM.here.counts["users judged at the end"] += 1

    @property
    def address(self) -> Address:
        """Where the relay is: Locust's host. Raises UsageError."""
        return parse_address(host_of(self.environment))

    def dial(self, address: Address, timeout_s: float) -> WatchedSocket:
        """Open a connection over this user's network."""
        self.socket = dial_watched(address, timeout_s, self.network)
        if not self.leaving:
            self.dialled(self.socket)
        return self.socket

    def dialled(self, watched: WatchedSocket) -> None:
        """Take each new connection before anything is sent on it. For users of your own."""

    def connect(self) -> None:
        """Connect and log in, and keep trying: users do not give up while the server restarts.

        What no retry can mend, a wrong address or a key that is not trusted, is a failure at once,
        and ends the user; so is the first error as long as nobody has had a connection.
        """
        self.client = None
        failing_since, told = time.monotonic(), False
        try:
            address = self.address
        except UsageError as error:
            self._give_up(error)
        while self._state != LOCUST_STATE_STOPPING:
            client = BlockingClient(
                address,
                name=self.handle,
                key=self.key,
                register=True,
                identity=self.identity,
                dial=self.dial,
                agent="relay-loadtest",
            )
            try:
                client.connect()
            except ServerKeyError as error:
                self._give_up(error)
            except ClientError as error:
                SWARM.here.counts["connects failed"] += 1
                patience_s = PATIENCE_S if SWARM.connected or told else 0.0
                if time.monotonic() - failing_since >= patience_s:
                    failing_since, told = time.monotonic(), True
                    SWARM.request("connect", None, 0, RequestFailed(error))
                gevent.sleep(RETRY_S * (1.0 + self.random.random()))
                continue
            self.client = client
            SWARM.connected = True
            self.reading.logged_in()
            self._reader = gevent.spawn(self.reading.read, client)
            self._reader.link_exception(_reader_died)
            return
        raise StopUser

    def _give_up(self, error: RelayError) -> NoReturn:
        SWARM.request("connect", None, 0, RequestFailed(error))
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
        self.connect()
        for log, cursor in cursors.items():
            self.join(log, cursor=cursor)

    def cut(self) -> None:
        """Lose the connection, as in a bad network; the client reconnects by itself."""
        if self.socket is not None:
            SWARM.here.counts["connections cut by users"] += 1
            self.socket.reset()

    def _end_client(self, client: BlockingClient, timeout_s: float) -> None:
        with contextlib.suppress(ClientError):
            client.close(timeout_s)
        if self._reader is not None:
            self._reader.kill()
        self.reading.audit(client)

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
        wait that it causes is measured. Equal pauses would make all users send at once.
        """
        self.due += self.random.expovariate(1.0 / mean_s)

    def wait_time(self) -> float:
        """Return the pause before the next turn; Locust calls it."""
        return max(0.0, self.due - time.monotonic())

    # --- requests ---------------------------------------------------------------------------------
    @contextlib.contextmanager
    def request(self, name: str, since: float | None = None) -> Iterator[dict[str, int]]:
        """Time a request until its answer came in; errors of the server are failures, swallowed.

        Args:
            name: of the request event.
            since: the time counts from this moment of the monotonic clock, not from now.

        Yields:
            A dict to put the ``size`` of the answer into, in bytes.
        """
        began = time.monotonic()
        answer = {"size": 0}
        try:
            yield answer
        except ClientError as error:
            SWARM.request(name, None, 0, RequestFailed(error))
        else:
            took_s = self._answered_at(began) - (began if since is None else since)
            SWARM.request(name, took_s * 1000.0, answer["size"])

    def _answered_at(self, asked: float) -> float:
        """When the bytes of the answer came: our own queue does not count as the server's time."""
        received = self.socket.received_ns / 1e9 if self.socket is not None else 0.0
        return received if received > asked else time.monotonic()

    def join(self, log: str, *, last: int = 0, cursor: Cursor | None = None) -> None:
        """Follow a log."""
        with self.request("join"):
            joined = self._client.join(log, last, cursor=cursor)
            if cursor is None:
                self.reading.joined(log, joined.start)

    def leave(self, log: str) -> None:
        """Stop following a log."""
        with self.request("leave"):
            self._client.leave(log)
        self.reading.left(log)

    def whisper(self, name: str, size: int) -> None:
        """As ``say``, to one person alone. It is numbered in this user's own inbox."""
        self.send_message(f"@{self.handle}", size, f"@{name}")

    def send_message(self, log: str, size: int, to: str = "") -> None:
        """Send a message of ``size`` bytes and wait until it is stored.

        Its time counts from when this turn was meant to be.

        Args:
            log: where it is numbered, and comes back.
            size: of the body.
            to: where it goes, if that is another log.
        """
        now = time.monotonic()
        if now - self.due > LAG_S_MAX:
            SWARM.here.counts["users that gave up their lag"] += 1
            self.due = now
        meant = min(self.due, now)
        if log not in self._unsure:
            number = self._numbers[log] = self._numbers[log] + 1
            head = Body(self.instance, number, int(meant * 1e9), CLOCK)
            self._unsure[log] = to or log, pack_body(head, size)
        target, body = self._unsure[log]
        with self.request("publish→stored", since=meant):
            stored = self._client.send(target, body, content_type=CONTENT_TYPE)
            del self._unsure[log]
            SWARM.here.counts["messages stored"] += 1
            if stored.seq:
                self.reading.acknowledged(log, self._numbers[log], stored.seq)

    def react(self, message: Message) -> None:
        """React to a message."""
        with self.request("react→stored"):
            self._amended("reactions", message.room, self._client.react(message, "+1"))

    def edit(self, message: Message, size: int) -> None:
        """Give an own message another body of ``size`` bytes."""
        with self.request("edit→stored"):
            self._amended("edits", message.room, self._client.edit(message, b"e" * size))

    def mark_read(self, message: Message) -> None:
        """Tell one's other devices what was read; it is an entry of the own inbox."""
        with self.request("mark→stored"):
            self._amended("read marks", f"@{self.handle}", self._client.mark_read(message))

    def _amended(self, what: str, log: str, stored: Stored) -> None:
        SWARM.here.counts[f"{what} stored"] += 1
        self.reading.amended(log, stored.seq)

    def page(self, log: str, before: int | None = None, count: int = 100) -> HistoryPage | None:
        """Read a page of history and check it; None when it failed."""
        page: HistoryPage | None = None
        with self.request("history page") as answer:
            page = self._client.history(log, before=before, count=count)
            answer["size"] = sum(
                len(entry.body) for entry in page.entries if isinstance(entry, Message)
            )
        if page is not None:
            self.reading.page(log, page)
        return page

    def received(self, message: Message) -> None:
        """Take a message, after the checks. For users of your own; it must be quick."""


def _reader_died(reader: gevent.Greenlet) -> None:
    """A bug, or an error in ``received``: without its reader a user checks nothing."""
    SWARM.request("reader", None, 0, RuntimeError(f"a reader ended: {reader.exception!r}"))
