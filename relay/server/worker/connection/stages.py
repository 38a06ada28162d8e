"""The stages of a connection and their order."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Stage(Enum):
    """The stage of a connection. The operations allowed in each are in ``commands.OPERATIONS``."""

    HANDSHAKE = "handshake"
    """Keys are being negotiated; no envelope can arrive."""
    HELLO = "hello"
    """Encrypted, and waiting for the client to name itself."""
    LOGIN = "login"
    """HELLO was received, and the name's home has not decided. Later operations wait."""
    READY = "ready"
    """Logged in."""
    CLOSING = "closing"
    """Ended on both sides: received operations have no effect."""
    LOST = "lost"
    """The socket is closed."""

    __hash__ = object.__hash__  # Enum's own is a Python call, four per change of stage


NEXT: Final[dict[Stage, frozenset[Stage]]] = {
    Stage.HANDSHAKE: frozenset({Stage.HELLO, Stage.CLOSING, Stage.LOST}),
    Stage.HELLO: frozenset({Stage.LOGIN, Stage.CLOSING, Stage.LOST}),
    Stage.LOGIN: frozenset({Stage.READY, Stage.CLOSING, Stage.LOST}),
    Stage.READY: frozenset({Stage.CLOSING, Stage.LOST}),
    Stage.CLOSING: frozenset({Stage.LOST}),
    Stage.LOST: frozenset(),
}
ENDED: Final = frozenset({Stage.CLOSING, Stage.LOST})
