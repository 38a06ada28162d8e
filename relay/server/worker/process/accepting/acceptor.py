"""Accepts connections from the shared listening sockets, and balances them between workers.

All workers see every new connection. A worker with clearly more connections than the least-loaded
one leaves it to the others for a moment (docs/architecture.md, "Accepting connections"). Only
workers that accept are compared: one that is stopped, full or draining must never keep the others
from accepting. When all are full, all accept again, to report that. One that is starting keeps them
from accepting more than they can log in meanwhile, for a short time: otherwise the clients of a
worker that has died would all be on the others when the next one accepts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final, Protocol

from relay.server.sources import UNIX, Proxies, named_by
from relay.server.worker.process.accepting import proxy_header
from relay.server.worker.process.accepting.reserve_descriptor import ReserveDescriptor

if TYPE_CHECKING:
    from relay.server.worker.delivery.stream import Stream

ACCEPTS_PER_TURN: Final = 16
"""Per readiness event, so that a burst neither starves the loop nor lands on one worker."""
ACCEPTS_PER_PAUSE: Final = 12
"""While CPU time is short: accepts before each pause in which no connection is admitted."""
YIELD_S: Final = 0.002
"""How long a worker with more than its share leaves new connections to the others."""
SURPLUS_RATIO: Final = 0.05
EXHAUSTED_PAUSE_S: Final = 0.1
"""Out of file descriptors: stop accepting for this long instead of spinning (as nginx does)."""
PROXY_HEADER_S: Final = 5.0
"""Timeout for the header; a proxy sends it at once."""
PROXY_LOG_INTERVAL_S: Final = 60.0
"""Minimum time between two log lines of a kind about proxies whose connections were closed."""
START_S: Final = 0.5
"""How long a worker that starts is waited for: a spare takes a tenth, another process has to load
the program first."""
DEFER_S: Final = 0.005
"""Interval of the checks whether new connections may enter."""
CLOSED_PAUSE_S: Final = 0.05
"""No connection can be admitted: check again after this time, unless one ends before."""
log = logging.getLogger("relay.worker")


class Gate(Protocol):
    """Decides who may connect: the worker's connections."""

    def closed(self) -> bool:
        """Return True if no connection can be admitted now."""

    def defers(self, *, few: bool) -> bool:
        """Return True if new connections should wait in the backlog for earlier ones.

        ``few``: another worker will soon accept as well.
        """

    def pause_s(self) -> float:
        """Return how long to pause accepting, for the sake of the existing connections."""

    def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> Stream | None:
        """Return the protocol for a peer's address; None: close the connection without a message.

        ``proxied``: a proxy has accepted the connection. ``exhausted``: there are no descriptors
        left, and the client is to be told so.
        """


def surplus(own: int, least: int) -> bool:
    """Return True if a worker has more than its share, given the least-loaded one's connections."""
    return own >= least + max(1.0, SURPLUS_RATIO * least)


