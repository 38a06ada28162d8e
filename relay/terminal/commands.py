"""Parses typed lines: a message or a command. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

from relay import limits
from relay.chat import names
from relay.chat.names import normal
from relay.client.account_calls import Writers
from relay.terminal import room_commands
from relay.terminal.choices import AIM, Choice
from relay.terminal.room_commands import Change
from relay.terminal.unknown_commands import ELSEWHERE, unknown

HISTORY_DEFAULT: Final = 20
HISTORY_MAX: Final = 1000
"""The maximum of one request for a page."""

HELP: Final = (
    "/who             list who is here",
    f"/history [N]     show N messages (default {HISTORY_DEFAULT}) before the oldest one shown",
    "/search WORDS    show the newest messages with WORDS; /search alone: older",
    f"/numbers [N]     show the last N messages ({HISTORY_DEFAULT}) again, with their numbers",
    "/msg NAME TEXT   send TEXT to one person only",
    "/query [NAME]    talk to NAME from now on; without NAME, to the room again",
    "/reply TEXT      answer the last message of somebody else; /react EMOJI",
    "/edit TEXT       replace your last message by TEXT; /erase it",
    "                 (all four: in the room or with NAME, as the prompt shows)",
    "/block NAME      block direct messages from NAME; /unblock NAME",
    "/seen NAME       show when NAME was last here, if NAME allows it",
    "/writers [WHO]   who may write to you: all, rooms, known, nobody; /seenby:",
    "                 who may see when you were last here",
    "/accept NAME     show how NAME's devices changed, and how to accept them",
    "/join            follow the room again, after you were removed from it",
    "/room, /list     show the room and who is what in it; list the rooms",
    "/help room       list the commands that change the room",
    "/quit            leave when all is stored (also Ctrl-D); Ctrl-C: at once",
    "//TEXT           send /TEXT as a message",
)
"""Each fits a line of 80 columns, and all of them a screen of 24 lines, with the prompt."""

_BLANK: Final = " \t\v\f\r\n\x85\xa0\u200b\u2060\u3000\ufeff\ufffd\0"
"""What may precede a command unseen: white space, and byte order marks, also of UTF-16."""
_OTHER_WORDS: Final = {
    "exit": "quit",
    "leave": "part",
    "rooms": "list",
    "members": "who",
    "dm": "msg",
    "ignore": "block",
    "unignore": "unblock",
}
"""Names of these commands in other programs."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Who:
    """Show who is in the room."""


@dataclass(frozen=True, slots=True)
class History:
    """Show this many earlier messages."""

    count: int


@dataclass(frozen=True, slots=True)
class Search:
    """Show messages that contain these words; empty: continue the previous search."""

    words: str


@dataclass(frozen=True, slots=True)
class Room:
    """Show the state of the room."""


@dataclass(frozen=True, slots=True)
class Join:
    """Follow the room again, after being removed from it."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """List the rooms."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Send this text to one user."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """Chat with one user from now on; empty: with the room."""

    name: str


@dataclass(frozen=True, slots=True)
class About:
    """Act on the last message: "reply", "edit", "erase" or "react"."""

    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Block a user's direct messages, or unblock them."""

    name: str
    blocked: bool


@dataclass(frozen=True, slots=True)
class Accept:
    """Show how a user's devices contradict what was seen, or accept them."""

    name: str
    code: str
    """Of the list to accept; empty: none yet."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Show when this user was last connected."""

    name: str


