"""Telling every worker that devices are none any more, and knowing when all have acted on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from relay.bus.messages import ITEMS_PER_MESSAGE, Revoke, Revoked

if TYPE_CHECKING:
    from relay.bus.link import Port


class Revocations:
    """Those that not all workers have confirmed."""

    def __init__(self, workers: Callable[[], Iterable[Port]]) -> None:
        """Begin with none.

        Args:
            workers: ports to all workers there are now, this one included.
        """
        self._workers = workers
        self._count = 0
        self._open: dict[int, tuple[set[Port], Callable[[], None]]] = {}

    def start(
        self,
        handle: str,
        key_ids: list[bytes],
        *,
        by_operator: bool,
        lifted: bool,
        done: Callable[[], None],
    ) -> None:
        """Tell all workers; ``done`` is called, later, once all that live have confirmed.

        Args:
            handle: of the account.
            key_ids: of the devices; one at least.
            by_operator: an operator has done it, not one of the devices.
            lifted: they are devices (again).
            done: what follows.
        """
        assert 0 < len(key_ids) <= ITEMS_PER_MESSAGE, "an account has no more devices than that"
        self._count += 1
        ports = set(self._workers())
        self._open[self._count] = ports, done
        for port in list(ports):
            port.send(Revoke(self._count, handle, key_ids, by_operator, lifted))

    def confirmed(self, port: Port, message: Revoked) -> None:
        """A worker has done it."""
        self._settle(message.tag, port)

    def drop(self, port: Port) -> None:
        """A worker is gone; what it held is reported anew, and refused then."""
        for tag in list(self._open):
            self._settle(tag, port)

    def _settle(self, tag: int, port: Port) -> None:
        found = self._open.get(tag)
        if found is None:
            return
        ports, done = found
        ports.discard(port)
        if not ports:
            del self._open[tag]
            done()