class Acceptor:
    """Accepts connections from listening sockets that all workers share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: tuple[socket.socket, ...],
        gate: Gate,
        *,
        proxies: Proxies,
        full_at: int,
        connections_max: int,
        least_loaded: Callable[[], int | None],
        starting: Callable[[], int],
        accepting: Callable[[bool], None],
        counted: Callable[[int], None],
    ) -> None:
        """Create; ``start`` begins to accept.

        Args:
            loop: this worker's.
            listeners: non-blocking, listening.
            gate: decides about each connection.
            proxies: peers that send a PROXY header with the client's address.
            full_at: from this number of connections on, new ones are left to other workers.
            connections_max: at this number no connection is accepted.
            least_loaded: returns the fewest connections of any *other* accepting worker; None:
                alone.
            starting: returns the generation of another worker that will soon accept; 0: none.
            accepting: called with whether this worker accepts, for the other workers.
            counted: called with ``count`` when it changes, for the other workers.
        """
        self._loop = loop
        self._listeners = listeners
        self._gate = gate
        self._proxies = proxies
        self._full_at = full_at
        self._connections_max = connections_max
        self._least_loaded = least_loaded
        self._starting = starting
        self._accepting = accepting
        self._counted = counted
        self._adopting: set[asyncio.Task[None]] = set()
        self._unannounced: dict[socket.socket, str] = {}
        """Connections of proxies without a header yet, with the proxy's address; oldest first."""
        self._logged_s: dict[str, float] = {}
        """When each kind of line about proxies was last logged."""
        self.count = 0
        """Connections of this worker, from accept to the end."""
        self._reserve = ReserveDescriptor(loop)
        self._exhausted = False
        """There are no descriptors: the next attempt is after a pause, not before."""
        self._open = False
        self._stopped = False
        self._yields = False
        """True while new connections are left to the next version's workers."""
        self._deferring = False
        """True while new connections wait in the backlog and the next check is due."""
        self._full = False
        self._awaited = 0
        """The generation of the last worker that was waited for."""
        self._awaited_until = 0.0

    def start(self) -> None:
        """Begin to accept, or continue after a pause without descriptors."""
        if self._stopped or self._yields:
            return
        self._exhausted = False
        self._reserve.keep()
        self._note_full()
        self._accepting(not self._full)
        self._resume()

    def stop(self) -> None:
        """Stop accepting. Connections wait in the backlog for another worker.

        Proxies that have not sent their header are disconnected.
        """
        self._stopped = True
        self._reserve.give_up()
        self._accepting(False)
        self._suspend()
        for sock in self._unannounced:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def yields(self, *, on: bool) -> None:
        """Begin or stop leaving new connections to others."""
        if on is not self._yields:
            self._yields = on
            if on:
                self._accepting(False)
                self._suspend()
            else:
                self.start()

    async def adopted(self) -> None:
        """Wait until every accepted connection has its transport, or has ended."""
        if self._adopting:
            await asyncio.wait(self._adopting)

    def ended(self) -> None:
        """A connection has ended: continue if this worker had no slot left."""
        self._count(-1)
        if not self._open and not self._stopped and not self._exhausted:
            self._resume()

    def _count(self, change: int) -> None:
        self.count += change
        self._counted(self.count)
        self._note_full()

    def _note_full(self) -> None:
        full = self.count >= self._full_at
        if full is not self._full:
            self._full = full
            if not self._stopped and not self._yields:
                self._accepting(not full)

    def _resume(self) -> None:
        if not self._open and not self._stopped and not self._yields:
            self._open = True
            for listener in self._listeners:
                self._loop.add_reader(listener, self._accept, listener)

    def _suspend(self) -> None:
        if self._open:
            self._open = False
            for listener in self._listeners:
                self._loop.remove_reader(listener)

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._suspend()
        self._loop.call_later(seconds, then)

    def _defer(self) -> None:
        """Pause, and check again soon: once, however often connections end meanwhile."""
        self._suspend()
        if not self._deferring:
            self._deferring = True
            self._loop.call_later(DEFER_S, self._check_again)

    def _check_again(self) -> None:
        self._deferring = False
        self._resume()

    def _awaits_another(self) -> bool:
        """Return True if another worker will soon accept."""
        starting = self._starting()
        if not starting:
            return False
        now_s = self._loop.time()
        if starting != self._awaited:
            self._awaited, self._awaited_until = starting, now_s + START_S
        return now_s < self._awaited_until

    def _accept(self, listener: socket.socket) -> None:
        short = self._gate.pause_s() > 0.0
        few, least = self._awaits_another(), self._least_loaded()
        for _ in range(ACCEPTS_PER_PAUSE if short else ACCEPTS_PER_TURN):
            if self.count >= self._connections_max or self._gate.closed():
                self._make_room()
                # other workers must not leave connections to this one meanwhile
                self._accepting(False)
                self._pause(CLOSED_PAUSE_S, self.start)
                return
            if self._gate.defers(few=few):
                self._defer()
                return
            if least is not None and (self._full or surplus(self.count, least)):
                self._pause(YIELD_S, self._resume)
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.warning("accept_exhausted", extra={"errno": error.errno})
                self._accepting(False)
                self._exhausted = True
                self._pause(EXHAUSTED_PAUSE_S, self.start)
                self._turn_one_away(listener)
                return
            self._take(sock, address)
        pause_s = self._gate.pause_s()
        if pause_s > 0.0:
            self._pause(pause_s, self._resume)

    def _make_room(self) -> None:
        """Close the oldest proxied connection without a header.

        It is not a client connection, which admission would handle, and others wait for its slot.
        """
        if not self._unannounced:
            return
        sock = next(iter(self._unannounced))
        proxy = self._unannounced.pop(sock)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        if self._may_log("silent"):
            log.warning("proxy_silent", extra={"proxy": proxy})

    def _may_log(self, kind: str) -> bool:
        """Return True if a line of this kind may be logged: once a minute."""
        now_s = self._loop.time()
        if now_s < self._logged_s.get(kind, -math.inf) + PROXY_LOG_INTERVAL_S:
            return False
        self._logged_s[kind] = now_s
        return True

    def _take(
        self, sock: socket.socket, address: tuple[object, ...] | str, *, exhausted: bool = False
    ) -> None:
        # The address of a Unix-domain socket is a str. (``family`` creates an enum member.)
        peer = str(address[0]) if isinstance(address, tuple) else UNIX
        sock.setblocking(False)
        if self._proxies.has(peer):
            self._count(1)
            self._unannounced[sock] = peer
            self._begin(self._adopt_proxied(sock, peer, exhausted))
            return
        protocol = self._gate.admit(peer, exhausted=exhausted)
        if protocol is None:
            sock.close()
            return
        self._count(1)
        self._begin(self._adopt(sock, protocol))

    def _turn_one_away(self, listener: socket.socket) -> None:
        """Use the reserved descriptor to tell one client that there are none."""
        if not self._reserve.give_up():
            return
        try:
            sock, address = listener.accept()
        except OSError:
            return
        self._take(sock, address, exhausted=True)

    def _begin(self, adopting: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(adopting)
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt_proxied(self, sock: socket.socket, proxy: str, exhausted: bool) -> None:
        """Read the PROXY header, then adopt the connection like any other."""
        try:
            async with asyncio.timeout(PROXY_HEADER_S):
                fixed = await self._read(sock, proxy_header.FIXED_BYTES)
                rest = await self._read(sock, proxy_header.rest_of(fixed))
            peer = named_by(proxy, proxy_header.source(fixed, rest))
        except (proxy_header.BadHeader, OSError, TimeoutError) as error:
            reason = str(error) or "it came too late"
            if not isinstance(error, _ClosedSilently) and self._may_log("refused"):
                log.warning("proxy_header_refused", extra={"proxy": proxy, "reason": reason})
            protocol = None
        else:
            protocol = None
            if not self._stopped:
                protocol = self._gate.admit(peer, proxied=True, exhausted=exhausted)
        finally:
            self._unannounced.pop(sock, None)
        if protocol is None:
            sock.close()
            self.ended()
            return
        await self._adopt(sock, protocol)

    async def _read(self, sock: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await self._loop.sock_recv(sock, count - len(data))
            if not more:
                raise proxy_header.BadHeader("it ended") if data else _ClosedSilently
            data += more
        return data

    async def _adopt(self, sock: socket.socket, protocol: Stream) -> None:
        try:
            protocol.own(sock)
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError as error:
            sock.close()  # closed between accept and now
            protocol.connection_lost(error)


class _ClosedSilently(proxy_header.BadHeader):
    """A connection that closes without a byte, as load balancers do to check the port."""
