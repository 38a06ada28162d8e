"""Connections that do not accept what is written to them: counted, limited, and finally closed.

Invariant "Falling behind": when the kernel accepts no more, the transport holds sealed bytes that
cannot be withdrawn. For each connection this is at most one record. For all of a worker the limit
is ``BUDGET_BYTES``: close to it, catch-up pauses; above it, the connections that have been stuck
longest are closed. They resume from their cursors.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from relay.wire.codes import CloseCode

BUDGET_BYTES: Final = 64 * 1024 * 1024
NEAR_LIMIT_BYTES: Final = BUDGET_BYTES * 3 // 4
NEAR_LIMIT_TIMEOUT_S: Final = 5.0
"""How long stalled readers may prevent others from catching up."""
PROGRESS_BYTES_MIN: Final = 4096
"""Minimum that counts as progress: a byte now and then does not."""
NAMED_MAX: Final = 20
"""Slow readers named in one log line."""
log = logging.getLogger("relay.worker")


class Owner(Protocol):
    """The session that owns a stream."""

    @property
    def name(self) -> str:
        """The client's name."""

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """Close the connection."""


class Buffered(Protocol):
    """A stream whose transport holds bytes."""

    @property
    def peer(self) -> str:
        """The peer's address."""

    @property
    def buffered(self) -> int:
        """Number of bytes that it holds."""

    @property
    def receiver(self) -> Owner:
        """The session that owns it."""


class StalledConnections:
    """The stuck streams of one worker, those stuck longest first."""

    def __init__(self, clock: Callable[[], float], timeout_s: float) -> None:
        """Create without streams.

        Args:
            clock: monotonic seconds.
            timeout_s: a connection that makes no progress for this long is closed with TOO_SLOW.
        """
        self._clock = clock
        self.timeout_s = timeout_s
        """May be changed at any time."""
        self._stuck: OrderedDict[Buffered, tuple[float, int]] = OrderedDict()
        """For each stuck stream: when it last made progress, and its pending bytes at that time."""
        self._fell_behind: dict[str, int] = {}
        """Names that have fallen behind since the last log line, with counts."""
        self._closing: dict[Buffered, int] = {}
        """Streams closed here. They hold their bytes until these are sent or a timeout expires."""
        self.bytes = 0
        """Bytes of all of them, including those that are closing."""
        self.fell_behind = 0
        self.too_slow = 0

    @property
    def near_limit(self) -> bool:
        """True when readers that are behind must wait until others accept their bytes."""
        return self.bytes > NEAR_LIMIT_BYTES

    def add(self, stream: Buffered) -> None:
        """Add a stream: the kernel accepts no more, and its transport holds the rest."""
        size = stream.buffered
        self._stuck[stream] = (self._clock(), size)
        self.bytes += size

    def remove(self, stream: Buffered) -> None:
        """Remove a stream: it holds nothing any more, or has ended."""
        found = self._stuck.pop(stream, None)
        self.bytes -= self._closing.pop(stream, 0) if found is None else found[1]

    def count_behind(self, name: str) -> None:
        """Count a reader that fell behind: it reads less than its logs deliver."""
        self.fell_behind += 1
        self._fell_behind[name] = self._fell_behind.get(name, 0) + 1

    def sweep(self, now: float) -> None:
        """Close connections without progress; log slow ones. Called about once a second."""
        timeout_s = min(self.timeout_s, NEAR_LIMIT_TIMEOUT_S) if self.near_limit else self.timeout_s
        for stream, (since, size) in list(self._stuck.items()):
            left = stream.buffered
            if size - left >= PROGRESS_BYTES_MIN:
                self._stuck[stream] = (now, left)
                self._stuck.move_to_end(stream)
                self.bytes -= size - left
            elif now - since >= timeout_s:
                self._close(stream, "read nothing for too long")
        excess = sum([size for _, size in self._stuck.values()]) - BUDGET_BYTES
        while excess > 0:
            stream, (_, size) = next(iter(self._stuck.items()))
            excess -= size
            self._close(stream, "too many bytes are buffered in this worker")
        if self._fell_behind:
            named = sorted(self._fell_behind, key=lambda name: -self._fell_behind[name])
            log.warning(
                "readers_fell_behind",
                extra={
                    "readers": {name: self._fell_behind[name] for name in named[:NAMED_MAX]},
                    "total": len(named),
                },
            )
            self._fell_behind.clear()

    def _close(self, stream: Buffered, why: str) -> None:
        self.too_slow += 1
        owner = stream.receiver
        log.warning("reader_too_slow", extra={"reader": owner.name, "peer": stream.peer})
        # Its bytes count until it is gone; otherwise waiting readers would use the space too early.
        _, self._closing[stream] = self._stuck.pop(stream)
        owner.close(CloseCode.TOO_SLOW, detail=why)
