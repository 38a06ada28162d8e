"""Forwards sends to the homes of their logs, in order, and keeps them until they are answered.

When a home dies or moves, all unanswered sends are sent again, in order; the log drops repeats
(invariant "Once, in order"). No send waits for ever: one without an answer for long is refused
temporarily. A home may still have stored it, or store it later; the client resends it under the
same id, or tells its user that the outcome is unknown. What waits for one partition is bounded by
credit (invariant "The bus cannot deadlock"): beyond it, clients that send there are not read. What
is in flight to another worker is bounded by its ``window``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.bus.messages import TAG_STEP, Acks, Refused
from relay.chat.entries import is_copy
from relay.chat.partition import PARTITIONS, partition_of
from relay.server.worker.member.reply import Expiry
from relay.server.worker.member.routes import NO_ANSWER, NO_HOME
from relay.server.worker.member.sender import OVERHEAD_BYTES
from relay.server.worker.member.window import WINDOW_BYTES, Run, Window, forget
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission
    from relay.server.worker.member.routes import Routes
    from relay.server.worker.member.sender import Sender

CREDIT_BYTES: Final = 512 * 1024
"""Per partition and forwarding worker; returned with the answers. One sender's whole window fits,
so a single sender is never stopped by it."""
REFUSE_BYTES: Final = 8 * 1024 * 1024
"""Bytes beyond the credit: what clients had already sent when they were stopped, and sends of light
users. Beyond this, sends are refused."""
SENDER_BYTES: Final = 16_384
"""Unanswered bytes of one sender, including ``OVERHEAD_BYTES`` per send, up to which it is not
paused: light users do not wait for heavy ones."""


class Forward:
    """All unanswered sends of this worker's sessions."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self.credit_bytes = CREDIT_BYTES
        self.refuse_bytes = REFUSE_BYTES
        self.window_bytes = WINDOW_BYTES
        self._unanswered: list[dict[int, Run]] = [{} for _ in range(PARTITIONS)]
        """By tag, in order of time."""
        self._windows: dict[Port, Window] = {}
        """For each other worker that something was sent to."""
        self.waiting: dict[Window, None] = {}
        """Windows with waiting sends: call ``release`` at the end of the turn."""
        self._bytes = [0] * PARTITIONS
        self._paused: list[dict[Sender, None]] = [{} for _ in range(PARTITIONS)]
        self._count = 0
        self._expiry = Expiry()

    def submit(self, sender: Sender, run: list[Submission], size: int) -> None:
        """Send one sender's messages for one log to its home, now or when the home is available.

        ``size``: of them all, as they are counted (``size_of``).
        """
        partition = partition_of(run[0].log)
        held = self._bytes[partition] + size
        if held > self.refuse_bytes:
            held = self._refuse(sender, run, self._bytes[partition])
            if not run:
                return
            size = held - self._bytes[partition]
        first = (self._count + 1) * PARTITIONS + partition
        offered = Run(sender, first, [*run], size)
        if len(run) == 1:  # the common case: one message
            self._unanswered[partition][first] = offered
        else:
            tags = range(first, first + len(run) * TAG_STEP, TAG_STEP)
            self._unanswered[partition].update(dict.fromkeys(tags, offered))
        self._bytes[partition] = held
        self._count += len(run)
        if (
            held > self.credit_bytes
            and sender.bytes + sender.count * OVERHEAD_BYTES > SENDER_BYTES
            and sender not in self._paused[partition]
        ):
            self._paused[partition][sender] = None
            sender.pause_reading()
        port = self._routes.ports[partition]
        if port is None:
            return
        if port is self._routes.own:
            port.submit(first, run)
            return
        window = self._windows.get(port) or self._window(port)
        if window.submit(offered, run):
            self.waiting[window] = None

    def _refuse(self, sender: Sender, run: list[Submission], held: int) -> int:
        """Refuse the end of a run that exceeds the limit; return the bytes held with the rest."""
        taken = 0
        for submission in run:
            size = len(submission.body) + OVERHEAD_BYTES
            if held + size > self.refuse_bytes:
                break
            held += size
            taken += 1
        refused = run[taken:]
        del run[taken:]
        for submission in refused:
            text = "the log's home cannot keep up"
            sender.refused(submission, int(ErrorCode.BUSY), limits.RETRY_MS, text)
        return held

    def release(self) -> None:
        """Send what there is room for now. Called by the turn before it writes to the links."""
        for window in list(self.waiting):
            if not window.release():
                del self.waiting[window]

    def _window(self, port: Port) -> Window:
        window = self._windows.get(port)
        if window is None:
            for one in [one for one, window in self._windows.items() if not window.flows]:
                del self._windows[one]  # possibly of workers that are gone
            window = self._windows[port] = Window(port, self.window_bytes)
        return window

    def attach(self, partition: int, port: Port) -> None:
        """A home is available (again): resend everything unanswered, in order."""
        for run in dict.fromkeys(self._unanswered[partition].values()):
            if port is self._routes.own:
                forget(run)
                for start, sends in run.pieces(0, len(run.submissions)):
                    port.submit(run.first + start * TAG_STEP, sends)
            else:
                self._window(port).send_anew(run)

    def give_up(self, partitions: Collection[int]) -> None:
        """Refuse temporarily what has waited for long. Must be called once a second.

        Args:
            partitions: those whose homes have been away for long: nothing waits for them.
        """
        late = self._expiry.tick(self._count)
        for partition, unanswered in enumerate(self._unanswered):
            away = partition in partitions
            tags: list[int] = []
            for tag in unanswered:
                if not away and tag // PARTITIONS > late:
                    break  # they are in order of time
                tags.append(tag)
            text = NO_HOME if away else NO_ANSWER
            for tag in tags:
                self._refused(tag, int(ErrorCode.UNAVAILABLE), limits.RETRY_MS, text)

    def drop(self, handle: str, key_ids: Collection[bytes]) -> None:
        """Drop the unanswered sends of revoked devices, whether or not there is a home."""
        for unanswered in self._unanswered:
            for tag, run in list(unanswered.items()):
                submission = run.submissions[(tag - run.first) // TAG_STEP]
                assert submission is not None, "it is not answered"
                if (
                    submission.sender == handle
                    and submission.key_id in key_ids
                    and not is_copy(submission)
                ):
                    self._answered(tag, 1)

    def on_acks(self, _: Port, message: Acks) -> None:
        """Handle a home's acknowledgements."""
        for tag, epoch, seq, count in message.acks:
            while count:
                run, sends, passed = self._answered(tag, count)
                if run is not None:
                    run.sender.acknowledged(sends, epoch, seq)
                if passed == count:
                    break
                tag += passed * TAG_STEP
                seq += passed
                count -= passed

    def on_refused(self, _: Port, message: Refused) -> None:
        """Handle a home's refusal."""
        self._refused(message.tag, message.code, message.arg, message.text)

    def _refused(self, tag: int, code: int, arg: int, text: str) -> None:
        run, sends, _ = self._answered(tag, 1)
        if run is not None:
            run.sender.refused(sends[0], code, arg, text)

    def _answered(self, first: int, count: int) -> tuple[Run | None, list[Submission], int]:
        """Remove answered sends of one run, from a tag on.

        Returns:
            The run, these sends, and the number of tags. If the first was answered before (sent
            twice, so answered twice): None, no sends, 1.
        """
        partition = first % PARTITIONS
        unanswered = self._unanswered[partition]
        run = unanswered.get(first)
        if run is None:
            return None, [], 1
        start, size = (first - run.first) // TAG_STEP, run.size
        sends = run.answered(start, start + count)
        count = len(sends)
        if count == 1:
            del unanswered[first]
        else:
            for tag in range(first, first + count * TAG_STEP, TAG_STEP):
                del unanswered[tag]
        held = self._bytes[partition] = self._bytes[partition] - (size - run.size)
        paused = self._paused[partition]
        if paused and held <= self.credit_bytes // 2:
            self._paused[partition] = {}
            for waiting in paused:
                waiting.resume_reading()
        return run, sends, count

    @property
    def unanswered(self) -> int:
        """Number of unanswered sends."""
        return sum(map(len, self._unanswered))


assert CREDIT_BYTES >= (
    limits.SENDS_UNACKNOWLEDGED_BYTES_MAX + limits.SENDS_UNACKNOWLEDGED_MAX * OVERHEAD_BYTES
)
