"""Who may send what concerns which partition to this home: see ``bus.messages.Attach``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.bus.messages import NotHome
from relay.chat.partition import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.bus.link import Port


class Attached:
    """The workers with members that are attached, by partition."""

    def __init__(self, owns: Callable[[int], bool]) -> None:
        """Begin with nobody. ``owns`` tells whether a partition is this worker's."""
        self.owns = owns
        self._attached: set[tuple[Port, int]] = set()

    def has(self, port: Port, log: str) -> bool:
        """Tell whether a worker may send what concerns a log.

        Otherwise it was sent before the peer processed NOT_HOME; it is sent again after ATTACH.
        """
        return (port, partition_of(log)) in self._attached

    def attach(self, port: Port, partition: int) -> None:
        """Take what a worker sends about a partition from now on, or answer NOT_HOME."""
        if self.owns(partition):
            self._attached.add((port, partition))
        else:
            port.send(NotHome(partition))

    def refuse(self, port: Port, partition: int) -> None:
        """Answer that this is not the home of a partition, or cannot be it now."""
        self._attached.discard((port, partition))
        port.send(NotHome(partition))

    def refuse_others(self) -> None:
        """The table has changed: this is not the home any more of what others own."""
        for port, partition in list(self._attached):
            if not self.owns(partition):
                self.refuse(port, partition)

    def drop(self, port: Port) -> None:
        """A worker is gone."""
        self._attached = {attached for attached in self._attached if attached[0] is not port}
