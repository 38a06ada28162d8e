"""The stages of a connection's life, and which follows which."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Stage(Enum):
    """Where a connection is. What a client may ask in each is ``commands.OPERATIONS``."""

    HANDSHAKE = "handshake"
    """Keys are being agreed on; no envelope can arrive."""
    HELLO = "hello"
    """Encrypted; the client has not named itself."""
    LOGIN = "login"
    """HELLO came; the name's home has not decided. What is asked meanwhile waits."""
    READY = "ready"
    """Logged in."""
    CLOSING = "closing"
    """Over for both: nothing that is received has an effect any more."""
    LOST = "lost"
    """The socket is closed."""

    __hash__ = object.__hash__  # Enum's own is a call of Python, four at each change of stage


NEXT: Final[dict[Stage, frozenset[Stage]]] = {
    Stage.HANDSHAKE: frozenset({Stage.HELLO, Stage.CLOSING, Stage.LOST}),
    Stage.HELLO: frozenset({Stage.LOGIN, Stage.CLOSING, Stage.LOST}),
    Stage.LOGIN: frozenset({Stage.READY, Stage.CLOSING, Stage.LOST}),
    Stage.READY: frozenset({Stage.CLOSING, Stage.LOST}),
    Stage.CLOSING: frozenset({Stage.LOST}),
    Stage.LOST: frozenset(),
}
ENDED: Final = frozenset({Stage.CLOSING, Stage.LOST})
