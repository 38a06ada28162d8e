"""The keys that seal tickets: generated here, pushed to the workers, in memory only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay import limits
from relay.secret import Secret
from relay.wire.key_schedule import KEY_BYTES
from relay.wire.tickets import KEY_ID_BYTES, TicketKey

ROTATE_S: Final = 6 * 3600.0
"""A new key is made so often."""
LIFETIME_S: Final = 2 * ROTATE_S
"""A key opens tickets for so long: while it is the current one, and while it was the last."""


class TicketKeyMaker:
    """Makes a key now, and another one whenever it is time."""

    def __init__(
        self,
        begin: Callable[[], int | None],
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """Begin without a key.

        Args:
            begin: returns the generation of a new key; None: not now.
            random_bytes: where keys come from.
            clock: monotonic seconds, the same in all processes.
        """
        self._begin = begin
        self._random_bytes = random_bytes
        self._clock = clock
        self._due = clock()
        self.keys: list[TicketKey] = []
        """Those that are of use, the newest last."""

    def rotate(self) -> bool:
        """Make a key if it is time. True: there is a new one."""
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
