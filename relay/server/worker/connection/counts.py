"""Counters about the connections of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from relay.server.metrics import (
    CLOSE_CODES,
    GAP_REASONS,
    Closed,
    Handshake,
    HandshakeKind,
    Resume,
    Searched,
)
from relay.wire.codes import CloseCode
from relay.wire.messages import RESUMED

_CODES: Final = {int(code): code.name.lower() for code in CloseCode}
_HANDSHAKES: Final[dict[int, Handshake]] = {
    CloseCode.LOGIN_TIMEOUT: Handshake.TIMED_OUT,
    CloseCode.OVERLOADED: Handshake.MADE_ROOM,
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of a worker's sessions since it started."""

    handshakes: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(Handshake, 0))
    """Finished handshakes, by outcome."""
    kinds: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(HandshakeKind, 0))
    """Completed handshakes, by kind."""
    closes: Final[dict[str, int]] = field(
        default_factory=lambda: dict.fromkeys((*CLOSE_CODES, *Closed), 0)
    )
    """Connections that ended after the handshake, by close code or by the side that ended them."""
    resumes: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(Resume, 0))
    gaps: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(GAP_REASONS, 0))
    searches: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(Searched, 0))


def count_handshake(counts: Counts, mode: int, *, fell_back: bool) -> None:
    """Count a completed handshake."""
    counts.handshakes[Handshake.COMPLETED] += 1
    if mode == RESUMED:
        kind = HandshakeKind.RESUMED
    else:
        kind = HandshakeKind.FELL_BACK if fell_back else HandshakeKind.FULL
    counts.kinds[kind] += 1


def count_end(counts: Counts, code: Closed | int | None) -> str:
    """Count the end of a connection and return its reason.

    Args:
        counts: of the worker.
        code: our close code; ``Closed`` if the client closed; None if it ended without a close.
    """
    name = code if isinstance(code, Closed) else _CODES.get(code or 0, Closed.LOST)
    counts.closes[name] += 1
    return str(name)


def count_failed_handshake(counts: Counts, code: Closed | int | None, *, no_agent: bool) -> None:
    """Count a handshake that failed.

    Args:
        counts: of the worker.
        code: see ``count_end``.
        no_agent: True if it failed because the key agent did not answer.
    """
    if no_agent:
        outcome = Handshake.NO_KEY_AGENT
    elif code is None or isinstance(code, Closed):
        outcome = Handshake.ABANDONED
    else:
        outcome = _HANDSHAKES.get(code, Handshake.REFUSED)
    counts.handshakes[outcome] += 1
