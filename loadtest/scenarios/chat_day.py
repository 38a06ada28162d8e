"""A day of chat: most people read, few write; messages come in bursts; people come and go.

Some conversations are between two people only. People react to what they have read, mark it as
read, and edit what they have written.
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
AMEND: Final = 0.2
"""React, edit, or mark as read."""
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
        elif kind < MOVE + LOOK_BACK + RESTART + LOSE + AMEND:
            self._amend()
        elif self.writes:
            self.room = chance.choice(self.rooms)
            heard = self.user.heard
            self.person = chance.choice(heard) if heard and chance.random() < WHISPER else ""
            self.burst_left = min(20, int(chance.expovariate(1.0 / BURST_MEAN)))
            self._speak()
            return
        user.pace(self.parameters.think_time)

    def _amend(self) -> None:
        user = self.user
        what = user.random.choice(("react", "edit", "mark"))
        if what == "edit" and user.own is not None:
            user.edit(user.own, self.size())
        elif what == "react" and self.writes and user.latest is not None:
            user.react(user.latest)
        elif what == "mark" and user.latest is not None:
            user.mark_read(user.latest)

    def _speak(self) -> None:
        size = self.size()
        if self.person:
            self.user.whisper(self.person, size)
        else:
            self.user.send_message(self.room, size)
        if self.burst_left:
            typing_s = min(size / TYPING_BYTES_PER_S, TYPING_S_MAX)
            self.user.pace(min(typing_s, self.parameters.think_time))
        else:
            self.user.pace(self.parameters.think_time)
