"""Which frame is legal when: the one table of the protocol's states.

A phase with no legal frame tolerates not a single byte: the peer sends out of turn.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from relay.wire.frames import FrameType


class Side(Enum):
    """Which end of the connection this is."""

    CLIENT = "client"
    SERVER = "server"


class Phase(Enum):
    """The phase of a connection."""

    AWAIT_SERVER_HELLO = "client: connected, has sent nothing"
    PIN_DECISION = "client: deciding about the server's key, has sent nothing"
    WORKING = "client: computing the proof of work, has sent nothing"
    AWAIT_SERVER_FINISHED = "client: ClientKey sent"
    AWAIT_CLIENT_KEY = "server: ServerHello sent"
    UNWRAPPING = "server: waiting for the key agent"
    AWAIT_CLIENT_FINISHED = "server: ServerFinished sent"
    OPEN = "both: records"
    CLOSING = "both: own close sent, waiting for the peer's"
    DRAINING = "server: close sent after a violation, or to make room"
    CLOSED = "both: ended"

    __hash__ = object.__hash__  # Enum's own is a Python call


LEGAL: Final[dict[Phase, tuple[FrameType, ...]]] = {
    Phase.AWAIT_SERVER_HELLO: (FrameType.SERVER_HELLO,),
    Phase.PIN_DECISION: (),
    Phase.WORKING: (),
    Phase.AWAIT_SERVER_FINISHED: (FrameType.SERVER_FINISHED,),
    Phase.AWAIT_CLIENT_KEY: (FrameType.CLIENT_KEY,),
    Phase.UNWRAPPING: (),
    Phase.AWAIT_CLIENT_FINISHED: (FrameType.CLIENT_FINISHED,),
    Phase.OPEN: (FrameType.RECORD,),
    Phase.CLOSING: (FrameType.RECORD,),
    Phase.DRAINING: (),
    Phase.CLOSED: (),
}
"""The frames that a side accepts in each phase. Everything else ends the connection."""
