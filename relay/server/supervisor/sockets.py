"""The listening sockets of a server: bound, given by a service manager, or handed over."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self

from relay.server.supervisor import listener
from relay.server.supervisor.handover import Handover
from relay.server.supervisor.service_manager import GivenSockets

Lowered = Callable[[], AbstractContextManager[None]]
"""As the relay's user inside, if it has one."""


class Sockets:
    """For clients, and for whoever watches."""

    def __init__(self, given: GivenSockets) -> None:
        """Begin with those that a service manager gave, if it gave any."""
        self.clients = given.clients
        self.clients_kept = bool(given.clients)
        """They stay when the server ends."""
        self.control = given.control
        """None: metrics are read nowhere."""
        self.control_kept = given.control is not None

    @classmethod
    def handed_over(cls, handover: Handover) -> Self:
        """Return those of the server that this one takes over from."""
        clients = tuple(socket.socket(fileno=fd) for fd in handover.listeners)
        control = None if handover.control is None else socket.socket(fileno=handover.control)
        for sock in (*clients, *(() if control is None else (control,))):
            sock.setblocking(False)
        found = cls(GivenSockets(clients, control))
        found.clients_kept, found.control_kept = handover.listeners_kept, handover.control_kept
        return found

    def bind(self, binds: tuple[str, ...], control: str, lowered: Lowered) -> None:
        """Bind what was not given. Raises StartError."""
        self.clients = self.clients or listener.bind_all(binds)
        if self.control is None:
            with lowered():
                self.control = listener.bind_control(control)

    def close(self, lowered: Lowered, *, shared: bool) -> None:
        """Close all. ``shared``: another server has them, too, and their names stay."""
        for sock in self.clients:
            listener.close(sock, kept=shared or self.clients_kept)
        if self.control is not None:
            with lowered():
                listener.close(self.control, kept=shared or self.control_kept)
