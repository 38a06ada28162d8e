"""Which count the end of a connection belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.server.metrics import Closed, Handshake
from relay.server.worker.connection.stages import Stage
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.server.worker.connection.services import Counts

_CODES: Final = {int(code): code.name.lower() for code in CloseCode}
_HANDSHAKES: Final[dict[int, Handshake]] = {
    CloseCode.LOGIN_TIMEOUT: Handshake.TIMED_OUT,
    CloseCode.OVERLOADED: Handshake.MADE_ROOM,
}


def count_end(
    counts: Counts, stage: Stage, code: Closed | int | None, *, no_agent: bool = False
) -> None:
    """Count an end: of a handshake that was not completed, or of a connection.

    Args:
        counts: of the worker.
        stage: in which it ended.
        code: our close code, or the client's end, or None without a word.
        no_agent: True when it ended because the key agent did not answer.
    """
    if stage is not Stage.HANDSHAKE:
        name = code if isinstance(code, Closed) else _CODES.get(code or 0, Closed.LOST)
        counts.closes[name] += 1
    elif no_agent:
        counts.handshakes[Handshake.NO_KEY_AGENT] += 1
    elif code is None or isinstance(code, Closed):
        counts.handshakes[Handshake.ABANDONED] += 1
    else:
        counts.handshakes[_HANDSHAKES.get(code, Handshake.REFUSED)] += 1
