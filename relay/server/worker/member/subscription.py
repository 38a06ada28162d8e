"""One connection's place in one log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from relay.chat.rooms.refusal import Refused
    from relay.chat.rooms.rights import Actor
    from relay.server.worker.delivery.outbox import Outbox


class Subscriber(Protocol):
    """The connection that a subscription belongs to, as feeds and catch-up need it."""

    @property
    def outbox(self) -> Outbox:
        """What it is owed."""

    @property
    def actor(self) -> Actor:
        """Who it is."""

    def remove(self, log: str, refused: Refused) -> None:
        """Follow a log no more, and tell the client why: it may not be read any more."""

    def fall_behind(self) -> None:
        """Leave live in all its logs: it takes less than they bring.

        Invariant "Falling behind".
        """

    def close(self, code: int, detail: str = "") -> None:
        """End the connection; the client resumes from its cursors."""


class Subscription:
    """Where a connection stands in a log that it follows."""

    __slots__ = ("live", "outbox", "queued", "seq", "subscriber")

    def __init__(self, subscriber: Subscriber, seq: int) -> None:
        self.subscriber = subscriber
        self.outbox = subscriber.outbox
        self.seq = seq
        """The cursor, kept only while not live (invariant "Falling behind": cursors cost nothing
        while live).
        """
        self.live = False
        self.queued = False
        """True while the catch-up queue holds it."""
