"""Commands that do not exist here, and whether later lines may rely on one: pure functions.

Such a command may have been meant to choose who reads what follows, as ``/private`` and ``/query``
do. It was not, if it chooses nothing of the kind in other programs, or is a typing error away from
a command that chooses nothing and from none that does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relay.terminal.choices import Choice

ELSEWHERE: Final = {
    "part": "/quit leaves the chat, /nomember ends your membership of the room",
    "me": "there are no actions here: say it in words",
    "nick": "a name belongs to one account for good: another name is another account ('relay "
    "register')",
    "whois": "/seen NAME tells when somebody was last here, /room who is what in the room, and"
    " 'relay device list ADDRESS NAME' which devices a name has",
    "away": "others see when you were last here: /seenby chooses who",
    "voice": "there is no voice: in a room for announcements moderators write (/op NAME), and /mute"
    " NAME silences one person",
    "devoice": "there is no voice: /mute NAME silences one person",
    "mode": "there are commands instead of modes: /private, /announce, /close, /op, /ban",
}
"""What to type instead of commands of other programs."""
_CHOOSES_NOTHING: Final = frozenset(
    {"me", "whois", "whowas", "away", "back", "voice", "devoice", "notice", "action"}
    | {"clear", "version", "ping", "time", "motd", "who", "names", "help"}
    | {"history", "numbers", "search", "msg", "seen", "reply", "react", "edit", "erase"}
    | {"accept", "writers", "seenby", "topic"}
)
"""Of this program and others. Not ``/block``, ``/nick``, ``/room`` and ``/list``: ``/lock`` and
``/kick`` are near, and with a name ``/room`` may have been meant to enter one."""
_NEAR_CHARS_MIN: Final = 4
"""Any short word is near another one."""
_CHOOSES: Final = frozenset(
    {"private", "public", "announce", "kick", "ban", "keep", "query", "join", "part", "mode"}
    | {"quit", "leave", "exit", "close"}
)
"""Also who leaves wants nobody there to read what follows."""


def unknown(word: str) -> Choice | None:
    """Return what a command that does not exist may have been meant to choose; None: nothing."""
    if word in _CHOOSES_NOTHING:
        return None
    near = len(word) >= _NEAR_CHARS_MIN and _is_near(word, _CHOOSES_NOTHING)
    if near and not _is_near(word, _CHOOSES):
        return None
    return Choice("unknown", word)


def _is_near(word: str, others: Iterable[str]) -> bool:
    return any(_one_slip(word, other) for other in others)


def _one_slip(one: str, other: str) -> bool:
    """Return True if a letter was added, left out, replaced, or exchanged with the next one."""
    if abs(len(one) - len(other)) > 1:
        return False
    at = 0
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    mine, its = one[at:], other[at:]
    exchanged = mine[:2] == its[1::-1] and mine[2:] == its[2:]
    return mine[1:] in (its, its[1:]) or mine == its[1:] or exchanged
