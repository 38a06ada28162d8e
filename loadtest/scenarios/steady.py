"""Users that stay in their rooms: writers send at random moments, at a given rate."""

from __future__ import annotations

from loadtest.scenarios.behaviour import Behaviour, room_name


class Steady(Behaviour):
    """Rooms by popularity; the load grows with the users and in no other way."""

    @property
    def pause_s(self) -> float:
        """Mean seconds between two messages."""
        return 1.0 / self.parameters.rate

    def turn(self) -> None:
        """Send, if this user writes."""
        if self.writes:
            self.user.send_message(self.user.random.choice(self.rooms), self.size())
        self.user.pace(self.pause_s)


class OneBigRoom(Steady):
    """Everybody is in one room: an announcement reaches all. Use few --writers."""

    def choose(self) -> list[str]:
        """Return the room."""
        return [room_name(0)]


class ManySmallRooms(Steady):
    """All rooms are equally popular, and small."""

    def choose(self) -> list[str]:
        """Return different rooms."""
        told, options = self.parameters, self.user.environment.parsed_options
        users = getattr(options, "num_users", None)
        rooms = told.rooms
        if told.room_size and users:
            rooms = max(told.rooms_per_user, users * told.rooms_per_user // told.room_size)
        return [room_name(n) for n in self.user.random.sample(range(rooms), told.rooms_per_user)]


class HistoryReaders(Steady):
    """Readers page back through their rooms, from the end to the beginning, again and again."""

    def begin(self) -> None:
        """Join, at the end of a room's history."""
        super().begin()
        self.room = self.rooms[0]
        self.before: int | None = None
        """Where the next page ends; None: at the head."""

    def turn(self) -> None:
        """Read a page; or send, so that there is something to read."""
        if self.writes:
            super().turn()
            return
        page = self.user.page(self.room, self.before)
        if page is None or page.end or not page.entries:
            self.room, self.before = self.user.random.choice(self.rooms), None
        else:
            self.before = page.next
        self.user.pace(self.pause_s)
