"""Revocations of devices: notifies all workers and tracks when all have acted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from relay.bus.messages import ITEMS_PER_MESSAGE, Revoke, Revoked

if TYPE_CHECKING:
    from relay.bus.link import Port


class Revocations:
    """Revocations that not all workers have confirmed."""

    def __init__(self, workers: Callable[[], Iterable[Port]]) -> None:
        """Create without revocations.

        Args:
            workers: returns the ports to all current workers, including this one.
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
        """Notify all workers; ``done`` is called later, once all live workers have confirmed.

        Args:
            handle: of the account.
            key_ids: of the devices, at least one.
            by_operator: True if an operator did it, not one of the account's devices.
            lifted: True if they are valid (again).
            done: called at the end.
        """
        assert 0 < len(key_ids) <= ITEMS_PER_MESSAGE, "an account has no more devices than that"
        self._count += 1
        ports = set(self._workers())
        self._open[self._count] = ports, done
        for port in list(ports):
            port.send(Revoke(self._count, handle, key_ids, by_operator, lifted))

    def confirmed(self, port: Port, message: Revoked) -> None:
        """A worker has confirmed."""
        self._settle(message.tag, port)

    def drop(self, port: Port) -> None:
        """A worker has died; its sessions reconnect and are then refused."""
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
