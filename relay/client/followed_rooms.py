"""The rooms that a client follows on a connection: joining, leaving, and suspending them.

``subscriptions`` checks what arrives for each room; ``event_queue`` holds what the application has
not taken yet. When that queue is full, the rooms are left until there is space again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from relay.client.devices.unverified import UnverifiedSenders
from relay.client.event_queue import EventQueue
from relay.client.requests import Request, Requests
from relay.client.subscriptions import REJOINS_MAX, Subscription, Subscriptions
from relay.wire import envelopes as wire

if TYPE_CHECKING:
    from relay.chat.entries import Cursor

log: Final = logging.getLogger(__name__)


class FollowedRooms:
    """The rooms that a client follows, and their events that wait for the application."""

    def __init__(self, requests: Requests, unverified: UnverifiedSenders | None = None) -> None:
        self._requests = requests
        self.queue = EventQueue(unverified)
        self.subscriptions = Subscriptions()
        self.broken = ""
        """Why the connection must be given up; empty: it need not."""
        self.suspended = False
        """True: rooms are temporarily not followed, until the application has caught up. Only while
        the queue is full."""
        self.flush_due = False
        """True if space in the queue lets the client continue reading, or join again. Nothing has
        arrived from the socket, so nothing else would cause a pump to write or read. Reset by
        ``ClientState.data_to_send``."""
        self.suspensions = 0
        """How often rooms were left because the queue was full, for statistics."""
        self.rejoins = 0
        """How often entries were missing in a room, for statistics."""

    def online(self) -> list[Request]:
        """Start on a new connection: return the joins that continue from the cursors."""
        self.suspended = self.queue.full
        return [] if self.suspended else list(map(_join_again, self.subscriptions.known()))

    def offline(self) -> None:
        """The connection has ended."""
        self.broken = ""
        self.suspended = False
        self.subscriptions.offline()

    def suspend(self) -> None:
        """Leave the rooms while the queue is full, so that awaited answers can still be read.

        Otherwise a program that sends and does not take its events would wait for ever: the
        acknowledgement comes after entries that nobody takes. This also applies if no room is
        joined at present: then the answer to a join is awaited, and must be read. A room that is
        joined meanwhile (for a WHO) is left again, or its entries would arrive without limit.
        """
        if not self.suspended:
            log.debug("events are not taken: leaving the rooms until they are")
            self.suspended = True
            self.suspensions += 1
        for subscription in self.subscriptions.known():
            if subscription.joined:
                subscription.joined = False
                self.ask_leave(subscription.room)

    def resume(self) -> None:
        """The queue has space again: continue reading, and follow the rooms again."""
        self.flush_due = True
        if self.suspended:
            log.debug("events are taken again: back to the rooms")
            self.suspended = False
            for subscription in self.subscriptions.known():
                if not subscription.joined:
                    self.ask_join(subscription)

    def ask_leave(self, room: str) -> None:
        """Ask the server to stop sending a room, at the client's own initiative."""
        self._requests.forget_own(room)
        self._requests.ask(Request(room, lambda number: wire.Leave(number, room), None))

    def ask_join(self, subscription: Subscription) -> None:
        """Follow a room again from its cursor."""
        if self._requests.asks(subscription.join):
            return  # a second join would be refused, and end the subscription
        self._requests.forget_own(subscription.room)
        self._requests.ask(_join_again(subscription))

    def forget(self, room: str) -> Cursor | None:
        """Drop the events and requests of a room that is no longer followed; return its cursor."""
        was_full = self.queue.full
        cursor = self.queue.forget(room)
        self._requests.forget_own(room)
        if was_full and not self.queue.full:
            self.resume()
        return cursor

    def rejoin(self, room: str) -> None:
        """Entries are missing in a room: return to the cursor.

        Until JOINED its entries are ignored.
        """
        subscription = self.subscriptions.get(room)
        assert subscription is not None
        subscription.joined = False
        subscription.rejoins += 1
        self.rejoins += 1
        log.debug("messages of %s are missing: joining it again", room)
        if subscription.rejoins > REJOINS_MAX:
            self.broken = f"entries of {room} are missing, again and again"
            return
        self.ask_leave(room)
        self._requests.ask(_join_again(subscription))


def _join_again(subscription: Subscription) -> Request:
    return Request(subscription.room, subscription.join, None)
