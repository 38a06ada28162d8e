"""Connections that do not take what is written to them: counted, bounded, and ended in the end.

Invariant "Falling behind": a transport that the kernel takes nothing from holds sealed bytes that
cannot be taken back. Each connection's are bounded by a record; all of a worker's by
``BUDGET_BYTES``: before that, catching up waits; above it, those that have been stuck longest are
closed. They resume from their cursors.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from relay.wire.codes import CloseCode

BUDGET_BYTES: Final = 64 * 1024 * 1024
CROWDED_BYTES: Final = BUDGET_BYTES * 3 // 4
CROWDED_TIMEOUT_S: Final = 5.0
"""How long readers that take nothing may keep the others from catching up."""
PROGRESS_BYTES_MIN: Final = 4096
"""What counts as taking something: a byte now and then does not."""
NAMED_MAX: Final = 20
"""Slow readers named in one line of the log."""
log = logging.getLogger("relay.worker")


class Owner(Protocol):
    """Whose connection it is."""

    @property
    def name(self) -> str:
        """The client's name."""

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """End the connection."""


class Buffered(Protocol):
    """A stream whose transport holds bytes."""

    @property
    def peer(self) -> str:
        """The peer's address."""

    @property
    def buffered(self) -> int:
        """How many bytes it holds."""

    @property
    def receiver(self) -> Owner:
        """Whose it is."""


class StalledConnections:
    """The stuck streams of one worker, longest stuck first."""

    def __init__(self, clock: Callable[[], float], timeout_s: float) -> None:
        """Begin.

        Args:
            clock: monotonic seconds.
            timeout_s: a connection that takes nothing for so long is closed with TOO_SLOW.
        """
        self._clock = clock
        self.timeout_s = timeout_s
        """May be changed at any time."""
        self._stuck: OrderedDict[Buffered, tuple[float, int]] = OrderedDict()
        """When it last took something, and how many bytes it had waiting then."""
        self._fell_behind: dict[str, int] = {}
        """Names that fell behind since it was last logged, and how often."""
        self._closing: dict[Buffered, int] = {}
        """Closed here; they hold their bytes until these have left or the time for that is up."""
        self.bytes = 0
        """Of all of them, those that are closing too."""
        self.fell_behind = 0
        self.too_slow = 0

    @property
    def crowded(self) -> bool:
        """True when readers that are behind must wait for others to take their bytes."""
        return self.bytes > CROWDED_BYTES

    def add(self, stream: Buffered) -> None:
        """The kernel takes no more of a connection, and its transport holds the rest."""
        size = stream.buffered
        self._stuck[stream] = (self._clock(), size)
        self.bytes += size

    def remove(self, stream: Buffered) -> None:
        """It holds nothing any more, or is gone."""
        found = self._stuck.pop(stream, None)
        self.bytes -= self._closing.pop(stream, 0) if found is None else found[1]

    def count_behind(self, name: str) -> None:
        """A reader has left live because it takes less than its logs bring."""
        self.fell_behind += 1
        self._fell_behind[name] = self._fell_behind.get(name, 0) + 1

    def sweep(self, now: float) -> None:
        """Close who takes nothing; log who is slow. Called about once a second."""
        timeout_s = min(self.timeout_s, CROWDED_TIMEOUT_S) if self.crowded else self.timeout_s
        for stream, (since, size) in list(self._stuck.items()):
            left = stream.buffered
            if size - left >= PROGRESS_BYTES_MIN:
                self._stuck[stream] = (now, left)
                self._stuck.move_to_end(stream)
                self.bytes -= size - left
            elif now - since >= timeout_s:
                self._close(stream, "took nothing for too long")
        excess = sum([size for _, size in self._stuck.values()]) - BUDGET_BYTES
        while excess > 0:
            stream, (_, size) = next(iter(self._stuck.items()))
            excess -= size
            self._close(stream, "too many bytes wait in this worker")
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
        # Its bytes count until it is gone: or those who wait would take their place too soon.
        _, self._closing[stream] = self._stuck.pop(stream)
        owner.close(CloseCode.TOO_SLOW, detail=why)
