"""Dispatches messages from homes to the parts of a worker with members."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay.bus.messages import (
    Acks,
    Answered,
    Batch,
    Claimed,
    Event,
    Evict,
    Heads,
    Members,
    NotFollowed,
    NotHome,
    Refused,
    Revoke,
    Subscribed,
    Tell,
)
from relay.chat.partition import partition_of
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.claims import Claims
    from relay.server.worker.member.feed import Feeds
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.member.queries import PendingQueries
    from relay.server.worker.member.routes import Routes


class FromHomes:
    """Handles messages from homes."""

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
        self._forward = forward
        self._claims = claims
        # The values take the message type of their key; a dict's type cannot express that.
        self.handlers: Final[dict[type, Callable[[Port, Any], None]]] = {
            Acks: forward.on_acks,
            Refused: forward.on_refused,
            Batch: feeds.on_batch,
            Event: feeds.on_event,
            Subscribed: lambda port, m: self._on_head(port, m.log, m.epoch, m.seq, m.state),
            NotFollowed: self._on_not_followed,
            Heads: self._on_heads,
            Claimed: claims.on_claimed,
            Evict: claims.on_evict,
            Tell: claims.on_tell,
            Members: queries.on_members,
            Answered: queries.on_answered,
            NotHome: routes.on_not_home,
        }

    def _on_head(self, port: Port, log: str, epoch: bytes, seq: int, state: bytes = b"") -> None:
        """Handle a head. ``state``: the log's rights, if this answers a SUBSCRIBE."""
        if self._routes.is_home(partition_of(log), port):
            self._feeds.on_head(log, epoch, seq, state)

    def _on_not_followed(self, port: Port, message: NotFollowed) -> None:
        if self._routes.is_home(partition_of(message.log), port):
            self._feeds.on_not_followed(message)

    def _on_heads(self, port: Port, message: Heads) -> None:
        for log, epoch, seq in message.heads:
            assert isinstance(log, str)
            assert isinstance(epoch, bytes)
            assert isinstance(seq, int)
            feed = self._feeds.by_log.get(log)
            if feed is not None and feed.known:  # otherwise it was sent before this feed subscribed
                self._on_head(port, log, epoch, seq)

    def revoke(self, message: Revoke) -> None:
        """End the sessions of removed devices, and drop what they have sent."""
        if not message.lifted:
            code = CloseCode.KICKED if message.by_operator else CloseCode.REVOKED
            self._claims.revoke(message.handle, message.keys, code)
            self._forward.drop(message.handle, message.keys)
