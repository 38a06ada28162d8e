"""Passes each bus message to the function that handles it; tracks links."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay.bus.messages import Revoke, Revoked

if TYPE_CHECKING:
    from relay.bus.link import Link, Port
    from relay.bus.messages import Message
    from relay.server.worker.home.parts import HomeParts
    from relay.server.worker.member.parts import MemberParts
    from relay.server.worker.wakeup import Wakeup


class BusDispatcher:
    """Implements ``bus.link.LinkOwner``."""

    def __init__(self, home: HomeParts, member: MemberParts, wakeup: Wakeup) -> None:
        self._queues = home.queues
        self._partitions = home.partitions
        self._interest = home.interest
        self._from_members = home.from_members
        self._from_homes = member.from_homes
        self._attachment = member.attachment
        self._wakeup = wakeup
        self.handlers: Final[dict[type, Callable[[Port, Any], None]]] = (
            home.from_members.handlers | member.from_homes.handlers | {Revoke: self._revoke}
        )

    def _revoke(self, port: Port, message: Revoke) -> None:
        """Do what both roles of a worker must do before the account's home may answer "done"."""
        self._queues.revoke(message.handle, message.keys, lifted=message.lifted)
        self._from_homes.revoke(message)
        self._queues.running.after(lambda: port.send(Revoked(message.tag)))

    # --- LinkOwner ----------------------------------------------------------------------------
    def received(self, port: Port, message: Message) -> None:
        """A message has arrived from another worker."""
        handler = self.handlers.get(type(message))
        if handler is not None:  # an Introduction has been handled before
            handler(port, message)
            if not self._wakeup.scheduled:
                self._wakeup.request()

    def link_up(self, link: Link) -> None:
        """Attach the partitions whose home is there, and announce the end."""
        self._attachment.refresh()
        self._attachment.announce(link)

    def link_down(self, link: Link) -> None:
        """Remove the other worker's part of everything."""
        self._from_members.drop(link)
        self._attachment.refresh()
        self._wakeup.request()

    def heads_due(self, link: Link) -> None:
        """The link has room again: send the heads of logs with dropped publishes.

        Invariant "No silent tail".
        """
        self._interest.send(link, link.dropped, self._partitions.heads)
