"""Passes each bus message to the function that handles it; tracks links."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay.bus.messages import Revoke, Revoked

if TYPE_CHECKING:
    from relay.bus.link import Link, Port
    from relay.bus.messages import Message
    from relay.server.worker.home.home import Home
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.home.publishing import Interest
    from relay.server.worker.home.receive import FromMembers
    from relay.server.worker.member.attachment import Attachment
    from relay.server.worker.member.receive import FromHomes
    from relay.server.worker.wakeup import Wakeup


class BusDispatcher:
    """Implements ``bus.link.LinkOwner``."""

    def __init__(
        self,
        from_members: FromMembers,
        from_homes: FromHomes,
        attachment: Attachment,
        home: Home,
        partitions: OwnPartitions,
        interest: Interest,
        wakeup: Wakeup,
    ) -> None:
        self._from_members = from_members
        self._from_homes = from_homes
        self._attachment = attachment
        self._home = home
        self._partitions = partitions
        self._interest = interest
        self._wakeup = wakeup
        self.handlers: Final[dict[type, Callable[[Port, Any], None]]] = (
            from_members.handlers | from_homes.handlers | {Revoke: self._revoke}
        )

    def _revoke(self, port: Port, message: Revoke) -> None:
        """Do what both roles of a worker must do before the account's home may answer "done"."""
        self._home.revoke(message.handle, message.keys, lifted=message.lifted)
        self._from_homes.revoke(message)
        self._home.running.after(lambda: port.send(Revoked(message.tag)))

    # --- LinkOwner ----------------------------------------------------------------------------
    def received(self, port: Port, message: Message) -> None:
        """A message has arrived from another worker."""
        handler = self.handlers.get(type(message))
        if handler is not None:  # an Introduction has been handled before
            handler(port, message)
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
