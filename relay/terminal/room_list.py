"""The rooms that a user may see, and whether the list is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.client.refusals import StoreDamaged

if TYPE_CHECKING:
    from relay.client.aio import Client
    from relay.client.room_calls import ListedRoom

MISSING: Final = (
    "rooms may be missing here: a part of what the server has stored is damaged, and its operator "
    "has to repair it"
)


async def listed_rooms(client: Client, *, mine: bool = False) -> tuple[list[ListedRoom], str]:
    """Return the result of ``client.rooms``, and a notice if rooms may be missing.

    Raises:
        ClientError: as ``client.rooms``.
    """
    try:
        return await client.rooms(mine=mine, whole=True), ""
    except StoreDamaged:
        return await client.rooms(mine=mine), MISSING
