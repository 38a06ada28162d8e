"""What a home may send to a worker with members: each message to the one function that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay.bus.messages import (
    Acks,
    Batch,
    Claimed,
    Event,
    Evict,
    Heads,
    Members,
    NotHome,
    Refused,
    Subscribed,
)
from relay.chat.partition import partition_of

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.claims import Claims
    from relay.server.worker.member.feeds import Feeds
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.member.queries import PendingQueries
    from relay.server.worker.member.routes import Routes


class FromHomes:
    """The messages of homes."""

    def __init__(
        self,
        routes: Routes,
        feeds: Feeds,
        forward: Forward,
        claims: Claims,
        queries: PendingQueries,
    ) -> None:
        self._routes = routes
        self._feeds = feeds
        # The values take the message type of their key; a dict cannot say that.
        self.handlers: Final[dict[type, Callable[[Port, Any], None]]] = {
            Acks: lambda _, message: forward.on_acks(message),
            Refused: lambda _, message: forward.on_refused(message),
            Batch: lambda _, message: feeds.on_batch(message),
            Event: lambda _, message: feeds.on_event(message),
            Subscribed: lambda port, m: self._on_head(port, m.log, m.epoch, m.seq),
            Heads: self._on_heads,
            Claimed: lambda _, message: claims.on_claimed(message),
            Evict: lambda _, message: claims.on_evict(message),
            Members: lambda _, message: queries.on_members(message),
            NotHome: lambda port, message: routes.lost(message.partition, port),
        }

    def _on_head(self, port: Port, log: str, epoch: bytes, seq: int) -> None:
        if self._routes.is_home(partition_of(log), port):
            self._feeds.on_head(log, epoch, seq)

    def _on_heads(self, port: Port, message: Heads) -> None:
        for log, epoch, seq in message.heads:
            assert isinstance(log, str)
            assert isinstance(epoch, bytes)
            assert isinstance(seq, int)
            self._on_head(port, log, epoch, seq)
