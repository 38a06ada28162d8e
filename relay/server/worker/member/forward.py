"""Sends on their way to the homes of their logs, in order, until they are answered.

A send stays here until its home has answered. When a home dies or moves, everything unanswered is
sent again, in order; the log drops repeats (invariant "Once, in order"). What is on its way to one
partition is bounded by credit (invariant "The bus cannot deadlock"): beyond it, clients that send
there are not read from.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.bus.messages import Acks, Refused
from relay.chat.entries import Submission, is_copy
from relay.chat.partition import PARTITIONS, partition_of
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.routes import Routes

CREDIT_BYTES: Final = 512 * 1024
"""Per partition and forwarding worker; given back with the answers. What is on its way is served in
the order in which it was sent, so it is what anybody's message may wait for: as small ones, 2,600,
about 30 ms of commits. One sender's whole window fits: who sends alone is never stopped by it."""
REFUSE_BYTES: Final = 8 * 1024 * 1024
"""What clients had sent already when they were stopped, and what those send who write little, may
exceed the credit; this is the end."""
SENDER_BYTES: Final = 16_384
"""Unanswered bytes of one sender, ``OVERHEAD_BYTES`` of each send included, that do not have it
paused: whoever writes little does not wait for those who write without end."""
OVERHEAD_BYTES: Final = 200
"""What a small send costs besides its body."""


class Sender:
    """Whose send it is: a session's sends. A base class: compiled, its calls are direct."""

    __slots__ = ("bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        """Sends that are not answered."""
        self.bytes = 0
        """Of their bodies."""

    def acknowledged(self, submission: Submission, epoch: bytes, seq: int) -> None:
        """Committed as (epoch, seq)."""
        raise NotImplementedError

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """Not stored. ``arg``: see ErrorCode."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Stop reading: there is no credit."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """There is credit again."""
        raise NotImplementedError


class Forward:
    """All sends of this worker's sessions that are not answered yet."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self.credit_bytes = CREDIT_BYTES
        self.refuse_bytes = REFUSE_BYTES
        self._unanswered: list[dict[int, tuple[Submission, Sender]]] = [
            {} for _ in range(PARTITIONS)
        ]
        self._bytes = [0] * PARTITIONS
        self._paused: list[dict[Sender, None]] = [{} for _ in range(PARTITIONS)]
        self._count = 0

    def submit(self, sender: Sender, submission: Submission) -> None:
        """Send a submission to its log's home, now or when there is one."""
        partition = partition_of(submission.log)
        size = len(submission.body) + OVERHEAD_BYTES
        if self._bytes[partition] + size > self.refuse_bytes:
            text = "the log's home cannot keep up"
            sender.refused(submission, int(ErrorCode.BUSY), limits.RETRY_MS, text)
            return
        self._bytes[partition] += size
        self._count += 1
        tag = self._count * PARTITIONS + partition
        self._unanswered[partition][tag] = (submission, sender)
        if (
            self._bytes[partition] > self.credit_bytes
            and sender.bytes + sender.count * OVERHEAD_BYTES > SENDER_BYTES
            and sender not in self._paused[partition]
        ):
            self._paused[partition][sender] = None
            sender.pause_reading()
        port = self._routes.port_of(submission.log)
        if port is not None:
            port.submit(tag, submission)

    def attach(self, partition: int, port: Port) -> None:
        """A home is there (again): send everything unanswered, in order."""
        for tag, (submission, _) in list(self._unanswered[partition].items()):
            port.submit(tag, submission)

    def drop(self, handle: str, key_ids: Collection[bytes]) -> None:
        """Forget what revoked devices have sent and nobody has answered, home or no home."""
        for unanswered in self._unanswered:
            gone = [
                tag
                for tag, (submission, _) in unanswered.items()
                if submission.sender == handle
                and submission.key_id in key_ids
                and not is_copy(submission)
            ]
            for tag in gone:
                self._answered(tag)

    def on_acks(self, _: Port, message: Acks) -> None:
        """Take a home's acknowledgements."""
        for tag, epoch, seq in message.acks:
            assert isinstance(tag, int)
            assert isinstance(epoch, bytes)
            assert isinstance(seq, int)
            found = self._answered(tag)
            if found is not None:
                submission, sender = found
                sender.acknowledged(submission, epoch, seq)

    def on_refused(self, _: Port, message: Refused) -> None:
        """Take a home's refusal."""
        found = self._answered(message.tag)
        if found is not None:
            submission, sender = found
            sender.refused(submission, message.code, message.arg, message.text)

    def _answered(self, tag: int) -> tuple[Submission, Sender] | None:
        """Forget a send; None when it was answered before (sent twice, answered twice)."""
        partition = tag % PARTITIONS
        found = self._unanswered[partition].pop(tag, None)
        if found is None:
            return None
        self._bytes[partition] -= len(found[0].body) + OVERHEAD_BYTES
        paused = self._paused[partition]
        if paused and self._bytes[partition] <= self.credit_bytes // 2:
            self._paused[partition] = {}
            for waiting in paused:
                waiting.resume_reading()
        return found

    @property
    def unanswered(self) -> int:
        """How many sends are on their way."""
        return sum(map(len, self._unanswered))


assert CREDIT_BYTES >= (
    limits.SENDS_UNACKNOWLEDGED_BYTES_MAX + limits.SENDS_UNACKNOWLEDGED_MAX * OVERHEAD_BYTES
)
