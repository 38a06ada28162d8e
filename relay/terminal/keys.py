"""The keys of the chat's prompt: readline's editing, without what would surprise in a chat.

The line editor behind the prompt also has modes: incremental search, selections, macros, repeat
counts, quoted insertion. In a mode, Enter does not send, or typed letters do not appear; a user who
enters one by accident (Ctrl-S and Ctrl-Q are flow control everywhere else) is lost. So there are no
modes here: whatever was pressed before, letters go into the draft and Enter sends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

_IGNORED: Final = (
    ("c-s",), ("c-r",),  # incremental search
    ("c-q",),  # quoted insertion
    ("c-@",),  # selection
    ("c-x",),  # macros, and more of Emacs
    ("c-o",),  # sends, and fetches another line into the draft
    ("c-]",), ("escape", "c-]"),  # waits for a letter
    (Keys.CPRResponse,),  # not requested: it would move the prompt
    ("escape", "#"),  # makes the draft a comment, and sends it
    ("escape", "-"), *(("escape", digit) for digit in "0123456789"),  # repeat counts
)  # fmt: skip


def chat_keys(
    interrupt: Callable[[KeyPressEvent], None], suspend: Callable[[KeyPressEvent], None]
) -> KeyBindings:
    """Return the bindings before those of the line editor: Ctrl-C, Ctrl-Z, and no modes."""
    keys = KeyBindings()
    for sequence in _IGNORED:
        # Eager: it also ends the sequences that begin with it.
        keys.add(*sequence, eager=True)(_ignore)

    keys.add("c-c", eager=True)(interrupt)
    keys.add("<sigint>")(interrupt)
    keys.add("c-z")(suspend)
    return keys


def _ignore(event: KeyPressEvent) -> None:
    """Do nothing."""
