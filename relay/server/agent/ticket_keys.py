"""The keys that seal tickets: generated here, sent to the workers, kept in memory only.

The agent after this one, of this version or the next, opens with them what was sealed before, and
seals nothing more with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from relay import limits
from relay.secret import Secret
from relay.server.agent.protocol import (
    AgentProtocolError,
    ticket_keys_payload,
    unpack_ticket_keys,
)
from relay.wire.key_schedule import KEY_BYTES
from relay.wire.tickets import KEY_ID_BYTES, TicketKey

ROTATE_S: Final = 6 * 3600.0
"""Interval at which a new key is created."""
LIFETIME_S: Final = 2 * ROTATE_S
"""How long a key opens tickets: while it is the current key, and while it is the previous one."""
_FORMAT: Final = b"\1"
"""Of what is kept: another version takes over what it knows."""


def packed_keys(keys: Iterable[TicketKey]) -> bytes:
    """Return keys as they are kept for the agent after this one."""
    return _FORMAT + ticket_keys_payload(keys)


def unpacked_keys(kept: bytes, knows: Callable[[int], bool]) -> list[TicketKey]:
    """Return the keys that were kept: none if another version keeps them in another way.

    ``knows``: tells of a key's generation whether its tickets are recorded.
    """
    if not kept.startswith(_FORMAT):
        return []
    try:
        keys = unpack_ticket_keys(kept.removeprefix(_FORMAT))
    except AgentProtocolError:
        return []
    return [key for key in keys if knows(key.generation)]


class TicketKeyMaker:
    """Creates a key at first, and then whenever one is due."""

    def __init__(
        self,
        begin: Callable[[], int | None],
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
        keep: Callable[[list[TicketKey]], None] = lambda _: None,
        kept: Iterable[TicketKey] = (),
    ) -> None:
        """Begin without a key, or with those of the agent before.

        Args:
            begin: returns the generation of a new key; None: not now.
            random_bytes: source of keys.
            clock: monotonic seconds, the same in all processes.
            keep: told of all keys of use whenever there is a new one.
            kept: what ``keep`` was told of last.
        """
        self._begin = begin
        self._random_bytes = random_bytes
        self._clock = clock
        self._keep = keep
        self._due = clock()
        self.keys: list[TicketKey] = [*kept]
        """The valid keys, the newest last."""

    def rotate(self) -> bool:
        """Create a key if it is due. True: there is a new one."""
        now = self._clock()
        if now < self._due:
            return False
        generation = self._begin()
        if generation is None:
            return False
        self._due = now + ROTATE_S
        key = TicketKey(
            generation,
            self._random_bytes(KEY_ID_BYTES),
            Secret(self._random_bytes(KEY_BYTES)),
            now + LIFETIME_S,
        )
        fresh = [one for one in self.keys if one.expires > now]
        self.keys = [*fresh, key][-limits.TICKET_KEYS_MAX :]
        self._keep(self.keys)
        return True
