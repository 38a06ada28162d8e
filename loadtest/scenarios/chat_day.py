"""A day of chat: most people read, few write; talk comes in bursts; people come and go.

Some of the talk is between two people alone.
"""

from __future__ import annotations

from typing import Final

from loadtest.scenarios.behaviour import Behaviour

BURST_MEAN: Final = 4.0
"""Messages of one burst of talk."""
TYPING_BYTES_PER_S: Final = 7.0
TYPING_S_MAX: Final = 8.0
MOVE: Final = 0.05
"""Share of a user's actions: change one room for another."""
LOOK_BACK: Final = 0.05
RESTART: Final = 0.02
LOSE: Final = 0.02
WHISPER: Final = 0.15
"""Share of the bursts that go to one person, whom the user has heard somewhere."""


class ChatDay(Behaviour):
    """See the module's docstring."""

    def begin(self) -> None:
        """Join some rooms, the popular ones more likely."""
        super().begin()
        self.user.join(f"@{self.user.handle}")
        self.burst_left = 0
        self.room = ""
        self.person = ""
        """To whom the burst goes, if it goes to one person alone."""

    def turn(self) -> None:
        """Do one thing, and mean the next one."""
        user, chance = self.user, self.user.random
        if self.burst_left:
            self.burst_left -= 1
            self._speak()
            return
        kind = chance.random()
        if kind < MOVE:
            self.move()
        elif kind < MOVE + LOOK_BACK:
            user.page(chance.choice(self.rooms))
        elif kind < MOVE + LOOK_BACK + RESTART:
            user.reconnect()
        elif kind < MOVE + LOOK_BACK + RESTART + LOSE:
            user.cut()
        elif self.writes:
            self.room = chance.choice(self.rooms)
            heard = self.user.heard
            self.person = chance.choice(heard) if heard and chance.random() < WHISPER else ""
            self.burst_left = min(20, int(chance.expovariate(1.0 / BURST_MEAN)))
            self._speak()
            return
        user.pace(self.parameters.think_time)

    def _speak(self) -> None:
        size = self.size()
        if self.person:
            self.user.whisper(self.person, size)
        else:
            self.user.say(self.room, size)
        if self.burst_left:
            self.user.pace(min(size / TYPING_BYTES_PER_S, TYPING_S_MAX))
        else:
            self.user.pace(self.parameters.think_time)
