"""Whole workers in one process and one loop: real parts, real sockets, real files.

A ``Cluster`` replaces the supervisor: it owns the scoreboard, starts workers, ends them as ``kill
-9`` would, and replaces them. A ``TestClient`` is a client of one of them over TCP.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar, cast

import pytest

from relay.bus.link import Link
from relay.bus.messages import Batch, Event
from relay.chat.ids import producer_of
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import PARTITIONS, partition_of
from relay.limit_settings import Limits
from relay.server.agent.answer import Answer
from relay.server.agent.protocol import Identity
from relay.server.agent.ticket_keys import TicketKeyMaker
from relay.server.boot_report import BootReport
from relay.server.context import WorkerContext
from relay.server.periodic import Periodic
from relay.server.scoreboard import Scoreboard
from relay.server.settings.live import LiveSettings
from relay.server.ticket_register import TicketRegister
from relay.server.worker.connection.session import Session
from relay.server.worker.member.feed import Feed
from relay.server.worker.process import main
from relay.server.worker.process.dependencies import WorkerDependencies
from relay.server.worker.process.loop.collector import Collector
from relay.server.worker.process.parts import WorkerParts
from relay.server.worker.process.periodic import attempt
from relay.settings import Accounts, Retention, Server, Settings, Store
from relay.store.file.directory import DataDirectory
from relay.store.sqlite import SqlitePartition
from relay.wire.connection import Connection
from relay.wire.envelopes import (
    Ack,
    ClientEnvelope,
    EntryMessage,
    Join,
    Live,
    Refused,
    Send,
    ServerEnvelope,
    Welcome,
)
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    HandshakeCompleted,
    ServerKeyOffered,
    TicketReceived,
)
from relay.wire.packing import pack, unpack_server
from relay.wire.tickets import ClientTicket, TicketKey
from tests.support.cluster import DEADLINE_S, until
from tests.support.devices import login
from tests.support.logs import die
from tests.support.pair import server_key

WORKERS_MAX = 8
IDENTITY = Identity(hashlib.sha256(server_key().spki).digest(), b"", server_key().spki)
Envelope = TypeVar("Envelope", bound=ServerEnvelope)


def answered(secret: Coroutine[object, object, bytes]) -> Answer:
    """Return the answer that a coroutine gives: later, as that of a key agent comes."""
    answer = Answer()

    async def give() -> None:
        answer.give(await secret)

    giving = asyncio.ensure_future(give())
    _GIVING.add(giving)
    giving.add_done_callback(_GIVING.discard)
    return answer


_GIVING: set[asyncio.Future[None]] = set()
"""The loop itself keeps no task."""


class LocalAgent:
    """The key agent's service, without the process."""

    def __init__(self, ticket_keys: TicketKeyMaker) -> None:
        self.identity = IDENTITY
        self.on_next_key: Callable[[bytes], None] = lambda _: None
        self._ticket_keys = ticket_keys

    def follow_ticket_keys(self, install: Callable[[list[TicketKey]], None]) -> None:
        """Give the keys of tickets that there are; ``Cluster.rotate`` gives later ones."""
        install(self._ticket_keys.keys)

    async def connect(self) -> None:
        """Nothing to connect to."""

    def unwrap(self, ciphertext: bytes, source: str) -> Answer:
        """Unwrap a secret; a test that overrides ``secret`` decides when."""
        return answered(self.secret(ciphertext, source))

    async def secret(self, ciphertext: bytes, source: str) -> bytes:
        """Return the secret."""
        return server_key().unwrap(ciphertext)

    def announce(self, next_hash: bytes) -> None:
        """Another key will follow: as another agent tells."""
        self.identity = self.identity._replace(next_hash=next_hash)
        self.on_next_key(next_hash)

    def prove(self, challenge: bytes, source: str) -> Answer:
        """Prove the next key."""
        return answered(self.proof(challenge))

    async def proof(self, challenge: bytes) -> bytes:
        """Return the proof."""
        return server_key().prove_next(challenge, self.identity.next_hash)

    def close(self) -> None:
        """Nothing to close."""