@dataclass(frozen=True, slots=True)
class Choose:
    """Choose "writers" or "seenby" (who may see when one was last connected); None: show them."""

    what: Literal["writers", "seenby"]
    who: Writers | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Show this many messages again, with their numbers."""

    count: int


@dataclass(frozen=True, slots=True)
class Help:
    """Show the commands, or those that change the room."""

    of_rooms: bool = False


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """Nothing is sent; tell the user why."""

    reason: str
    chooses: Choice | None = None
    """What the command would have chosen, if later lines may rely on it: see ``Change.chooses``."""
    unknown: bool = False
    """True if there is no such command."""


Command: TypeAlias = (
    Say
    | Who
    | History
    | Search
    | Room
    | Join
    | Rooms
    | Change
    | Tell
    | Query
    | About
    | Accept
    | Block
    | Seen
    | Choose
    | Numbers
    | Help
    | Quit
    | Mistake
)


def parse(line: str, room: str, *, strict: bool = False) -> Command:
    """Parse a line in the chat of a room. A line that begins with a slash is never sent.

    Two slashes send a text that begins with one.

    Args:
        line: what was typed.
        room: the room.
        strict: whether a command after white space is a mistake, instead of a message.
    """
    if line.startswith("//"):
        return Say(line[1:])
    if not line.startswith("/"):
        return (_indented(line.lstrip(_BLANK), room) if strict else None) or Say(line)
    word, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    word = word.lower()
    word = _OTHER_WORDS.get(word, word)
    match word:
        case "help" if rest.removeprefix("/") in ("room", "rooms"):
            return Help(of_rooms=True)
        case "who" | "names" | "room" | "list" | "help" | "quit" | "erase" if rest:
            # With a name it may have been meant to enter that room.
            chooses = AIM if word in ("room", "list") else None
            return Mistake(f"/{word} takes no arguments; not sent", chooses)
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
        case "history" | "numbers":
            return _history(word, rest)
        case "search":
            return _search(rest)
        case "msg":
            return _tell(line[1:])
        case "query" if not rest:
            return Query("")
        case "query" | "seen" | "block" | "unblock":
            return _about_person(word, _name(rest))
        case "accept":
            name, _, code = rest.partition(" ")
            return Accept(_name(name), code.strip()) if _name(name) else _no_name(word)
        case "writers" | "seenby":
            return _choice(word, rest)
        case "reply" | "edit" | "react" if not rest:
            return Mistake(f"/{word} takes a text; not sent")
        case "reply" | "edit" | "react" | "erase":
            return About(word, rest)
        case "join" if rest and normal(rest) != room:
            return Mistake(
                "a chat is in one room; for another: relay chat ADDRESS ROOM; not sent", AIM
            )
        case "join":
            return Join()
        case _ if word in ELSEWHERE:
            return Mistake(f"{ELSEWHERE[word]}; not sent", unknown(word), unknown=True)
        case _:
            changed = room_commands.parse(word, rest, room)
            if isinstance(changed, str):
                return Mistake(changed, room_commands.meant_to_choose(word, rest))
            if changed is not None:
                return changed
            return Mistake(
                f"unknown command /{word}; not sent (/help lists the commands)",
                unknown(word),
                unknown=True,
            )


def _indented(line: str, room: str) -> Mistake | None:
    """Return the mistake of a line with blanks before it; None: it is no command."""
    if not line.startswith("/") or line.startswith("//"):
        return None
    command = parse(line, room)
    if isinstance(command, Mistake) and command.unknown:
        return None
    reason = f"{line.split(None, 1)[0]} takes effect only at the beginning of a line; not sent"
    return Mistake(reason, _chosen_by(command))


def unreadable(data: bytes, room: str, reason: str) -> Mistake:
    """Return the mistake of a line that is too long, or not UTF-8: it may have been a command."""
    line = data.decode("utf-8", "replace").lstrip(_BLANK)
    return Mistake(reason, _chosen_by(parse(line, room)))


def _chosen_by(command: Command) -> Choice | None:
    """Return what later lines may rely on, of a command that is not carried out."""
    if isinstance(command, Mistake):
        return command.chooses
    if isinstance(command, Change):
        return command.chooses if command.narrows else None
    return AIM if isinstance(command, Query) else None


def _about_person(word: str, name: str) -> Command:
    if not name:
        return _no_name(word, AIM if word == "query" else None)
    if word == "query":
        return Query(name)
    return Seen(name) if word == "seen" else Block(name, word == "block")


def _choice(word: Literal["writers", "seenby"], rest: str) -> Command:
    if not rest:
        return Choose(word, None)
    if rest in get_args(Writers):
        return Choose(word, cast(Writers, rest))
    return Mistake(f"/{word} takes all, rooms, known or nobody; not sent")


def _tell(typed: str) -> Command:
    _, _, rest = typed.partition(" ")
    word, _, text = rest.lstrip().partition(" ")
    name = _name(word)
    if not name:
        return _no_name("msg")
    return Tell(name, text) if text else Mistake("/msg takes a name and a text; not sent")


def _name(typed: str) -> str:
    """Return the name of a user as typed, with or without @; empty: it is invalid."""
    name = normal(typed.removeprefix(names.INBOX_PREFIX))
    return name if names.is_handle(name) else ""


def _no_name(word: str, chooses: Choice | None = None) -> Mistake:
    return Mistake(f"/{word} takes the name of a person; not sent", chooses)


def _search(rest: str) -> Command:
    if len(rest.encode()) > limits.SEARCH_BYTES_MAX:
        return Mistake(f"/search takes at most {limits.SEARCH_BYTES_MAX} bytes; not sent")
    return Search(rest)


def _history(word: str, rest: str) -> Command:
    make = History if word == "history" else Numbers
    if not rest:
        return make(HISTORY_DEFAULT)
    if rest.isascii() and rest.isdigit() and len(rest) <= 9 and 1 <= int(rest) <= HISTORY_MAX:
        return make(int(rest))
    return Mistake(f"/{word} takes a number from 1 to {HISTORY_MAX:,}; not sent")
