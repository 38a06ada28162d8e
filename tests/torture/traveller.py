"""A client that reconnects repeatedly, also after kills, with raw connections.

The client library would repair some faults, or take them for network errors. Here they are seen:
whether a used ticket is accepted, and which list of devices is sent.
"""

from __future__ import annotations

import contextlib

from relay.wire.envelopes import Chain, Devices, Error
from relay.wire.tickets import ClientTicket
from tests.support.raw import RawClient

HOST = "127.0.0.1"
NAME = "traveller"


class Traveller:
    """See the module's docstring. A connection may fail during a kill: that proves nothing.

    Each call blocks.
    """

    def __init__(self, port: int, whose: str) -> None:
        """Begin without a ticket.

        Args:
            port: of the relay.
            whose: the user whose list of devices is read.
        """
        self._port = port
        self._whose = whose
        self._used: list[ClientTicket] = []
        self.twice = 0
        """How often a used ticket was accepted."""
        self.went_back: list[int] = []
        """Lengths of lists that were shorter than one that had been acknowledged before."""

    def visit(self, links: int) -> None:
        """Use a ticket and offer it again, and read the list, at any workers.

        Args:
            links: how many of the list are acknowledged.
        """
        with contextlib.suppress(OSError):
            with contextlib.closing(RawClient(HOST, self._port, NAME)) as one:
                ticket = one.ticket
                self._read_list(one, links)
            assert ticket is not None, "each login brings one"
            if self._is_good(ticket, links):
                self._used.append(ticket)
                self.twice += self._is_good(ticket, links)

    def come_after_a_kill(self, links: int) -> None:
        """Offer again what was used before it."""
        used, self._used = self._used, []
        for ticket in used:
            with contextlib.suppress(OSError):
                self.twice += self._is_good(ticket, links)

    def _is_good(self, ticket: ClientTicket, links: int) -> bool:
        again = RawClient(HOST, self._port, NAME, registered=True, ticket=ticket)
        with contextlib.closing(again):
            self._read_list(again, links)
            return again.resumed

    def _read_list(self, client: RawClient, links: int) -> None:
        client.send_envelopes(Devices(9, self._whose, 0))
        answer = client.wait(lambda one: isinstance(one, Chain | Error))
        if isinstance(answer, Chain) and answer.end and len(answer.links) < links:
            self.went_back.append(len(answer.links))
