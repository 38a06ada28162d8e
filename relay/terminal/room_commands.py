"""The commands that change a room: parsed into arguments for ``Client.change_room``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from relay.chat.names import normal
from relay.client.room_calls import RoomAction, RoomKind, RoomRole
from relay.terminal.choices import KEEP, KIND, Choice, removal

HELP: Final = (
    "/topic TEXT   set the topic of the room",
    "/invite NAME, /kick NAME [WHY]   invite somebody, remove somebody",
    "/ban NAME [TIME] [WHY], /unban NAME   ban somebody",
    "/mute NAME [TIME] [WHY], /unmute NAME   stop somebody from writing",
    "              TIME is like 30s, 10m, 2h or 7d; without it, for good",
    "/op NAME, /deop NAME   make a moderator, or a member again; /owner NAME",
    "/private, /public, /announce, /close, /open   who may read and write",
    "/member, /nomember   become a permanent member, or stop being one",
    "/keep 30d 1000 1G ROOM   keep messages of 30 days, 1000 messages, 1 GiB;",
    "              others are removed for good; ROOM is this room's name",
    "/keep default   keep messages as the server's settings say",
    "/redact N [WHY]   erase message N (/numbers), others' too if you moderate",
    "/delete ROOM   delete this room for good, with all messages; ROOM: its name",
)
_TIME: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ALONE: Final[dict[str, RoomAction]] = {
    "close": "close",
    "open": "reopen",
    "member": "enter",
    "nomember": "leave",
}
_KINDS: Final[dict[str, RoomKind]] = {
    "private": "private",
    "public": "public",
    "announce": "announce",
}
_ROLES: Final[dict[str, RoomRole]] = {"op": "moderator", "deop": "member", "owner": "owner"}
_PERSONS: Final[dict[str, RoomAction]] = {
    "invite": "invite",
    "kick": "kick",
    "ban": "ban",
    "unban": "unban",
    "mute": "mute",
    "unmute": "unmute",
}
_SIZE: Final = re.compile(r"([0-9]{1,9})([KMGT])")
_SHIFTS: Final = {"K": 10, "M": 20, "G": 30, "T": 40}
_KEEP_TAKES: Final = (
    "/keep takes a time (30d), a number or a size (100M), and the room's name; or default; not sent"
)
_TIMES: Final = (
    "invalid time {time}: /{word} takes 30s, 10m, 2h or 7d (or none, for good), then a reason that"
    " does not begin with a digit; not sent"
)
_WITH_REASON: Final = frozenset({"kick", "ban", "mute"})
_WITH_TIME: Final = frozenset({"ban", "mute"})


@dataclass(frozen=True, slots=True)
class Change:
    """Change the room."""

    action: RoomAction
    person: str | None = None
    text: str = ""
    seconds: int = 0
    kind: RoomKind | None = None
    role: RoomRole | None = None
    seq: int = 0
    keep: tuple[int, int, int] = (0, 0, 0)

    @property
    def narrows(self) -> bool:
        """Whether fewer people read or write in the room afterwards, or read it less long."""
        return (
            self.kind in ("private", "announce")
            or self.action in ("kick", "ban")
            or (self.action == "keep" and any(self.keep))
        )

    @property
    def chooses(self) -> Choice | None:
        """What is chosen: another command may choose it again, such as ``/public``."""
        if self.kind is not None:
            return KIND
        if self.action in ("kick", "ban"):
            return removal(self.person or "")
        return KEEP if self.action == "keep" else None

    @property
    def says(self) -> bool:
        """Whether others read something that the user has written, or are called in."""
        return bool(self.text) or self.action == "invite"


def size_of(text: str) -> int | None:
    """Return a size in bytes from its usual notation (500K, 100M, 2G); None: invalid."""
    found = _SIZE.fullmatch(text)
    return None if found is None else int(found[1]) << _SHIFTS[found[2]]


def _keep(rest: str, room: str) -> Change | str:
    words = rest.split()
    if words == ["default"]:
        return Change("keep")
    named = len(words) > 1 and normal(words[-1]) == room
    age = messages = size = 0
    for word in words[:-1] if named else words:
        if (seconds := seconds_of(word)) is not None:
            age = seconds
        elif (found := size_of(word)) is not None:
            size = found
        elif word.isascii() and word.isdigit() and len(word) < 16:
            messages = int(word)
        else:
            return _KEEP_TAKES
    if not (age or messages or size):
        return _KEEP_TAKES
    if not named:
        return f"to remove all other messages for good: /keep {' '.join(words)} {room}; not sent"
    return Change("keep", keep=(age, messages, size))


def seconds_of(text: str) -> int | None:
    """Return a time in seconds from its usual notation (30s, 10m, 2h, 7d); None: invalid."""
    found = _TIME.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def meant_to_choose(word: str, rest: str) -> Choice | None:
    """Return ``Change.chooses`` of an invalid command that narrows; None: of no such command."""
    if word in _KINDS:
        return KIND if word != "public" else None
    if word in ("kick", "ban"):
        return removal(rest.partition(" ")[0])
    return KEEP if word == "keep" else None


def parse(word: str, rest: str, room: str) -> Change | str | None:
    """Return the meaning of a command; a str: what is wrong with it; None: no such command.

    Commands that remove messages permanently end with the room's name, to prevent accidents.

    Args:
        word: the command, without its slash.
        rest: what follows it.
        room: the room of the chat.
    """
    if word == "delete":
        if normal(rest) == room:
            return Change("delete")
        return f"to delete this room for good: /delete {room}; not sent"
    if word == "keep":
        return _keep(rest, room)
    if word in _ALONE or word in _KINDS:
        if rest and normal(rest) != room:
            return f"/{word} is for this room, {room}; not sent"
        return Change(_ALONE[word]) if word in _ALONE else Change("kind", kind=_KINDS[word])
    if word == "topic":
        return Change("topic", text=rest)
    if word == "redact":
        number, _, why = rest.partition(" ")
        if not (number.isascii() and number.isdigit() and len(number) < 18 and int(number)):
            return "/redact takes the number of a message; not sent"
        return Change("redact", text=why.strip(), seq=int(number))
    if word not in _PERSONS and word not in _ROLES:
        return None
    person, _, rest = rest.partition(" ")
    rest = rest.strip()
    if not person:
        return f"/{word} takes a name; not sent"
    if word in _ROLES:
        return _only(word, rest) or Change("role", person, role=_ROLES[word])
    seconds = 0
    if word in _WITH_TIME:
        time, _, why = rest.partition(" ")
        found = seconds_of(time)
        if found is not None:
            seconds, rest = found, why.strip()
        elif time[:1].isdigit():  # a permanent ban by a typing error would be the worst outcome
            return _TIMES.format(time=time, word=word)
    if word not in _WITH_REASON and (wrong := _only(word, rest)):
        return wrong
    return Change(_PERSONS[word], person, rest, seconds)


def _only(word: str, rest: str) -> str:
    return f"/{word} takes only a name; not sent" if rest else ""
