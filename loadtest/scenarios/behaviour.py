"""What a simulated user does: the part that scenarios share."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

from loadtest.parameters import Parameters
from loadtest.payload import payload_size
from loadtest.socket_watch import Network, WatchedSocket

if TYPE_CHECKING:
    from loadtest.user import RelayUser

ZIPF_EXPONENT: Final = 1.0
"""The n-th most popular room has 1/n of the first one's people."""


def room_name(number: int) -> str:
    """Return the name of a room, from 0."""
    return f"load-{number}"


def popular_rooms(chance: random.Random, rooms: int, count: int) -> list[str]:
    """Return ``count`` different rooms, each drawn by its popularity."""
    weights = [1.0 / (number + 1) ** ZIPF_EXPONENT for number in range(rooms)]
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        chosen[chance.choices(range(rooms), weights)[0]] = None
    return [room_name(number) for number in chosen]


class Behaviour:
    """What a user does. A scenario derives from it; ``turn`` does one thing and paces the next."""

    def __init__(self, user: RelayUser, parameters: Parameters, ordinal: int) -> None:
        """Take the user, what the run was told, and the user's number in this process."""
        self.user = user
        self.parameters = parameters
        self.ordinal = ordinal
        self.rooms: list[str] = []
        self.writes = user.random.random() < parameters.writers or ordinal == 0

    def prepare(self) -> None:
        """Change the user before it connects."""
        self.user.network = self.network()

    def dialled(self, watched: WatchedSocket) -> None:
        """Take each new connection before anything is sent on it."""

    def begin(self) -> None:
        """Join the first rooms; the user is connected."""
        self.rooms = self.choose()
        for room in self.rooms:
            self.user.join(room)
        self.user.due = time.monotonic()
        # The first doing comes at a random moment: a crowd that arrives together does not act so.
        self.user.pace(self.pause_s)

    def choose(self) -> list[str]:
        """Return the rooms to begin in: popular ones more likely."""
        told = self.parameters
        return popular_rooms(self.user.random, told.rooms, told.rooms_per_user)

    def network(self, bytes_per_s: float | None = None) -> Network:
        """Return this user's network: one of several source addresses, if so told."""
        count = self.parameters.sources
        source = f"127.0.0.{1 + self.ordinal % count}" if count > 1 else ""
        return Network(bytes_per_s=bytes_per_s, source=source)

    @property
    def pause_s(self) -> float:
        """Mean seconds between two actions."""
        return self.parameters.think_time

    def turn(self) -> None:
        """Do one thing and call ``user.pace``."""
        raise NotImplementedError

    def size(self) -> int:
        """Return the bytes of the next message."""
        return payload_size(self.parameters.payload, self.user.random)

    def move(self) -> None:
        """Leave a room for another one."""
        chance, told = self.user.random, self.parameters
        if told.rooms == told.rooms_per_user:
            return
        room = popular_rooms(chance, told.rooms, 1)[0]
        if room not in self.rooms:
            index = chance.randrange(len(self.rooms))
            self.user.leave(self.rooms[index])
            self.rooms[index] = room
            self.user.join(room)
