"""The guarantees, checked by each simulated user on what it reads and sends. No I/O, no Locust.

A broken guarantee is a ``Violation``. Its class is its kind, for counting; its text has the
details.
"""

from __future__ import annotations

from loadtest.bodies import Body, DamagedBody, unpack_body
from relay.chat.entries import Cursor
from relay.client.events import Gap, LogEntry, Message, RoomChanged


class Violation(Exception):
    """A guarantee that the server broke."""


class Damaged(Violation):
    """A body that is not as it was sent."""


class Missing(Violation):
    """An entry that should have come before another one did not."""


class Doubled(Violation):
    """A message that came, or was stored, twice."""


class GapReported(Violation):
    """The server reported that entries will not come."""


class Contradiction(Violation):
    """An acknowledgement and the log contradict each other."""


class Lost(Violation):
    """An acknowledged message that did not arrive in the end."""


class LogCheck:
    """One followed log, as one reader sees it."""

    def __init__(self, log: str, start: Cursor) -> None:
        """Begin behind ``start``."""
        self.log = log
        self.start = start.seq
        self.seq = start.seq
        """Of the last entry that came."""
        self.numbers: dict[bytes, int] = {}
        """The last number of each writer that was heard here."""

    def entry(self, message: LogEntry | RoomChanged) -> Body | None:
        """Check an entry; return its body's head, or None for a stranger's message.

        Raises:
            Violation: after the check has moved on, so that one fault counts once.
        """
        before, self.seq = self.seq, max(self.seq, message.seq)
        if message.seq <= before:
            raise Doubled(f"{self.log}: entry {message.seq} came after {before}")
        body: Body | None = None
        try:
            if isinstance(message, Message):
                body = unpack_body(message.body)
        except DamagedBody as error:
            raise Damaged(f"{self.log}: entry {message.seq}: {error}") from None
        if body is not None:
            self._number(message, body)
        if message.prev != before:
            raise Missing(
                f"{self.log}: entry {message.seq} follows {message.prev}, the last one was {before}"
            )
        return body

    def _number(self, message: LogEntry | RoomChanged, body: Body) -> None:
        last = self.numbers.get(body.instance)
        self.numbers[body.instance] = max(last or 0, body.number)
        if last is None or body.number == last + 1:
            return
        if body.number > last and isinstance(message, LogEntry) and message.sender == message.peer:
            return  # a direct message: those between went to others
        what = f"{self.log}: entry {message.seq} of {message.sender} has number {body.number}"
        if body.number <= last:
            raise Doubled(f"{what}, after {last}: stored twice, or out of order")
        raise Missing(f"{what}, after {last}")

    def gap(self, gap: Gap) -> None:
        """Take a gap. Raises GapReported."""
        self.seq = max(self.seq, gap.end.seq)
        self.numbers.clear()
        raise GapReported(
            f"{self.log}: nothing from {gap.start.seq} to {gap.end.seq}: {gap.reason!r}"
        )


class SendCheck:
    """What one user has sent: each message acknowledged once, and found in the log where it says.

    A message is remembered until both its acknowledgement and its own echo have come.
    """

    def __init__(self) -> None:
        self._acks: dict[tuple[str, int], int] = {}
        """(log, number) to the acknowledged seq, where the echo has not come."""
        self._echoes: dict[tuple[str, int], int] = {}
        """(log, number) to the seq of the echo, where the acknowledgement has not come."""
        self._last: dict[str, int] = {}
        """The last acknowledged seq of each log."""
        self.acknowledged = 0

    def acked(self, log: str, number: int, seq: int, *, following: bool) -> None:
        """Take an acknowledgement; the echo is awaited if the log is followed.

        Raises:
            Violation: it contradicts the log, or an earlier acknowledgement.
        """
        self.acknowledged += 1
        before, self._last[log] = self._last.get(log, 0), seq
        echo = self._echoes.pop((log, number), None)
        if echo is None and following:
            self._acks[log, number] = seq
        if echo not in (None, seq):
            raise Contradiction(
                f"{log}: message {number} was acknowledged as {seq} and delivered as {echo}"
            )
        if seq <= before:
            raise Contradiction(
                f"{log}: message {number} was acknowledged as {seq}, the one before it as {before}"
            )

    def echoed(self, log: str, number: int, seq: int) -> None:
        """Take the user's own message from the log. Raises Contradiction."""
        acked = self._acks.pop((log, number), None)
        if acked is None:
            self._echoes[log, number] = seq
        elif acked != seq:
            raise Contradiction(
                f"{log}: message {number} was acknowledged as {acked} and delivered as {seq}"
            )

    def left(self, log: str) -> None:
        """The log is not followed any more: no echo will come."""
        for awaited in (self._acks, self._echoes):
            for key in [key for key in awaited if key[0] == log]:
                del awaited[key]

    @property
    def awaited(self) -> dict[tuple[str, int], int]:
        """Acknowledged messages whose echo has not come: (log, number) to seq."""
        return self._acks
