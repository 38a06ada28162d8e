"""The listening sockets of a server: bound, given by a service manager, or handed over.

A Unix-domain socket's name may be removed by somebody: clients can then no longer connect, and a
socket cannot be given a name again. A new one is bound in its place, for the processes started from
then on.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Self

from relay.errors import StartError
from relay.local_sockets import inode_of
from relay.server.privileges import as_owner_of
from relay.server.supervisor import listener
from relay.server.supervisor.handover import Handover
from relay.server.supervisor.service_manager import GivenSockets

AGAIN_S: Final = 30.0
log = logging.getLogger("relay.supervisor")
Lowered = Callable[[], AbstractContextManager[None]]
"""Within the context: the relay's user, if it has one."""


class Sockets:
    """The sockets for clients, and for metrics."""

    def __init__(self, given: GivenSockets, clock: Callable[[], float] = time.monotonic) -> None:
        """Create with the sockets given by a service manager, if any."""
        self._clock = clock
        self.clients = given.clients
        self.clients_kept = bool(given.clients)
        """True if they stay when the server ends."""
        self.control = given.control
        """None: metrics are not served."""
        self.control_kept = given.control is not None
        self._names: dict[Path, tuple[int, int] | None] = {}
        """Names of Unix-domain sockets that we bound: what was at their path at that time."""
        self._again_s: dict[Path, float] = {}
        """By path: when to retry binding a socket after a failure."""

    @classmethod
    def handed_over(cls, handover: Handover) -> Self:
        """Return those of the server that this one takes over from."""
        clients = tuple(socket.socket(fileno=fd) for fd in handover.listeners)
        control = None if handover.control is None else socket.socket(fileno=handover.control)
        for sock in (*clients, *(() if control is None else (control,))):
            sock.setblocking(False)
        found = cls(GivenSockets(clients, control))
        found.clients_kept, found.control_kept = handover.listeners_kept, handover.control_kept
        found._note_names()
        return found

    def bind(self, binds: tuple[str, ...], control: str, lowered: Lowered) -> None:
        """Bind what was not given. Raises StartError."""
        self.clients = self.clients or listener.bind_all(binds)
        if self.control is None:
            with lowered():
                self.control = listener.bind_control(control)
        self._note_names()

    def renew_clients(self) -> bool:
        """Bind sockets again that have lost their names; return True if there were any."""
        if self.clients_kept:
            return False
        now = [self._renewed(sock) for sock in self.clients]
        before, self.clients = self.clients, tuple(now)
        return before != self.clients

    def renew_control(self) -> bool:
        """The same for the socket for metrics."""
        before = self.control
        if before is None or self.control_kept:
            return False
        self.control = self._renewed(before)
        return self.control is not before

    def _renewed(self, sock: socket.socket) -> socket.socket:
        """Return the socket to listen on from now on."""
        path = listener.path_of(sock)
        if path is None or not self._is_nameless(sock):
            return sock
        if self._clock() < self._again_s.get(path, -math.inf):
            return sock
        try:
            with as_owner_of(path.parent):  # a compromised worker may put a link there
                new = listener.bind_unix(path)
        except (StartError, OSError) as error:  # this root may not become that owner
            self._again_s[path] = self._clock() + AGAIN_S
            log.warning("listener_failed", extra={"path": str(path), "reason": str(error)})
            return sock
        sock.close()  # processes that have it still serve the connections waiting there
        self._note_name(new)
        log.warning("listener_replaced", extra={"path": str(path)})
        return new

    def _is_nameless(self, sock: socket.socket) -> bool:
        """Return True if a socket had a path that no longer leads to it."""
        path = listener.path_of(sock)
        if path is None:
            return False
        found = inode_of(path)
        return found is None or found != self._names.get(path)

    def _note_names(self) -> None:
        for sock in self.clients:
            self._note_name(sock)
        if self.control is not None:
            self._note_name(self.control)

    def _note_name(self, sock: socket.socket) -> None:
        path = listener.path_of(sock)
        if path is not None:
            self._names[path] = inode_of(path)

    def close(self, lowered: Lowered, *, shared: bool) -> None:
        """Close all. ``shared``: another server has them, too, and their names stay."""
        for sock in self.clients:
            listener.close(sock, kept=shared or self.clients_kept or self._is_nameless(sock))
        if self.control is not None:
            with lowered():
                nameless = self._is_nameless(self.control)
                listener.close(self.control, kept=shared or self.control_kept or nameless)
