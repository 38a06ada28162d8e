"""The unanswered sends of one client to one room, in order."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from relay import limits
from relay.chat.entries import Cursor
from relay.wire.codes import Survives

NOTHING: Final = Cursor(b"", 0)
"""The target of a plain message."""
RETRY_S_MIN: Final = 0.01
RETRY_S_MAX: Final = limits.RETRY_MS_MAX / 1000
"""Limit for the pause before a room's sends are repeated without progress, whatever the server
requests."""
ENVELOPE_OVERHEAD_BYTES: Final = 128
"""A SEND in addition to its body: counted for each message against the byte limit."""


def durability_name(number: int) -> str:
    """Return the durability in an acknowledgement, as a program sees it."""
    known = {int(one): one.name.lower() for one in Survives}
    return known.get(number, str(number))


class Outcome(NamedTuple):
    """The end of what was requested with a token: a send or a request."""

    token: object
    result: object
    """The result, or a ClientError."""


class Offer(NamedTuple):
    """What is to be appended to a log."""

    log: str
    """A room, or ``@`` and the recipient."""
    content_type: str
    body: bytes
    kind: int = 0
    about: Cursor = NOTHING
    """The position of the entry that it is about."""
    identity: bytes = b""
    """Of the room that is meant; empty: whichever has the name (``subscriptions``)."""


class PendingSend:
    """A message that is not acknowledged yet."""

    __slots__ = (
        "about", "body", "content_type", "counter", "identity", "kind", "log", "maybe_stored",
        "refused_at", "sent", "token", "unclear",
    )  # fmt: skip

    def __init__(self, counter: int, offer: Offer, token: object) -> None:
        self.counter = counter
        self.log, self.content_type, self.body, self.kind, self.about, self.identity = offer
        self.token = token
        self.sent = False
        """True once it was sent at least once."""
        self.maybe_stored = False
        """True once it was on a connection that ended without an answer."""
        self.unclear = False
        """True once its home was away when it should have answered: it may have been stored."""
        self.refused_at: float | None = None
        """When the server first answered "later"; None: it has not."""

    @property
    def size(self) -> int:
        """The size counted against the byte limit."""
        return len(self.body) + ENVELOPE_OVERHEAD_BYTES


class RoomSends:
    """The unacknowledged sends of one room, in order; or all that go to anybody's inbox.

    The latter are numbered together, by this account's own inbox, which takes the role of the room.
    """

    __slots__ = (
        "alone", "in_flight", "next_counter", "pauses", "pending", "postponed", "proven", "restart",
        "retry_at", "rewind", "room", "unsent",
    )  # fmt: skip

    def __init__(self, room: str, next_counter: int, supplied: bool) -> None:
        self.room = room
        self.next_counter = next_counter
        self.proven = not supplied
        """False until an ACK, if the program supplied the counter: an earlier run of it may have
        sent the same ids."""
        self.pending: dict[PendingSend, None] = {}
        """Without a final answer, in the order of the counters. A dict: each can be removed in
        constant time."""
        self.unsent: deque[PendingSend] = deque()
        """The tail of ``pending`` that was not sent on this connection."""
        self.in_flight: dict[int, PendingSend] = {}
        """Transmissions without an answer, by the counter they were sent with."""
        self.postponed = False
        """True from the first UNAVAILABLE until something is stored: reported once, not with each
        attempt."""
        self.alone = False
        """True from a final refusal until something is stored: one is sent at a time. Whatever
        follows one that is refused has to be sent again, and often the next one is refused, too: of
        200 messages of somebody who may no longer write, 20,000 would be sent."""
        self.rewind = False
        """True: what is pending is sent again, once nothing is in flight."""
        self.restart = False
        """True: with the rewind, numbering begins at 1."""
        self.retry_at = 0.0
        self.pauses = 0
        """Rewinds since a send of this room last ended."""

    @property
    def first(self) -> PendingSend | None:
        """The oldest one without a final answer."""
        return next(iter(self.pending), None)

    def renumber(self, start: int) -> None:
        """Assign consecutive counters, from ``start``, to everything that is pending."""
        for counter, send in enumerate(self.pending, start):
            send.counter = counter
        self.next_counter = start + len(self.pending)

    def go_back(self, now: float, wait_s: float) -> None:
        """Send what is pending again, in order, after a pause."""
        self.rewind = True
        self.retry_at = max(self.retry_at, now + min(max(wait_s, RETRY_S_MIN), RETRY_S_MAX))
