"""The names of this worker's sessions, as claimed from the names' homes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.bus.messages import Claim, Claimed, Evict, Release
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.server.worker.member.reply import Reply

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.routes import Routes


class NameClaim:
    """One session's claim of a name, from HELLO to the session's end."""

    __slots__ = ("granted", "name", "on_replaced", "reply", "secret", "since_us", "tag")

    def __init__(
        self, tag: int, name: str, secret: bytes, since_us: int, on_replaced: Callable[[], None]
    ) -> None:
        self.tag = tag
        self.name = name
        self.secret = secret
        self.since_us = since_us
        self.on_replaced = on_replaced
        self.granted = False
        self.reply: Reply[bool] = Reply()
        """Whether the name is granted."""


class Claims:
    """Claims by tag. A name has its home where its inbox would be."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._claims: dict[int, NameClaim] = {}
        self._count = 0

    def claim(
        self, name: str, secret: bytes, since_us: int, on_replaced: Callable[[], None]
    ) -> NameClaim:
        """Ask for a name. Await ``reply`` of what is returned; ``release`` it in the end.

        Args:
            name: a legal handle.
            secret: the instance's.
            since_us: when the session's connection was accepted, see ``bus.messages.Claim``.
            on_replaced: called when the name was granted, and the same client instance has
                connected again, here or on another worker.
        """
        self._count += 1
        claim = NameClaim(self._count, name, secret, since_us, on_replaced)
        self._claims[claim.tag] = claim
        port = self._routes.port_of(INBOX_PREFIX + name)
        if port is not None:
            port.send(Claim(claim.tag, name, secret, False, since_us))
        return claim

    def release(self, claim: NameClaim) -> None:
        """A session has ended, whether its claim was answered or not."""
        if self._claims.pop(claim.tag, None) is None:
            return  # refused or replaced: the home has forgotten it already
        port = self._routes.port_of(INBOX_PREFIX + claim.name)
        if port is not None:
            port.send(Release(claim.tag, claim.name))

    def attach(self, partition: int, port: Port) -> None:
        """A home is there (again): tell what is held, and ask again for what is not answered."""
        for claim in list(self._claims.values()):
            if partition_of(INBOX_PREFIX + claim.name) == partition:
                port.send(Claim(claim.tag, claim.name, claim.secret, claim.granted, claim.since_us))

    def on_claimed(self, _: Port, message: Claimed) -> None:
        """Take a home's answer."""
        claim = self._claims.get(message.tag)
        if claim is None:
            return
        if not message.granted:
            del self._claims[message.tag]
            if claim.granted or message.replaced:
                # Another instance came first after a home's death; or this is a ghost.
                claim.on_replaced()
            else:
                claim.reply.resolve(False)
        elif not claim.granted:
            claim.granted = True
            claim.reply.resolve(True)

    def on_evict(self, _: Port, message: Evict) -> None:
        """The same instance has come back elsewhere: this one is its ghost."""
        claim = self._claims.pop(message.tag, None)
        if claim is not None:
            claim.on_replaced()
