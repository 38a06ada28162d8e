"""Which workers have members of a log, and what they are to be told of its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from relay import limits
from relay.bus.link import Link, Port
from relay.bus.messages import ITEMS_PER_MESSAGE, Batch, Erased, Event, Heads
from relay.chat.partition import partition_of
from relay.chunking import chunks
from relay.store.log import Stored

_new: Final = tuple.__new__
"""Makes a NamedTuple without the call of Python that its own ``__new__`` is."""
HeadsOf = Callable[[list[str]], list[list[str | bytes | int]]]


class Interest:
    """A batch goes to exactly the workers that subscribed (docs/architecture.md, "Two roles of a
    worker").
    """

    def __init__(self) -> None:
        self.logs: dict[str, dict[Port, None]] = {}
        """Log to the workers that follow it."""
        self._of_port: dict[Port, set[str]] = {}
        self._published: dict[Port, dict[str, None]] = {}
        """Per worker, the logs that it has been sent something of since heads were last sent."""

    def add(self, log: str, port: Port) -> None:
        """A worker follows a log from now on."""
        self.logs.setdefault(log, {})[port] = None
        self._of_port.setdefault(port, set()).add(log)

    def remove(self, log: str, port: Port) -> None:
        """A worker follows a log no more."""
        ports = self.logs.get(log)
        if ports is not None and port in ports:
            del ports[port]
            self._of_port[port].discard(log)
            if not ports:
                del self.logs[log]

    def drop(self, port: Port) -> None:
        """A worker is gone."""
        for log in list(self._of_port.pop(port, ())):
            ports = self.logs[log]
            del ports[port]
            if not ports:
                del self.logs[log]
        self._published.pop(port, None)

    def forget(self, port: Port, partition: int) -> None:
        """A worker follows nothing in a partition, until it sends again what."""
        for log in list(self._of_port.get(port, ())):
            if partition_of(log) == partition:
                self.remove(log, port)

    def forget_partition(self, partition: int) -> None:
        """Nobody follows anything in a partition here any more: it has another home."""
        for port in list(self._of_port):
            self.forget(port, partition)

    def erased(self, log: str) -> None:
        """Tell all workers that follow a log that what they keep of its pages is not true."""
        for port in self.logs.get(log, ()):
            port.send(Erased(log))

    def publish_rows(self, log: str, rows: list[Stored]) -> None:
        """Send committed entries of one log to all workers that follow it."""
        if len(rows) == 1:  # the lone message
            epoch, seq, prev, packed = rows[0]
            self.publish(_new(Batch, (log, prev, epoch, seq, 1, packed, False)))
        else:
            for batch in batches(log, rows):
                self.publish(batch)

    def publish_control(self, log: str, row: Stored) -> None:
        """Send one control entry: who may read behind it may be others than before."""
        epoch, seq, prev, packed = row
        self.publish(Batch(log, prev, epoch, seq, 1, packed, True))

    def publish(self, message: Batch | Event) -> None:
        """Send to all workers that follow the log."""
        for port in self.logs.get(message.log, ()):
            port.publish(message)
            if type(message) is Batch and isinstance(port, Link):
                self._published.setdefault(port, {})[message.log] = None

    def send_heads(self, heads_of: HeadsOf) -> None:
        """Tell each worker the heads of what it was sent lately: no tail is lost in silence.

        Called about once a second. A link with publishes still waiting is left for the next time:
        heads are control and would overtake them.
        """
        for port, names in list(self._published.items()):
            if isinstance(port, Link) and not port.idle:
                continue
            del self._published[port]
            self.send(port, names, heads_of)

    @staticmethod
    def send(port: Port, names: Iterable[str], heads_of: HeadsOf) -> None:
        """Tell one worker the heads of some logs."""
        heads = heads_of(list(names))
        for chunk in chunks(heads, count_max=ITEMS_PER_MESSAGE):
            port.send(Heads(list(chunk)))


def batches(name: str, rows: list[Stored]) -> list[Batch]:
    """Return committed rows of one log as bus batches of at most one record each."""
    sizes = [len(row.packed) for row in rows]
    pieces = chunks(rows, sizes=sizes, bytes_max=limits.RECORD_CONTENT_BYTES_MAX)
    return [_batch(name, piece) for piece in pieces]


def _batch(name: str, rows: Sequence[Stored]) -> Batch:
    last = rows[-1]
    content = last.packed if len(rows) == 1 else b"".join([row.packed for row in rows])
    return _new(Batch, (name, rows[0].prev, last.epoch, last.seq, len(rows), content, False))
