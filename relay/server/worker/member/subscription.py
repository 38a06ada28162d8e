"""The position of a connection in a log that it follows, and what a feed uses of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from relay.chat.rooms.refusal import Refused
    from relay.chat.rooms.rights import Actor
    from relay.server.worker.delivery.outbox import Outbox


class Subscriber(Protocol):
    """The connection that a subscription belongs to, as used by feeds and catch-up."""

    @property
    def outbox(self) -> Outbox:
        """Its pending output."""

    @property
    def actor(self) -> Actor:
        """Its user."""

    def remove(self, log: str, refused: Refused) -> None:
        """Stop following a log, and tell the client why: it may no longer be read."""

    def fall_behind(self) -> None:
        """Leave the live set of all its logs: the client reads less than they deliver.

        Invariant "Falling behind".
        """

    def close(self, code: int, detail: str = "") -> None:
        """End the connection; the client resumes from its cursors."""


class Subscription:
    """The position of a connection in a log that it follows."""

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
        """True while it is in the catch-up queue."""
