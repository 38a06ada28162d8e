"""Where the home of each partition is now, and how changes are handled.

The table in shared memory names the worker that owns a partition; a port to that worker may or may
not be up. A partition is *attached* while its port is up and everything that this worker has for it
has been sent. It is detached when the link ends, when the table changes, and when the other side
answers "not home". Then it is attached again, and everything is sent again (``attachment``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from relay.bus.link import Port
from relay.bus.messages import NotHome
from relay.chat.partition import PARTITIONS, partition_of

AWAY_S_MAX: Final = 5
"""How many seconds a partition may have no home before requests are answered with an error: longer
than it takes to replace a worker."""
NO_HOME: Final = "no process of the server serves it now"
NO_ANSWER: Final = "the process of the server that serves it does not answer"
Owner = tuple[int, int]
"""The owner of a partition according to the table: the slot, and the generation of its worker."""


class Routes:
    """The current port for each partition."""

    def __init__(
        self, own: Port, owner_of: Callable[[int], Owner], links: Mapping[int, Port]
    ) -> None:
        """Create with every partition detached.

        Args:
            own: the port to this worker's own home.
            owner_of: partition to (slot of the owner, its generation).
            links: ports that are up, by the slot of their worker.
        """
        self.own = own
        """The port to this worker's own home."""
        self.generation = own.generation
        """This worker's generation."""
        self._owner_of = owner_of
        self._links = links
        self.ports: list[Port | None] = [None] * PARTITIONS
        """By partition: the port to its home; None while there is none."""
        self._away_s = [0] * PARTITIONS

    def port_of(self, log: str) -> Port | None:
        """Return the port to a log's home; None while there is none."""
        return self.ports[partition_of(log)]

    def is_home(self, partition: int, port: Port) -> bool:
        """Return True if messages of the partition's home may come from this port."""
        return self.ports[partition] is port

    def on_not_home(self, port: Port, message: NotHome) -> None:
        """The other side is not the home, or not yet: ``refresh`` tries again."""
        if self.ports[message.partition] is port:
            self.ports[message.partition] = None

    def away(self) -> frozenset[int]:
        """Return the partitions that have had no home for long. Must be called once a second."""
        for partition, port in enumerate(self.ports):
            self._away_s[partition] = self._away_s[partition] + 1 if port is None else 0
        return frozenset(p for p, seconds in enumerate(self._away_s) if seconds > AWAY_S_MAX)

    @property
    def incomplete(self) -> bool:
        """True while a partition is not attached: ``refresh`` may find its home."""
        return None in self.ports

    def refresh(self) -> list[tuple[int, Port]]:
        """Read the table and the links again.

        Returns:
            (partition, port) of each that must be attached now.
        """
        found: list[tuple[int, Port]] = []
        for partition in range(PARTITIONS):
            port = self._find(partition)
            if port is self.ports[partition]:
                continue
            self.ports[partition] = port
            if port is not None:
                found.append((partition, port))
        return found

    def _find(self, partition: int) -> Port | None:
        worker, generation = self._owner_of(partition)
        if generation == self.generation:
            return self.own
        port = self._links.get(worker)
        if port is None or port.generation != generation:
            return None
        return port
