"""What a typed line means: a message, or a command. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from relay.terminal import room_commands
from relay.terminal.room_commands import Change

HISTORY_DEFAULT: Final = 20
HISTORY_MAX: Final = 1000
"""What one request for a page may ask for."""

HELP: Final = (
    "/who, /names  list who is here",
    f"/history [N]  show N messages (default {HISTORY_DEFAULT}) before the oldest one shown",
    *room_commands.HELP,
    "/help         show this list",
    "/quit         leave once everything is stored (also Ctrl-D); Ctrl-C leaves immediately",
    "//TEXT        send /TEXT as a message",
)


@dataclass(frozen=True, slots=True)
class Say:
    """Send this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Who:
    """Show who is in the room."""


@dataclass(frozen=True, slots=True)
class History:
    """Show so many earlier messages."""

    count: int


@dataclass(frozen=True, slots=True)
class Room:
    """Show how the room is."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """Show which rooms there are."""


@dataclass(frozen=True, slots=True)
class Help:
    """Show the commands."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """Nothing is sent; tell the person why."""

    reason: str


Command: TypeAlias = Say | Who | History | Room | Rooms | Change | Help | Quit | Mistake


def parse(line: str) -> Command:
    """Return what a line means. A line that begins with one slash is never sent."""
    if line.startswith("//"):
        return Say(line[1:])
    if not line.startswith("/"):
        return Say(line)
    word, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    match word:
        case "history":
            return _history(rest)
        case "who" | "names" | "room" | "list" | "help" | "quit" if rest:
            return Mistake(f"/{word} takes no arguments; not sent")
        case "who" | "names":
            return Who()
        case "room":
            return Room()
        case "topic" if not rest:
            return Room()
        case "list":
            return Rooms()
        case "help":
            return Help()
        case "quit":
            return Quit()
        case _:
            changed = room_commands.parse(word, rest)
            if isinstance(changed, str):
                return Mistake(changed)
            if changed is not None:
                return changed
            return Mistake(f"unknown command /{word}; not sent (/help lists the commands)")


def _history(rest: str) -> Command:
    if not rest:
        return History(HISTORY_DEFAULT)
    if rest.isascii() and rest.isdigit() and len(rest) <= 9 and 1 <= int(rest) <= HISTORY_MAX:
        return History(int(rest))
    return Mistake(f"/history takes a number from 1 to {HISTORY_MAX:,}; not sent")
