"""What members submit to the logs of a home: refused, dropped, or queued until it is committed."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from relay.chat.entries import UNDECIDED, Submission
from relay.chat.partition import PARTITIONS, partition_of
from relay.server.worker.home.accounts.operators import Confirmed, Operators
from relay.server.worker.home.committing.commits import RunningCommits
from relay.server.worker.home.committing.revoked_devices import RevokedDevices
from relay.server.worker.home.submissions import QUEUED_BYTES_MAX, Submissions, Waiting, refuse
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.home.direct.parts import Direct


class SubmissionQueues:
    """A queue for each partition."""

    def __init__(
        self,
        attached: Container[tuple[Port, int]],
        wake: Callable[[], None],
        operators: Operators,
    ) -> None:
        """Create without submissions.

        Args:
            attached: which workers may submit to which partitions.
            wake: requests a turn.
            operators: confirms who is an operator.
        """
        self._attached = attached
        self._wake = wake
        self.queued_bytes_max = QUEUED_BYTES_MAX
        """For each partition."""
        self.by_partition = [Submissions() for _ in range(PARTITIONS)]
        self.waiting: dict[int, None] = {}
        """Partitions with submissions; the first is the next to commit."""
        self.revoked = RevokedDevices()
        """The devices from which nothing more is stored."""
        self.operators = operators
        self.running = RunningCommits()
        """Wait for these after ``revoke``: they may still store revoked submissions."""
        self.direct: Direct | None = None
        """The parts that handle direct messages; set before anything is submitted."""

    def forget(self, port: Port, partition: int) -> None:
        """A worker is about to resend its submissions for a partition: drop them."""
        if self.direct is not None:
            self.direct.forget(port, partition)
        self.running.forget(partition, port)
        submissions = self.by_partition[partition]
        if submissions.count:
            submissions.remove(lambda waiting: waiting.port is port)
            if not submissions.count:
                self.waiting.pop(partition, None)

    def submit(self, run: list[Waiting]) -> None:
        """Queue one sender's submissions to one log. A submission with an ``extra`` comes alone."""
        first = run[0]
        submission = first.submission
        index = partition_of(submission.log)
        if (first.port, index) not in self._attached:
            return
        extra, revoked = submission.extra, self.revoked
        assert extra is None or len(run) == 1
        if submission.operator:
            confirmed = self.operators.confirms(submission.sender, submission.root)
            if confirmed is not Confirmed.YES:
                for waiting in run:
                    waiting.submission = waiting.submission._replace(operator=False)
                    waiting.unconfirmed = confirmed is Confirmed.UNKNOWN
        if extra is not None and extra.origin_seq:
            pass  # accepted before; the sender may have left since
        elif revoked.devices and revoked.has(submission.sender, submission.key_id):
            refuse(run, ErrorCode.KEY_REFUSED)
            return
        elif extra is not None and extra.to and extra.verdict == UNDECIDED:
            assert self.direct is not None
            self.direct.permissions.take(first)
            return
        submissions, size = self.by_partition[index], len(submission.body)
        if len(run) > 1:
            size = sum([len(one.submission.body) for one in run])
        if submissions.bytes + size > self.queued_bytes_max:
            refuse(run, ErrorCode.BUSY, "the log's home cannot keep up")
            return
        submissions.put(run, size)
        self.waiting[index] = None

    def submit_own(self, port: Port, tag: int, submission: Submission) -> None:
        """Queue an entry that this worker itself has decided on, for a log of its own."""
        index, run = partition_of(submission.log), [Waiting(port, tag, submission)]
        if self.revoked.kept(run):  # otherwise its requester was revoked meanwhile
            self.by_partition[index].put(run, len(submission.body))
            self.waiting[index] = None
            self._wake()

    def revoke(self, handle: str, key_ids: list[bytes], *, lifted: bool) -> None:
        """Store nothing from these devices, including what waits. ``lifted``: accept them again."""
        self.operators.forget(handle)
        if lifted:
            self.revoked.lift(handle, key_ids)
            return
        self.revoked.add(handle, key_ids)
        if self.direct is not None:
            self.direct.permissions.forget(self.revoked.includes)
        for index, submissions in enumerate(self.by_partition):
            if submissions.count:
                removed = submissions.remove(self.revoked.includes)
                if not submissions.count:
                    self.waiting.pop(index, None)
                # A waiting change of a room blocks its other changes until it is answered.
                refuse(removed, ErrorCode.KEY_REFUSED)
