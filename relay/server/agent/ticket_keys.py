"""The keys that seal tickets: generated here, sent to the workers, kept in memory only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay import limits
from relay.secret import Secret
from relay.wire.key_schedule import KEY_BYTES
from relay.wire.tickets import KEY_ID_BYTES, TicketKey

ROTATE_S: Final = 6 * 3600.0
"""Interval at which a new key is created."""
LIFETIME_S: Final = 2 * ROTATE_S
"""How long a key opens tickets: while it is the current key, and while it is the previous one."""


class TicketKeyMaker:
    """Creates a key at first, and then whenever one is due."""

    def __init__(
        self,
        begin: Callable[[], int | None],
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """Create without a key.

        Args:
            begin: returns the generation of a new key; None: not now.
            random_bytes: source of keys.
            clock: monotonic seconds, the same in all processes.
        """
        self._begin = begin
        self._random_bytes = random_bytes
        self._clock = clock
        self._due = clock()
        self.keys: list[TicketKey] = []
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
        return True
