"""The grammar of names: handles, rooms, inboxes (docs/protocol.md, "Envelopes").

Names are deliberately ASCII: no two different names look alike (UTS 39's confusables do not arise),
and none contains control or direction characters. Display names are separate.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from relay import limits

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{1,31}")
_RESERVED: Final = frozenset(
    {
        "admin", "administrator", "all", "channel", "everyone", "here", "me", "mod", "moderator",
        "operator", "owner", "relay", "root", "server", "staff", "sysadmin", "system",
    }
)  # fmt: skip
_GIVEN_NAMES: Final = frozenset({"ali"})
"""Common names that have the skeleton of a reserved word ("all")."""
_LOOK_ALIKES: Final = str.maketrans({"0": "o", "1": "l", "i": "l", "_": "", "-": ""})
_LEET: Final = str.maketrans({"3": "e", "4": "a", "5": "s", "7": "t"})
_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Blank or zero-width, but in no such category: fillers, the grapheme joiner, the empty braille
# pattern, blank hieroglyphs (of Unicode 15), a note without a head, variation selectors.
_BLANKS: Final = (
    0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0x13441, 0x13442, 0x16FE4,
    0x1D159,
)  # fmt: skip
_UNSEEN: Final = frozenset(map(chr, _BLANKS)) | frozenset(
    map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
_COMBINING_CATEGORIES: Final = frozenset({"Mn", "Me"})
COMBINING_IN_A_ROW_MAX: Final = 4
"""Vietnamese, Hebrew and Thai need two or three on a letter; many of them cover other lines."""
INBOX_PREFIX: Final = "@"
SHARED_MAX: Final = 16_384
"""About 2 MB. When it is reached, equal names have one more copy each."""
_shared: Final[dict[str, str]] = {}
GUEST_PREFIX: Final = "~"
"""Begins the name of a user without an account; no handle begins with it."""

assert limits.NAME_CHARS_MAX == 32


def normal(name: str) -> str:
    """Return the canonical spelling of a typed name: lower case, only ASCII letters are folded."""
    return shared(name.lower() if name.isascii() else name)


def shared(name: str) -> str:
    """Return an equal name, most often the same object as before.

    A connection keeps its name in many places, and so does a home. They are not interned: in
    Python 3.12 an interned string is never freed, and strangers choose these.
    """
    if len(_shared) >= SHARED_MAX:
        _shared.clear()
    return _shared.setdefault(name, name)


def is_handle(name: str) -> bool:
    """Return True for the canonical name of a user or program."""
    return _NAME.fullmatch(name) is not None


def is_guest(name: str) -> bool:
    """Return True for the name of a guest: a user without an account."""
    return (
        name.startswith(GUEST_PREFIX)
        and len(name) <= limits.NAME_CHARS_MAX
        and is_handle(name[len(GUEST_PREFIX) :])
    )


def skeleton(name: str) -> str:
    """Return what two handles have in common if they look alike in many fonts.

    ``a1ice`` and ``alice``, ``rn`` and ``m``, ``bob_`` and ``bob`` have the same skeleton. It is
    for comparing, not for display. It determines the partition of an account (``chat.partition``):
    changing it would lose existing accounts.
    """
    return name.translate(_LOOK_ALIKES).replace("rn", "m")


def is_reserved(name: str) -> bool:
    """Return True for a handle that could be mistaken for an operator or for everybody.

    Stricter than ``skeleton``: digits that are read as letters count, too (``5y5tem``).
    """
    if name.strip("_-") in _GIVEN_NAMES:
        return False
    bones = skeleton(name.translate(_LEET))
    # Pairs that can be read as one letter; in the skeleton itself they would match too much.
    wide = bones.replace("cl", "d").replace("vv", "w")
    return not _RESERVED_SKELETONS.isdisjoint((bones, wide))


_RESERVED_SKELETONS: Final = frozenset(map(skeleton, _RESERVED))


def is_room(name: str) -> bool:
    """Return True for the canonical name of a room."""
    return _NAME.fullmatch(name) is not None


def is_inbox(name: str) -> bool:
    """Return True for the log of messages to one user, ``@handle``."""
    return name.startswith(INBOX_PREFIX) and is_handle(name[1:])


def person_error(name: str) -> str:
    """Explain why a canonical name cannot be used for a login; empty: it can."""
    bare = name.removeprefix(GUEST_PREFIX)
    if not is_handle(name) and not is_guest(name):
        return "a-z, 0-9, _ and -, 2 to 32 characters"
    return "the name is reserved, or looks like one that is" if is_reserved(bare) else ""


def display_error(text: str) -> str:
    """Explain why a text is not a valid display name; empty: it is."""
    if len(text) > limits.DISPLAY_NAME_CHARS_MAX:
        return f"a display name has at most {limits.DISPLAY_NAME_CHARS_MAX} characters"
    return "" if is_display(text) else "the display name has characters not allowed"


def is_display(text: str) -> bool:
    """Return True for a display name that is displayed as it is, and only in its place.

    It has no control, format, blank or unassigned characters, and not too many combining marks.
    """
    if (
        len(text) > limits.DISPLAY_NAME_CHARS_MAX
        or text != text.strip()
        or not _UNSEEN.isdisjoint(text)
    ):
        return False
    marks = COMBINING_IN_A_ROW_MAX  # the first one would combine with the text before the name
    for category in map(unicodedata.category, text):
        if category in _UNSEEN_CATEGORIES:
            return False
        marks = marks + 1 if category in _COMBINING_CATEGORIES else 0
        if marks > COMBINING_IN_A_ROW_MAX:
            return False
    return True
