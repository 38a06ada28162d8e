"""Follows the supervisor's partition table: which partitions belong to this worker."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from relay.chat.partition import PARTITIONS
from relay.store.errors import NotTheWriter

if TYPE_CHECKING:
    from relay.server.scoreboard import Scoreboard
    from relay.server.worker.process.parts import WorkerParts
    from relay.server.worker.process.storage.stores import Stores

BOOT_LOCK_S: Final = 20.0
"""How long a new home waits for the locks of the previous one, which the kernel is ending."""
BOOT_LOOK_S: Final = 0.02


class Ownership:
    """Tracks this worker's partitions."""

    def __init__(
        self, scoreboard: Scoreboard, parts: WorkerParts, stores: Stores, *, replaces: bool
    ) -> None:
        """Create without reading the table.

        Args:
            scoreboard: contains the table.
            parts: of this worker.
            stores: opens partitions.
            replaces: True if it replaces a worker that has served: it then serves whatever it can.
        """
        self._replaces = replaces
        self._scoreboard = scoreboard
        self._parts = parts
        self._stores = stores
        self._version = -1
        self._owners = [scoreboard.owner(partition) for partition in range(PARTITIONS)]
        """Of all partitions, likewise."""
        self.own: set[int] = set()
        """This worker's partitions when the table was last read."""

    async def open(self) -> None:
        """Open this worker's partitions; their previous home may still be dying.

        Raises:
            StoreError: one cannot be opened.
        """
        partitions = self._parts.home.partitions
        deadline = time.monotonic() + BOOT_LOCK_S
        await self._stores.open_ahead(list(filter(partitions.owns, range(PARTITIONS))))
        while True:
            try:
                partitions.open_own(at_start=not self._replaces)
                break
            except NotTheWriter:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(BOOT_LOOK_S)
        self._stores.close_ahead()

    def look(self) -> None:
        """Read the table and act on changes."""
        version = self._scoreboard.table_version
        if version != self._version:
            first, self._version = self._version < 0, version
            self._changed(first)

    def _changed(self, first: bool) -> None:
        parts = self._parts
        own = {
            partition for partition in range(PARTITIONS) if parts.home.partitions.owns(partition)
        }
        if own - self.own and not first:
            parts.home.names.unsettle()
        for partition in self.own - own:
            parts.home.followers.forget_partition(partition)
            parts.home.names.forget_partition(partition)
            parts.home.rosters.forget_partition(partition)
        self.own = own
        before, owners = self._owners, list(map(self._scoreboard.owner, range(PARTITIONS)))
        self._owners = owners
        moved = {index for index in range(PARTITIONS) if owners[index] != before[index]}
        parts.home.queues.revoked.mark_unconfirmed(moved)
        parts.home.queues.operators.forget_all()
        parts.home.followers.refuse_others()
        parts.home.writer.give_up_others()
        parts.home.accounts.forget()
        parts.member.attachment.refresh()
