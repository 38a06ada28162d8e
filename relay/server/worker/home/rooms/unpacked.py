"""A cache of the unpacked states of rooms: that of a large room takes milliseconds to unpack.

A state is found again by its bytes, not only by the room's name. So the cache need not be told of
anything: whatever happens to a log, another home, a deletion, a restored file, a room is only given
out for the very bytes that are stored now.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

from relay.chat.rooms import state as rooms

if TYPE_CHECKING:
    from relay.chat.rooms.state import Room

BYTES_MIN: Final = 2048
"""A smaller state, of about 25 people, is not remembered: it is unpacked in 0.2 ms."""
BYTES_MAX: Final = 2 * 1024 * 1024
"""Of all packed states, so at most 1024 of them, or about 20 of the largest rooms. Unpacked they
take about seven times as much."""
assert rooms.PACKED_BYTES_MAX <= BYTES_MAX


class UnpackedRooms:
    """See the module's docstring. The rules of the store may be called in threads."""

    def __init__(self) -> None:
        """Create an empty cache."""
        self._lock = Lock()
        self._found: dict[str, tuple[bytes, Room]] = {}
        """By name: the packed state and the room; the last used comes last."""
        self._bytes = 0

    def of(self, name: str, packed: bytes) -> Room:
        """Return the room in a packed state, as ``chat.rooms.state.unpack``.

        Raises:
            EnvelopeError: the bytes are invalid.
        """
        with self._lock:
            found = self._found.get(name)
            if found is not None and found[0] == packed:
                self._found[name] = self._found.pop(name)
                return found[1]
        room = rooms.unpack(packed)
        self.note(name, packed, room)
        return room

    def note(self, name: str, packed: bytes, room: Room) -> None:
        """Remember a room with its packed state, in place of an earlier state of that name."""
        with self._lock:
            self._drop(name)
            if len(packed) < BYTES_MIN:
                return
            self._found[name] = packed, room
            self._bytes += len(packed)
            while self._bytes > BYTES_MAX:
                self._drop(next(iter(self._found)))

    def _drop(self, name: str) -> None:
        found = self._found.pop(name, None)
        if found is not None:
            self._bytes -= len(found[0])
