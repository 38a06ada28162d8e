"""The key agent's loop: connections of workers, the queue, and the threads that compute RSA.

OpenSSL releases the interpreter's lock while it computes, so two threads use two cores. A single
request is computed in the loop itself: passing it to a thread and back costs a third of the RSA
operation, and nothing else waits. No result, log line, metric or order of work distinguishes a
valid ciphertext from an invalid one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from relay.local_sockets import credentials
from relay.server.agent.protocol import (
    AgentProtocolError,
    FrameReader,
    Identity,
    Kind,
    pack,
    pack_hello,
    pack_ticket_keys,
    unpack_question,
)
from relay.server.agent.queue import LIMIT_MAX, LIMIT_MIN, FairQueue
from relay.server.agent.ticket_keys import TicketKeyMaker
from relay.server.sources import source_of
from relay.server.system.threads import started_pool

THREADS: Final = 2
WAIT_MAX_S: Final = 1.0
"""Older requests are not computed: their workers have given up."""
WAIT_TARGET_S: Final = 0.8
"""The queue holds what can be computed in this time; further requests are refused on arrival."""
STUCK_S: Final = 2.0
"""RSA takes a millisecond. A computation that takes this long never ends."""
_SMOOTHING: Final = 0.05


class _Job(NamedTuple):
    connection: _Connection
    request: int
    kind: int
    ciphertext: bytes
    arrived: float


class Service:
    """Unwraps secrets for workers."""

    def __init__(
        self,
        unwrap: Callable[[bytes], bytes],
        identity: Identity,
        clock: Callable[[], float] = time.monotonic,
        observe_ns: Callable[[int], None] = lambda _: None,
        ticket_keys: TicketKeyMaker | None = None,
        prove: Callable[[bytes], bytes] | None = None,
        workers_uid: int | None = None,
    ) -> None:
        """Create without a socket.

        Args:
            unwrap: the private operation.
            identity: of the server.
            clock: monotonic seconds.
            observe_ns: called with the duration of each computation.
            ticket_keys: creates the keys of tickets; None: there are none.
            prove: the private operation that proves the next key; None: there is none.
            workers_uid: the user that workers run as; None: the same as this process.
        """
        self.workers_uid = os.geteuid() if workers_uid is None else workers_uid
        self._identity = identity
        self._prove = prove
        self._ticket_keys = ticket_keys
        self._connections: set[_Connection] = set()
        self._unwrap = unwrap
        self._clock = clock
        self._observe_ns = observe_ns
        self.unwrapped = 0
        self.turned_away = 0
        self._loop = asyncio.get_running_loop()
        self._threads = started_pool(THREADS, "rsa")
        self._queue: FairQueue[_Job] = FairQueue()
        self._running: dict[int, float] = {}
        """Computations under way: an internal number, and when each began."""
        self._started = 0
        self._service_s = 0.002
        """Smoothed duration of one computation."""
        self._server: asyncio.Server | None = None
        """None until it listens."""

    async def listen(self, sock: socket.socket) -> None:
        """Serve workers on a listening Unix-domain socket, replacing an earlier one."""
        if self._server is not None:
            self._server.close()
        self._server = await self._loop.create_unix_server(lambda: _Connection(self), sock=sock)

    def close(self) -> None:
        """Stop. Waiting requests get no answer; their workers ask the next agent."""
        if self._server is not None:
            self._server.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def rotate_ticket_keys(self) -> None:
        """Create a new key if it is due, and send it to the workers. Called from time to time."""
        if self._ticket_keys is not None and self._ticket_keys.rotate():
            for connection in self._connections:
                self._push_ticket_keys(connection)

    def connected(self, connection: _Connection) -> None:
        """A worker has connected."""
        self._connections.add(connection)
        connection.write(pack_hello(self._identity))
        self._push_ticket_keys(connection)

    def disconnected(self, connection: _Connection) -> None:
        """A worker has disconnected."""
        self._connections.discard(connection)

    def _push_ticket_keys(self, connection: _Connection) -> None:
        if self._ticket_keys is not None and self._ticket_keys.keys:
            connection.write(pack_ticket_keys(self._ticket_keys.keys))

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._queue)

    @property
    def stuck(self) -> bool:
        """True if a computation does not return: the agent must be replaced."""
        began = min(self._running.values(), default=None)
        return began is not None and self._clock() - began > STUCK_S

    def request(self, connection: _Connection, kind: int, request: int, payload: bytes) -> None:
        """Handle a worker's request. Raises AgentProtocolError."""
        ciphertext, address = unpack_question(payload)
        if kind == Kind.PROVE and self._prove is None:
            connection.answer(Kind.BUSY, request)
            return
        self._queue.limit = max(
            LIMIT_MIN, min(LIMIT_MAX, int(WAIT_TARGET_S * THREADS / self._service_s))
        )
        job = _Job(connection, request, kind, ciphertext, self._clock())
        for shed in self._queue.push(source_of(address), job):
            self._turn_away(shed)

    def start(self) -> None:
        """Start computing. Called once all requests of a read are queued."""
        if len(self._queue) == 1 and not self._running:
            job = self._queue.pop()
            assert job is not None
            self._answer(job, *self._compute(job))
            return
        # One more than there are threads, so that no thread waits for this loop.
        while len(self._running) <= THREADS and (job := self._queue.pop()) is not None:
            now = self._clock()
            if now - job.arrived > WAIT_MAX_S:
                self._turn_away(job)
                continue
            if job.connection.lost:
                continue
            number = self._started
            self._started += 1
            self._running[number] = now
            future = self._loop.run_in_executor(self._threads, self._compute, job)
            future.add_done_callback(
                lambda done, job=job, number=number: self._done(job, number, done)  # type: ignore[misc]
            )

    def _compute(self, job: _Job) -> tuple[bytes, float]:
        began = self._clock()
        if job.kind == Kind.PROVE:
            assert self._prove is not None
            return self._prove(job.ciphertext), self._clock() - began
        return self._unwrap(job.ciphertext), self._clock() - began

    def _done(self, job: _Job, number: int, done: asyncio.Future[tuple[bytes, float]]) -> None:
        del self._running[number]
        if done.cancelled():
            return
        self._answer(job, *done.result())
        self.start()

    def _answer(self, job: _Job, secret: bytes, took_s: float) -> None:
        self._service_s += _SMOOTHING * (took_s - self._service_s)
        self.unwrapped += 1
        self._observe_ns(int(took_s * 1e9))
        kind = Kind.PROOF if job.kind == Kind.PROVE else Kind.SECRET
        job.connection.answer(kind, job.request, secret)

    def _turn_away(self, job: _Job) -> None:
        self.turned_away += 1
        job.connection.answer(Kind.BUSY, job.request)


class _Connection(asyncio.Protocol):
    """The connection to one worker."""

    def __init__(self, service: Service) -> None:
        self.lost = False
        self._service = service
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        """None until connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop does not register its class as a subclass
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        if credentials(transport.get_extra_info("socket")).uid == self._service.workers_uid:
            self._service.connected(self)
        else:
            self._drop()

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        try:
            for frame in self._reader.feed(data):
                if frame.kind in (Kind.UNWRAP, Kind.PROVE):
                    self._service.request(self, frame.kind, frame.request, frame.payload)
            self._service.start()
        except AgentProtocolError:
            self._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._service.disconnected(self)

    def pause_writing(self) -> None:
        """Stop answering a worker that does not read its answers."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def answer(self, kind: Kind, request: int, payload: bytes = b"") -> None:
        self.write(pack(kind, request, payload))

    def write(self, frame: bytes) -> None:
        if not self.lost and self._transport is not None:
            self._transport.write(frame)

    def _drop(self) -> None:
        self.lost = True
        assert self._transport is not None
        self._transport.abort()