class MortalLoop:
    """A worker's view of its loop: nothing is called any more once the worker is dead."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.dead = False

    def call_soon(self, callback: Callable[[], None]) -> object:
        return self._loop.call_soon(self._run, callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        return self._loop.call_later(delay, self._run, callback)

    def _run(self, callback: Callable[[], None]) -> None:
        if not self.dead:
            callback()


class NoCollector(Collector):
    """Leaves the collector to the process of the tests, which outlives its workers."""

    def look(self, admitted: int) -> None:
        """Freeze nothing."""


class Worker(main._Worker):
    """A worker as in ``relay.server.worker.process.main``, but without signals and pipes."""

    def __init__(
        self, context: WorkerContext, needs: dict[str, object], ticket_keys: TicketKeyMaker
    ) -> None:
        """Make one.

        Args:
            context: its place.
            needs: what of its ``WorkerDependencies`` is to be different.
            ticket_keys: of the cluster.
        """
        super().__init__(context, NoCollector())
        self._needs = dict(needs)
        self._rules = bool(self._needs.pop("rules_of_rooms", False))
        self.sweeps = True
        """False: what is due each second, heads to other workers among it, is left undone."""
        self._agent = LocalAgent(ticket_keys)  # type: ignore[assignment]
        # Each has a listener of its own, so there is nobody to leave a connection to.
        self._status.least_loaded = lambda: None  # type: ignore[method-assign]
        self._periodic: list[Periodic] = []
        self.clients: list[TestClient] = []
        """Everybody who ever connected, to be sent away at the end."""
        self.index = context.index
        self.generation = context.generation

    def _dependencies(self, loop: asyncio.AbstractEventLoop) -> WorkerDependencies:
        self._mortal_loop = MortalLoop(loop)
        self._stores.judges = self._rules
        given = super()._dependencies(loop)
        # A pause that a test has begun must not depend on what else the machine does; and many
        # clients that log in at once in one process, the server's, may need long on a busy one.
        given = replace(
            given,
            loop=self._mortal_loop,
            nobody_waits=lambda: False,
            timing=replace(given.timing, client_key_s=DEADLINE_S, handshake_s=2 * DEADLINE_S),
            login_s=DEADLINE_S,
        )
        return replace(given, **self._needs)  # type: ignore[arg-type]

    def _sweep(self) -> None:
        if self.sweeps:
            super()._sweep()

    @property
    def parts(self) -> WorkerParts:
        return self._parts

    @property
    def port(self) -> int:
        """Where it listens: each worker of a cluster has a port of its own."""
        number: int = self._context.listeners[0].getsockname()[1]
        return number

    def feed(self, log: str) -> Feed:
        return self._parts.member.feeds.by_log[log]

    async def start(self) -> None:
        await self._build()
        self._acceptor.start()
        self._periodic = [
            Periodic(main.TICK_S, partial(attempt, self._tick)),
            Periodic(main.SWEEP_S, partial(attempt, self._sweep)),
        ]

    def stop_periodic_work(self) -> None:
        """Do nothing from now on but what clients and other workers cause."""
        for periodic in self._periodic:
            periodic.cancel()

    async def end(self) -> None:
        """End as a killed process does: no turn, no close, all files closed."""
        self.stop_periodic_work()
        parts = self._parts
        self._mortal_loop.dead = True
        self._mesh.close()
        self._admin.close()
        self._acceptor.stop()
        for listener in self._context.listeners:
            listener.close()
        await self._stores.settle()
        self._stores._threads.shutdown(wait=True)  # a commit in a thread: it came before the end
        for partition in parts.home.partitions.opened.values():
            assert isinstance(partition, SqlitePartition)
            if partition._opened is not None:
                die(partition)
        for session in list(parts.connections.sessions):
            session.abort()
        await until(
            lambda: not parts.connections.sessions and not parts.links, "the end of a worker"
        )
        self._stores.close()

    async def disconnect_clients(self) -> None:
        """End all its clients."""
        for client in self.clients:
            client.transport.abort()
        await until(lambda: all(client.lost for client in self.clients), "the clients' end")


class Cluster:
    """Several workers on one data directory, and the table of who owns what."""

    def __init__(
        self,
        directory: Path,
        workers: int,
        *,
        durability: str = "process",
        max_connections: int = 1000,
        limits: Limits | None = None,
        needs: dict[str, object] | None = None,
        rights: bool = False,
        retention: Retention | None = None,
    ) -> None:
        """Prepare.

        Args:
            directory: for data and sockets; made by the test.
            workers: how many.
            durability: as the setting.
            max_connections: as the setting.
            limits: as the setting.
            needs: what of the workers' ``WorkerDependencies`` is to be different.
            retention: as the settings; nothing is removed until a test asks for a look at the logs.
            rights: False: rooms are as before they had an entry that begins them, so that what is
                about the transport of messages alone counts from 1.
        """
        self._directory = directory
        self._count = workers
        self._needs = (needs or {}) | {"rules_of_rooms": rights}
        self._generation = 0
        self._settings = Settings(
            # A test chooses each client's worker: none is sent away to another one.
            server=Server(max_connections=max_connections, workers=workers, rebalance_s=0.0),
            limits=limits or Limits(),
            retention=retention or Retention(),
            accounts=Accounts(guests=True),
            store=Store(durability=durability),  # type: ignore[arg-type]
        )
        self.tickets = TicketRegister()
        self.ticket_keys = TicketKeyMaker(self.tickets.begin, secrets.token_bytes, time.monotonic)
        self.ticket_keys.rotate()
        self.scoreboard = Scoreboard(WORKERS_MAX)
        self.scoreboard.workers = workers
        self.workers: dict[int, Worker] = {}
        self._all: list[Worker] = []
        self._looking: set[asyncio.Task[object]] = set()
        """Who has looked up where something is."""
        self._killing: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        DataDirectory(self._directory / "data")
        (self._directory / "run").mkdir(mode=0o700)
        for index in range(self._count):
            await self.start(index)
        await self.linked()
        return self

    async def __aexit__(self, *_: object) -> None:
        for index in list(self.workers):
            await self._end(index)
        for worker in self._all:
            await worker.disconnect_clients()

    async def start(self, index: int) -> Worker:
        """Start a worker in a slot, as the supervisor does: the table first."""
        self._generation += 1
        for partition in range(PARTITIONS):
            if partition % self._count == index:
                self.scoreboard.assign(partition, index, self._generation)
        row = self.scoreboard.row(index)
        row.clear_gauges()
        row.set("generation", self._generation)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        worker = Worker(
            WorkerContext(
                index=index,
                generation=self._generation,
                live=LiveSettings(self._settings),
                listeners=(listener,),
                scoreboard=self.scoreboard,
                tickets=self.tickets,
                runtime=self._directory / "run",
                data=self._directory / "data",
                registration="open",
                invitation_path=self._directory / "no-invitation",
                boot_id="boot",
                parent_fd=-1,
                boot=BootReport(-1),
            ),
            self._needs,
            self.ticket_keys,
        )
        self._all.append(worker)
        try:
            await worker.start()
        except BaseException:
            listener.close()
            raise
        row.set("ready", 1)
        self.workers[index] = worker
        return worker

    async def kill(self, index: int) -> None:
        """``kill -9``: the table still names the dead worker until another takes its place.

        Nobody else may look up anything from now on, or be about to use what they have looked up:
        whether they found the dead worker would depend on chance.
        """
        self._killing = asyncio.current_task()
        others = [task for task in self._looking - {self._killing} if not task.done()]
        assert not others, f"they look up workers while one is killed: {others}"
        await self._end(index)

    async def _end(self, index: int) -> None:
        worker = self.workers.pop(index)
        self.scoreboard.row(index).clear_gauges()
        await worker.end()

    async def linked(self) -> None:
        """Wait until every worker has a link to every other one, and a way to every home."""

        def all_up() -> bool:
            return all(
                len(worker.parts.member.routes._links) == len(self.workers) - 1
                and all(worker.parts.member.routes.ports)
                for worker in self.workers.values()
            )

        await until(all_up, "all links")

    def session(self, name: str) -> Session:
        """The server's end of a client's connection."""
        self._look_up()
        (found,) = [
            session
            for worker in self.workers.values()
            for session in worker.parts.connections.sessions
            if session.name == name
        ]
        return found

    def home(self, log: str) -> Worker:
        """The home of a log."""
        self._look_up()
        return self.workers[self.scoreboard.owner(partition_of(log)).worker]

    def _look_up(self) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return  # no loop runs, so nobody kills meanwhile
        if task is not None:
            assert self._killing in (None, task), "another task kills workers: see ``kill``"
            self._looking.add(task)

    def names_of(self, home: Worker) -> Iterator[str]:
        """Yield names of people whose inboxes have this home."""
        names = (f"ann{number}" for number in range(100))
        return (name for name in names if self.home(INBOX_PREFIX + name) is home)

    def other(self, log: str) -> Worker:
        """A worker that is not the home of a log."""
        home = self.home(log)
        return next(worker for worker in self.workers.values() if worker is not home)


def drop_publishes(patch: pytest.MonkeyPatch, lost: Callable[[Batch | Event], bool]) -> None:
    """Lose publishes between workers silently while ``lost`` is true."""
    publish = Link.publish

    def dropping(self: Link, message: Batch | Event) -> None:
        if not lost(message):
            publish(self, message)

    patch.setattr(Link, "publish", dropping)


PATIENCE_S = 10 * DEADLINE_S
"""For something that depends on what still comes."""


class TestClient(asyncio.Protocol):
    __test__ = False  # not a class of tests, whatever its name
    """A client: the sans-I/O core on an asyncio transport. Keeps all that it is told."""

    def __init__(self, ticket: ClientTicket | None = None) -> None:
        """Begin; ``ticket`` is offered."""
        self.connection = Connection.client(now=time.monotonic(), random_bytes=secrets.token_bytes)
        self.offered = ticket
        self.tickets: list[ClientTicket] = []
        """Received."""
        self.handshake: HandshakeCompleted | None = None
        self._changed = asyncio.Event()
        self.transport: asyncio.Transport
        self.received: list[ServerEnvelope] = []
        self.records = 0
        """Records with envelopes received."""
        self.closed: ConnectionClosed | None = None
        self.lost = False
        self.opened = False
        self.spki = b""
        self.secret = b""
        self.name = ""

    # --- asyncio.Protocol ---------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        connection.receive_data(data, time.monotonic())
        for event in connection.events():
            if isinstance(event, ServerKeyOffered):
                self.spki = event.spki
                connection.accept_server_key(time.monotonic(), self.offered)
            elif isinstance(event, TicketReceived):
                self.tickets.append(event.ticket)
            elif isinstance(event, ApplicationData):
                self.records += 1
                self.received.extend(unpack_server(event.content))
            elif isinstance(event, ConnectionClosed):
                self.closed = event
            elif isinstance(event, HandshakeCompleted):
                self.handshake = event
                self.opened = True
        self._write()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._changed.set()

    def _write(self) -> None:
        pending = self.connection.data_to_send()
        if pending:
            self.transport.write(pending)

    @property
    def producer(self) -> bytes:
        """What its message ids begin with."""
        (welcome,) = [e for e in self.received if isinstance(e, Welcome)]
        return producer_of(welcome.root, self.name, self.secret)

    # --- what a test does with it -------------------------------------------------------------
    @classmethod
    async def login(
        cls,
        worker: Worker,
        name: str,
        *,
        secret: bytes = b"",
        source: str = "127.0.0.1",
        ticket: ClientTicket | None = None,
    ) -> Self:
        """Connect, from an address of this machine, and log in."""
        client = await cls.connect(worker, source, ticket)
        client.hello(name, secret=secret)
        await client.expect(Welcome)
        return client

    @classmethod
    async def connect(
        cls, worker: Worker, source: str = "127.0.0.1", ticket: ClientTicket | None = None
    ) -> Self:
        """Connect, up to the end of the handshake."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            lambda: cls(ticket), "127.0.0.1", worker.port, local_addr=(source, 0)
        )
        worker.clients.append(client)
        await client.until(lambda: client.opened, "the handshake")
        return client

    def hello(self, name: str, *, secret: bytes = b"") -> None:
        self.name = name
        self.secret = secret or secrets.token_bytes(16)
        self.send_envelopes(*login(self.connection, self.spki, name, self.secret))

    def send_envelopes(self, *envelopes: ClientEnvelope) -> None:
        """Send envelopes as one record."""
        self.transport.write(self.sealed(b"".join(map(pack, envelopes))))

    def sealed(self, content: bytes) -> bytes:
        """One record's bytes, for a test that writes them itself."""
        self._write()
        return self.connection.seal(content, time.monotonic())

    def close_record(self) -> bytes:
        """The bytes that end the connection properly."""
        self.connection.close(1000, time.monotonic())
        return self.connection.data_to_send()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something that depends on what is received, as long as something comes.

        Pings come as well, so there is an end to that: a missing answer must fail a test.
        """
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"much came in {PATIENCE_S} s, but no {what}")
            if self.lost and not condition():
                raise AssertionError(f"the connection was lost, no {what}: {self.closed}")
            self._changed.clear()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self._changed.wait()
            except TimeoutError:
                raise AssertionError(f"nothing came for {DEADLINE_S} s, no {what}") from None

    async def expect(
        self,
        kind: type[Envelope],
        wanted: Callable[[Envelope], object] = lambda _: True,
        count: int = 1,
    ) -> Envelope:
        """Wait for the ``count``-th envelope of a kind; return it."""
        found: list[Envelope] = []
        looked_at = 0

        def enough() -> bool:
            nonlocal looked_at
            new = self.received[looked_at:]  # each is looked at once: there may be thousands
            found.extend(e for e in new if isinstance(e, kind) and wanted(e))
            looked_at = len(self.received)
            return len(found) >= count

        await self.until(enough, kind.__name__)
        return found[count - 1]

    async def join(self, log: str, *, last: int = 0) -> None:
        """Follow a log, and wait until live."""
        before = len([e for e in self.received if isinstance(e, Live) and e.log == log])
        self.send_envelopes(Join(1, log, None, 0, last))
        await self.expect(Live, lambda e: e.log == log, before + 1)

    def send(self, log: str, first: int, last: int | None = None, size: int = 0) -> None:
        """Send the messages of the counters from first to last, a record for each."""
        for counter in range(first, (last or first) + 1):
            body = f"{self.name} {counter}".encode().ljust(size, b".")
            self.send_envelopes(Send(log, counter, 0, "", body))

    async def acked(self, log: str, counter: int) -> Ack:
        """Wait for the acknowledgement of one message; a refusal of any is a failure."""
        await self.until(
            lambda: any(
                isinstance(e, Ack | Refused) and e.log == log and e.counter == counter
                for e in self.received
            ),
            f"ACK {counter}",
        )
        refused = [e for e in self.received if isinstance(e, Refused)]
        assert not refused, refused
        return await self.expect(Ack, lambda e: e.log == log and e.counter == counter)

    def entries(self, log: str) -> list[EntryMessage]:
        """The entries received of a log, in the order of receiving."""
        return [e for e in self.received if isinstance(e, EntryMessage) and e.log == log]

    def seqs(self, log: str) -> list[int]:
        """Their numbers."""
        return [entry.seq for entry in self.entries(log)]

    async def has(self, log: str, count: int) -> None:
        """Wait until so many entries came."""
        await self.expect(EntryMessage, lambda e: e.log == log, count)

    def disconnect(self) -> None:
        """Drop the connection."""
        self.transport.abort()

    async def ends_with(self, log: str, seq: int) -> None:
        """Wait until this is the last entry received."""
        await self.until(lambda: self.seqs(log)[-1:] == [seq], f"entry {seq} of {log}")

    async def ended(self) -> None:
        """Wait until the server has ended the connection."""
        await until(lambda: self.lost, "the end of a connection")

    async def gone(self, worker: Worker) -> None:
        """Wait until both sides have forgotten this connection."""
        name = self.name
        await until(
            lambda: (
                self.lost and not any(s.name == name for s in worker.parts.connections.sessions)
            ),
            f"the end of {name}",
        )
