"""Removes the roles that removed accounts have in rooms.

Retention finds such an account again and again while it erases the inbox, so nothing is lost when a
worker dies. Each room's home decides, as for any other change of the room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.chat.partition import PARTITIONS
from relay.chat.rooms import requests
from relay.chat.rooms.rights import Actor
from relay.store.errors import StoreCorrupt

if TYPE_CHECKING:
    from relay.store.log import Reader

ROOMS_AT_A_TIME: Final = 100
DONE_MAX: Final = 65_536


class Departures:
    """Ends the roles of removed accounts."""

    def __init__(
        self,
        reader_at: Callable[[int], Reader],
        ask: Callable[[str, Actor, bytes, bytes], object],
    ) -> None:
        """Create without handles.

        Args:
            reader_at: returns the reader of a partition.
            ask: sends a request to the home of a room: its name, the actor, the device, the packed
                request. The outcome shows in the next pass.
        """
        self._reader_at = reader_at
        self._ask = ask
        self._done: set[str] = set()
        """Handles that had no role left in the last pass."""

    async def end(self, handle: str) -> None:
        """Request the end of all roles of a handle, which is never assigned again.

        Raises:
            StoreError: a partition cannot be read.
        """
        if handle in self._done:
            return
        asked = 0
        for index in range(PARTITIONS):
            try:
                found = self._reader_at(index).memberships_of_all(handle, ROOMS_AT_A_TIME)
            except StoreCorrupt:  # continue with the other partitions
                asked += 1
                continue
            content = requests.pack(requests.Depart(), requests.ANYTHING_SEEN)
            for room, root in found:
                self._ask(room, Actor(handle, root), b"", content)
            asked += len(found)
            await asyncio.sleep(0)  # yield: there may be many such accounts
        if not asked:
            if len(self._done) >= DONE_MAX:
                self._done.clear()
            self._done.add(handle)
