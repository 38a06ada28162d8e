"""What commands choose about later lines: who reads them, and how long.

A choice that failed, or was mistyped, is *open*: lines that rely on it must not be sent.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from relay.chat import names


class Choice(NamedTuple):
    """One of them. The first field keeps names that users chose apart from everything else."""

    what: Literal["kind", "aim", "keep", "removal", "unknown"]
    name: str = ""
    """Who is removed (empty: nobody was named, or no valid name), or the unknown command."""

    @property
    def needed(self) -> str:
        """Why lines are held while it is open."""
        match self.what:
            case "kind":
                return "/public, /private or /announce has to choose first what the room is"
            case "aim":
                return "/query has to choose first whom it is for; without a name, the room"
            case "keep":
                return "/keep has to choose first how long messages are kept"
            case "removal":
                return f"/kick or /ban has to remove {self.name or 'somebody'} first"
            case "unknown":
                return f"/{self.name} is unknown, and may have been about who reads this"


KIND: Final = Choice("kind")
"""What ``/private``, ``/public`` and ``/announce`` choose."""
AIM: Final = Choice("aim")
"""What ``/query`` and ``/join`` choose: where lines are sent."""
KEEP: Final = Choice("keep")


def removal(typed: str) -> Choice:
    """Return what ``/kick`` and ``/ban`` of this person choose: that they read nothing more."""
    name = names.normal(typed.removeprefix(names.INBOX_PREFIX))
    return Choice("removal", name if names.is_handle(name) or names.is_guest(name) else "")


class OpenChoices:
    """Which choices are open, as of when a line was typed.

    The outcome of a command may be known only after later lines were typed, and lines wait. So
    everything has the number of its turn: a line is held by what was typed before it alone.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._marks: dict[Choice, list[tuple[int, bool]]] = {}
        """By choice: the turns of the commands that left it open (True) or made it (False)."""

    def turn(self) -> int:
        """Return the number of what is typed now."""
        self._turn += 1
        return self._turn

    def failed(self, choice: Choice, turn: int) -> None:
        """The command of this turn should have made a choice, and has not."""
        if choice.what == "unknown" and any(one.what == "unknown" for one in self.at(turn)):
            return  # nothing releases an unknown command, so the first one holds everything
        marks = self._marks.setdefault(choice, [])
        if not _is_open(marks, turn):
            insort(marks, (turn, True))

    def made(self, choice: Choice, turn: int) -> None:
        """The command of this turn has made a choice."""
        for each in answered(choice):
            if (marks := self._marks.get(each)) and _is_open(marks, turn):
                insort(marks, (turn, False))

    def clear(self) -> None:
        """No choice is open any more, whatever was typed."""
        self._marks.clear()

    def at(self, turn: int) -> Iterator[Choice]:
        """Yield what holds the line of this turn."""
        return (choice for choice, marks in self._marks.items() if _is_open(marks, turn))

    def hold(self, turn: int) -> bool:
        """Return True if something holds the line of this turn."""
        return any(True for _ in self.at(turn))


def answered(choice: Choice) -> tuple[Choice, ...]:
    """Return the choices that a command makes: a removal is also the one without a name."""
    return (choice, Choice("removal")) if choice.what == "removal" else (choice,)


def _is_open(marks: list[tuple[int, bool]], turn: int) -> bool:
    before = bisect_left(marks, (turn, False))
    return before > 0 and marks[before - 1][1]
