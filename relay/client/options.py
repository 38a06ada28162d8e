"""What both faces take from their callers, and the times that both allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from relay.chat.entries import NO_EPOCH, Cursor
from relay.client.identity import Identity, new_identity

CONNECT_S: Final = 20.0
"""For ``connect``: name resolution, TCP, handshake and login, tried again if need be."""
DIAL_S: Final = 10.0
"""For one TCP connection."""
CLOSE_S: Final = 10.0
"""What ``close`` waits for unacknowledged sends."""
LINGER_S: Final = 2.0
"""For the last bytes of a connection to leave."""
READ_BYTES: Final = 262_144
"""One read from a blocking socket at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a client is told once."""

    name: str
    identity: Identity
    display: str = ""
    agent: str = ""
    expected_key: str | None = None
    """The fingerprint that the server's key must have; None: it is not known yet."""
    reconnect: bool = True
    window: int = 256
    """Unacknowledged sends at most."""
    patience_s: float | None = None
    """How long a send that is refused with BUSY or UNAVAILABLE is tried again; None: for ever."""
    random_bytes: Callable[[int], bytes] = field(repr=False)
    jitter: Callable[[], float] = field(repr=False)
    """Numbers evenly spread over [0, 1)."""


def make_options(
    *,
    name: str | None,
    identity: Identity | None,
    display: str,
    agent: str,
    expected_key: str | None,
    reconnect: bool,
    window: int,
    patience_s: float | None,
    random_bytes: Callable[[int], bytes],
    jitter: Callable[[], float],
) -> Options:
    """Fill in a name and an identity where the caller gave none."""
    return Options(
        name=f"guest-{random_bytes(4).hex()}" if name is None else name,
        identity=new_identity(random_bytes) if identity is None else identity,
        display=display,
        agent=agent,
        expected_key=expected_key,
        reconnect=reconnect,
        window=window,
        patience_s=patience_s,
        random_bytes=random_bytes,
        jitter=jitter,
    )


def join_start(since: int | None, cursor: Cursor | None) -> Cursor | None:
    """Return the cursor that a join begins behind; None: with its last entries."""
    if since is not None and cursor is not None:
        raise ValueError("either since or cursor")
    return Cursor(NO_EPOCH, since) if since is not None else cursor


def page_start(before: int | None, after: int | None) -> tuple[bool, int]:
    """Return (forward, seq) of a history request. Neither given: backward from the head."""
    if before is not None and after is not None:
        raise ValueError("either before or after")
    return (False, before or 0) if after is None else (True, after)
