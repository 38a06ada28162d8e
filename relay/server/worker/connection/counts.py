"""Counters of the connections of a worker."""

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
    """What the sessions of a worker count, from its begin on."""

    handshakes: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(Handshake, 0))
    """Those that ended, by outcome."""
    kinds: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(HandshakeKind, 0))
    """Those that were completed, by kind."""
    closes: Final[dict[str, int]] = field(
        default_factory=lambda: dict.fromkeys((*CLOSE_CODES, *Closed), 0)
    )
    """Connections that ended after it, by close code or by whom."""
    resumes: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(Resume, 0))
    gaps: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(GAP_REASONS, 0))
    searches: Final[dict[str, int]] = field(default_factory=lambda: dict.fromkeys(Searched, 0))


def count_handshake(counts: Counts, mode: int, *, fell_back: bool) -> None:
    """Count a handshake that was completed."""
    counts.handshakes[Handshake.COMPLETED] += 1
    if mode == RESUMED:
        kind = HandshakeKind.RESUMED
    else:
        kind = HandshakeKind.FELL_BACK if fell_back else HandshakeKind.FULL
    counts.kinds[kind] += 1


def count_end(counts: Counts, code: Closed | int | None) -> str:
    """Count the end of a connection; return its reason.

    Args:
        counts: of the worker.
        code: our close code, or the client's end, or None without a word.
    """
    name = code if isinstance(code, Closed) else _CODES.get(code or 0, Closed.LOST)
    counts.closes[name] += 1
    return str(name)


def count_failed_handshake(counts: Counts, code: Closed | int | None, *, no_agent: bool) -> None:
    """Count a handshake that was not completed.

    Args:
        counts: of the worker.
        code: see ``count_end``.
        no_agent: True when it ended because the key agent did not answer.
    """
    if no_agent:
        outcome = Handshake.NO_KEY_AGENT
    elif code is None or isinstance(code, Closed):
        outcome = Handshake.ABANDONED
    else:
        outcome = _HANDSHAKES.get(code, Handshake.REFUSED)
    counts.handshakes[outcome] += 1
