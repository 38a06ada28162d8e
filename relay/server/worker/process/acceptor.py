"""Accepting from the shared listening sockets, and which worker should.

All workers see every new connection. A worker with clearly more connections than the least-loaded
one lets the others have it for a moment (docs/architecture.md, "Accepting
connections"). Only workers that accept count: one
that is stopped, starting, full or draining must never keep the others from accepting. When all are
full, all accept again, to answer so.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

from relay.server.sources import UNIX, Proxies
from relay.server.worker.process import proxy_header

ACCEPTS_PER_TURN: Final = 16
"""Per readiness event, so that a burst neither starves the loop nor lands on one worker."""
ACCEPTS_PER_REST: Final = 12
"""While the worker is short of the processor, before each of the rests in which nobody comes in."""
YIELD_S: Final = 0.002
"""How long a worker that has more than its share leaves new connections to the others."""
SURPLUS_RATIO: Final = 0.05
EXHAUSTED_PAUSE_S: Final = 0.1
"""Out of file descriptors: stop accepting for this long instead of spinning (as nginx does)."""
PROXY_HEADER_S: Final = 5.0
"""A proxy sends its header at once."""
PROXY_TOLD_S: Final = 60.0
"""Between two lines of a kind in the log about proxies whose connections were ended."""
HOLD_S: Final = 0.005
"""How long newcomers wait outside before the next look whether those before them are done."""
CLOSED_PAUSE_S: Final = 0.05
"""Nobody can come in: look again after this long, if no connection has ended before."""
log = logging.getLogger("relay.worker")


class Gate(Protocol):
    """Who may come in: the worker's connections."""

    def closed(self) -> bool:
        """Tell whether nobody may now."""

    def holds(self) -> bool:
        """Tell whether newcomers should wait for those who came in just before."""

    def rest_s(self) -> float:
        """Tell for how long nobody should come in, for the sake of who is there already."""

    def admit(self, peer: str, *, exhausted: bool = False) -> asyncio.Protocol | None:
        """Return the protocol for a peer's address; None: it is closed without a word.

        ``exhausted``: there are no descriptors left; this one is to be told so.
        """


def surplus(own: int, least: int) -> bool:
    """Tell whether a worker has more than its share, given the least-loaded one's connections."""
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
        accepting: Callable[[bool], None],
        counted: Callable[[int], None],
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            loop: this worker's.
            listeners: non-blocking, listening.
            gate: decides about each.
            proxies: who names by a header for whom it connects.
            full_at: from this number of connections on it leaves new ones to other workers.
            connections_max: at this number it accepts nobody.
            least_loaded: the fewest connections of any *other* worker that accepts; None: alone.
            accepting: told whether this worker accepts, for the others to know.
            counted: told ``count`` when it changes, for the others to know at once.
        """
        self._loop = loop
        self._listeners = listeners
        self._gate = gate
        self._proxies = proxies
        self._full_at = full_at
        self._connections_max = connections_max
        self._least_loaded = least_loaded
        self._accepting = accepting
        self._counted = counted
        self._adopting: set[asyncio.Task[None]] = set()
        self._unannounced: dict[socket.socket, str] = {}
        """Of proxies, by their address, that have not named yet for whom; the oldest first."""
        self._told_s: dict[str, float] = {}
        """When a kind of line about proxies was logged last."""
        self.count = 0
        """Connections of this worker, from accept to the end."""
        self._reserve = _Reserve()
        self._exhausted = False
        """There are no descriptors: the next look is when a pause is over, not before."""
        self._open = False
        self._stopped = False
        self._yields = False
        """Others take the connections that come, until further notice."""
        self._full = False

    def start(self) -> None:
        """Begin to accept; begin again, when a pause without descriptors is over."""
        if self._stopped or self._yields:
            return
        self._exhausted = False
        self._reserve.keep()
        self._note_full()
        self._accepting(not self._full)
        self._resume()

    def stop(self) -> None:
        """Accept no more. Connections wait in the backlog for whoever accepts next.

        A proxy that has not named for whom it connects is not waited for.
        """
        self._stopped = True
        self._reserve.give_up()
        self._accepting(False)
        self._suspend()
        for sock in self._unannounced:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def yields(self, *, on: bool) -> None:
        """Leave new connections to others, or no more."""
        if on is not self._yields:
            self._yields = on
            if on:
                self._accepting(False)
                self._suspend()
            else:
                self.start()

    async def adopted(self) -> None:
        """Wait until every connection that was accepted has its transport, or is gone."""
        if self._adopting:
            await asyncio.wait(self._adopting)

    def ended(self) -> None:
        """A connection ended: go on if this worker had no slot left."""
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

    def _accept(self, listener: socket.socket) -> None:
        short = self._gate.rest_s() > 0.0
        for _ in range(ACCEPTS_PER_REST if short else ACCEPTS_PER_TURN):
            if self.count >= self._connections_max or self._gate.closed():
                self._make_room()
                self._accepting(False)  # nobody leaves connections to this one meanwhile
                self._pause(CLOSED_PAUSE_S, self.start)
                return
            if self._gate.holds():
                self._pause(HOLD_S, self._resume)
                return
            least = self._least_loaded()
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
        rest_s = self._gate.rest_s()
        if rest_s > 0.0:
            self._pause(rest_s, self._resume)

    def _make_room(self) -> None:
        """End the oldest connection of a proxy that has not named for whom.

        It is no guest, who would have to make room, and others wait for its place.
        """
        if not self._unannounced:
            return
        sock = next(iter(self._unannounced))
        proxy = self._unannounced.pop(sock)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        if self._may_tell("silent"):
            log.warning("proxy_silent", extra={"proxy": proxy})

    def _may_tell(self, kind: str) -> bool:
        """Tell whether a line of this kind may be logged: once a minute."""
        now_s = self._loop.time()
        if now_s < self._told_s.get(kind, -math.inf) + PROXY_TOLD_S:
            return False
        self._told_s[kind] = now_s
        return True

    def _take(
        self, sock: socket.socket, address: tuple[object, ...], *, exhausted: bool = False
    ) -> None:
        peer = str(address[0]) if sock.family != socket.AF_UNIX else UNIX
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
        """Use the descriptor that was kept, to tell one client that there are none."""
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
        """Read for whom a proxy connects; then it is a connection like any other."""
        try:
            async with asyncio.timeout(PROXY_HEADER_S):
                fixed = await self._read(sock, proxy_header.FIXED_BYTES)
                rest = await self._read(sock, proxy_header.rest_of(fixed))
            peer = proxy_header.source(fixed, rest) or proxy
        except (proxy_header.BadHeader, OSError, TimeoutError) as error:
            reason = str(error) or "it came too late"
            if not isinstance(error, _NothingSaid) and self._may_tell("refused"):
                log.warning("proxy_header_refused", extra={"proxy": proxy, "reason": reason})
            protocol = None
        else:
            protocol = None if self._stopped else self._gate.admit(peer, exhausted=exhausted)
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
                raise proxy_header.BadHeader("it ended") if data else _NothingSaid
            data += more
        return data

    async def _adopt(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError as error:
            sock.close()  # gone between accept and now
            protocol.connection_lost(error)


class _NothingSaid(proxy_header.BadHeader):
    """A connection without a byte: how a load balancer looks whether the port is open."""


class _Reserve:
    """A descriptor that is kept for when there are no others."""

    def __init__(self) -> None:
        self._fd = -1

    def keep(self) -> None:
        """Have one, if there is one."""
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give_up(self) -> bool:
        """Let others have it. False: there was none."""
        if self._fd < 0:
            return False
        os.close(self._fd)
        self._fd = -1
        return True
