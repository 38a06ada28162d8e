"""The rooms that a client follows on a connection: joining, leaving, and falling behind by oneself.

``subscriptions`` checks what comes of each room; ``event_queue`` holds what the application has not
taken yet. When that queue is full, the rooms are left until there is space again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from relay.client.event_queue import EventQueue
from relay.client.requests import Request, Requests
from relay.client.subscriptions import REJOINS_MAX, Subscription, Subscriptions
from relay.client.unverified import UnverifiedSenders
from relay.wire import envelopes as wire

if TYPE_CHECKING:
    from relay.chat.entries import Cursor

log: Final = logging.getLogger(__name__)


class FollowedRooms:
    """The rooms that a client follows, and the events of them that wait for the application."""

    def __init__(self, requests: Requests, unverified: UnverifiedSenders | None = None) -> None:
        self._requests = requests
        self.queue = EventQueue(unverified)
        self.subscriptions = Subscriptions()
        self.broken = ""
        """Why the connection must be given up; empty: it need not."""
        self.suspended = False
        """True: rooms are not followed just now, until the application has caught up. Only while
        the queue is full."""
        self.flush_due = False
        """True when space in the queue lets the client read on, or join again: nothing has come
        from the socket, so nothing else would make a pump write or read. Reset by
        ``ClientState.data_to_send``."""
        self.suspensions = 0
        """Times that rooms were left because the queue was full, for statistics."""
        self.rejoins = 0
        """Times that something was missing in a room, for statistics."""

    def online(self) -> list[Request]:
        """Begin on a new connection: return the joins that go on from the cursors."""
        self.suspended = self.queue.full
        return [] if self.suspended else list(map(_join_again, self.subscriptions.known()))

    def offline(self) -> None:
        """The connection is gone."""
        self.broken = ""
        self.suspended = False
        self.subscriptions.offline()

    def suspend(self) -> None:
        """Leave the rooms while the queue is full, so that awaited answers can still be read.

        Without it a program that sends and does not take its events would wait for ever: the
        acknowledgement is behind entries that nobody takes. Also when no room is joined at this
        moment: the answer to a join is awaited then, and must be read. A room that is joined
        meanwhile (for a WHO) is left again, or its entries would come without a bound.
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
        """The queue has space again: read on, and follow the rooms again."""
        self.flush_due = True
        if self.suspended:
            log.debug("events are taken again: back to the rooms")
            self.suspended = False
            for subscription in self.subscriptions.known():
                if not subscription.joined:
                    self.ask_join(subscription)

    def ask_leave(self, room: str) -> None:
        """Ask the server to stop sending a room, for the client's own reasons."""
        self._requests.forget_own(room)
        self._requests.ask(Request(room, lambda number: wire.Leave(number, room), None))

    def ask_join(self, subscription: Subscription) -> None:
        """Follow a room again from its cursor."""
        if self._requests.asks(subscription.join):
            return  # a second one would be refused, and end the subscription
        self._requests.forget_own(subscription.room)
        self._requests.ask(_join_again(subscription))

    def forget(self, room: str) -> Cursor | None:
        """Drop what was queued and asked for a room that is followed no more; return its cursor."""
        was_full = self.queue.full
        cursor = self.queue.forget(room)
        self._requests.forget_own(room)
        if was_full and not self.queue.full:
            self.resume()
        return cursor

    def rejoin(self, room: str) -> None:
        """Something is missing in a room: back to the cursor. Until JOINED nothing of it counts."""
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
