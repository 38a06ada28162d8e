"""Publishes what happens in a log to exactly those workers that have members of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, final

from relay import limits
from relay.bus.link import Link, Port
from relay.bus.messages import ITEMS_PER_MESSAGE, Batch, Event, Heads
from relay.chat.entries import Extra, Kind, Submission
from relay.chat.partition import partition_of
from relay.chat.rooms.events import CONTENT_TYPE as ROOM_CONTROL
from relay.chunking import chunks
from relay.store.log import Began, Outcome, Repeated, Stored

if TYPE_CHECKING:
    from relay.server.worker.home.submissions import Waiting

SYSTEM: Final = int(Kind.SYSTEM)
REDACTION: Final = int(Kind.REDACTION)
_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""
HeadsOf = Callable[[list[str]], list[list[str | bytes | int]]]


class Interest:
    """Which workers follow which logs.

    A batch is sent only to those (docs/architecture.md, "Two roles of a worker").
    """

    def __init__(self) -> None:
        self.logs: dict[str, dict[Port, None]] = {}
        """The workers that follow each log."""
        self._of_port: dict[Port, set[str]] = {}
        self._published: dict[Port, dict[str, None]] = {}
        """For each worker: the logs published to it since heads were last sent."""

    def add(self, log: str, port: Port) -> None:
        """A worker follows a log from now on."""
        self.logs.setdefault(log, {})[port] = None
        self._of_port.setdefault(port, set()).add(log)

    def remove(self, log: str, port: Port) -> None:
        """A worker no longer follows a log."""
        ports = self.logs.get(log)
        if ports is not None and port in ports:
            del ports[port]
            self._of_port[port].discard(log)
            if not ports:
                del self.logs[log]

    def drop(self, port: Port) -> None:
        """A worker has died."""
        for log in list(self._of_port.pop(port, ())):
            ports = self.logs[log]
            del ports[port]
            if not ports:
                del self.logs[log]
        self._published.pop(port, None)

    def forget(self, port: Port, partition: int) -> None:
        """A worker follows nothing in a partition until it subscribes again."""
        for log in list(self._of_port.get(port, ())):
            if partition_of(log) == partition:
                self.remove(log, port)

    def forget_partition(self, partition: int) -> None:
        """Remove all followers in a partition: it has another home."""
        for port in list(self._of_port):
            self.forget(port, partition)

    def publish_rows(self, log: str, rows: list[Stored]) -> None:
        """Send committed entries of one log to all workers that follow it."""
        if len(rows) == 1:  # the common case: one message
            epoch, seq, prev, packed = rows[0]
            self.publish(_new(Batch, (log, prev, epoch, seq, 1, packed, False)))
        else:
            for batch in batches(log, rows):
                self.publish(batch)

    def publish_control(self, log: str, row: Stored) -> None:
        """Send one control entry: other users may be able to read what follows it."""
        epoch, seq, prev, packed = row
        self.publish(Batch(log, prev, epoch, seq, 1, packed, True))

    def publish(self, message: Batch | Event) -> None:
        """Send a message to all workers that follow the log."""
        for port in self.logs.get(message.log, ()):
            port.publish(message)
            if type(message) is Batch and isinstance(port, Link):
                self._published.setdefault(port, {})[message.log] = None

    def send_heads(self, heads_of: HeadsOf) -> None:
        """Tell each worker the heads of the logs that it was sent recently, so that no tail is
        lost.

        Called about once a second. A link with waiting publishes is skipped: heads are control
        messages and would overtake them.
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


@final
class Publishing:
    """Publishes what commits have stored, and counts it."""

    def __init__(self, interest: Interest, on_erased: Callable[[int], None]) -> None:
        """Create with counters at zero.

        Args:
            interest: which workers receive batches.
            on_erased: called with the partition after an erasure, in the turn that sends the
                acknowledgement and before it is sent.
        """
        self.interest = interest
        self._on_erased = on_erased
        self.accepted = 0
        """Messages. Entries logged by accounts are counted elsewhere."""
        self.repeated = 0
        self.on_direct: Callable[[str, str, int], None] = _nothing
        """Called for each direct message: the sender's inbox, the recipient, its seq."""

    def publish_lone(self, log: str, stored: Stored) -> None:
        """Publish a message that was committed alone, and count it."""
        self.accepted += 1
        if log in self.interest.logs:
            epoch, seq, prev, packed = stored
            self.interest.publish(_new(Batch, (log, prev, epoch, seq, 1, packed, False)))

    def publish(self, group: list[Waiting], outcomes: list[Outcome]) -> None:
        """Publish the new entries of a group, and count them."""
        interested = self.interest.logs
        by_log: dict[str, list[Stored]] = {}
        for waiting, outcome in zip(group, outcomes, strict=True):
            if type(outcome) is Stored:
                submission = waiting.submission
                log = submission.log
                if submission.kind == SYSTEM:
                    if submission.content_type == ROOM_CONTROL:
                        if log in interested:
                            self._publish_control(log, by_log.pop(log, None), outcome)
                        continue
                    # Entries logged by an account do not change who reads its inbox.
                elif submission.extra is None:
                    self.accepted += 1
                else:
                    self._stored_more(submission, submission.extra, outcome.seq)
                if log in interested:
                    by_log.setdefault(log, []).append(outcome)
            elif type(outcome) is Repeated:
                self.repeated += 1
                if waiting.submission.kind == REDACTION:
                    # Its first commit may have been stored although the disk reported an error.
                    self._on_erased(partition_of(waiting.submission.log))
            elif type(outcome) is Began:
                self.accepted += 1
                log = waiting.submission.log
                if log in interested:
                    self._publish_control(log, by_log.pop(log, None), outcome.first)
                    by_log[log] = [_new(Stored, outcome[:4])]
        for name, rows in by_log.items():
            self.interest.publish_rows(name, rows)

    def _publish_control(self, log: str, before: list[Stored] | None, row: Stored) -> None:
        """End the batch: other users may be able to read what follows."""
        if before:
            self.interest.publish_rows(log, before)
        self.interest.publish_control(log, row)

    def _stored_more(self, submission: Submission, extra: Extra, seq: int) -> None:
        """Handle a stored direct message, or a stored entry about another one."""
        if submission.kind == REDACTION:
            self._on_erased(partition_of(submission.log))
        if extra.origin_seq:
            return  # it was counted when it was accepted
        self.accepted += 1
        if extra.to and extra.to != submission.sender:
            self.on_direct(submission.log, extra.to, seq)


def batches(name: str, rows: list[Stored]) -> list[Batch]:
    """Return committed rows of one log as bus batches of at most one record each."""
    sizes = [len(row.packed) for row in rows]
    pieces = chunks(rows, sizes=sizes, bytes_max=limits.RECORD_CONTENT_BYTES_MAX)
    return [_batch(name, piece) for piece in pieces]


def _batch(name: str, rows: Sequence[Stored]) -> Batch:
    last = rows[-1]
    content = last.packed if len(rows) == 1 else b"".join([row.packed for row in rows])
    return _new(Batch, (name, rows[0].prev, last.epoch, last.seq, len(rows), content, False))


def _nothing(*_: object) -> None:
    """Do nothing: default of ``on_direct``."""
