"""What a commit has stored: to the workers that follow its logs, and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from relay.chat.entries import Extra, Kind, Submission
from relay.chat.rooms.events import CONTENT_TYPE as ROOM_CONTROL
from relay.store.log import Began, Outcome, Repeated, Stored

if TYPE_CHECKING:
    from relay.server.worker.home.interest import Interest
    from relay.server.worker.home.submissions import Waiting

SYSTEM: Final = int(Kind.SYSTEM)
REDACTION: Final = int(Kind.REDACTION)
_new: Final = tuple.__new__


@final
class Publishing:
    """See the module's docstring."""

    def __init__(self, interest: Interest) -> None:
        """Begin with nothing stored.

        Args:
            interest: where batches go.
        """
        self.interest = interest
        self.accepted = 0
        """Messages; what accounts log is counted elsewhere."""
        self.repeated = 0
        self.on_direct: Callable[[str, str, int], None] = _nothing
        """Told of each direct message: the sender's inbox, the recipient, its number."""

    def publish(self, group: list[Waiting], outcomes: list[Outcome]) -> None:
        """Publish what of a group is new, and count it."""
        interested = self.interest.logs
        if len(outcomes) == 1:  # the lone message
            only, sent = outcomes[0], group[0].submission
            if type(only) is Stored and sent.kind != SYSTEM and sent.extra is None:
                self.accepted += 1
                if sent.log in interested:
                    self.interest.publish_rows(sent.log, [only])
                return
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
                    # What an account logs changes nothing about who reads its inbox.
                elif submission.extra is None:
                    self.accepted += 1
                else:
                    self._stored_more(submission, submission.extra, outcome.seq)
                if log in interested:
                    by_log.setdefault(log, []).append(outcome)
            elif type(outcome) is Repeated:
                self.repeated += 1
            elif type(outcome) is Began:
                self.accepted += 1
                log = waiting.submission.log
                if log in interested:
                    self._publish_control(log, by_log.pop(log, None), outcome.first)
                    by_log[log] = [_new(Stored, outcome[:4])]
        for name, rows in by_log.items():
            self.interest.publish_rows(name, rows)

    def _publish_control(self, log: str, before: list[Stored] | None, row: Stored) -> None:
        """End the batch: who may read what follows may be others than those before it."""
        if before:
            self.interest.publish_rows(log, before)
        self.interest.publish_control(log, row)

    def _stored_more(self, submission: Submission, extra: Extra, seq: int) -> None:
        """A direct message, or an entry about another one, was stored."""
        if submission.kind == REDACTION:
            self.interest.erased(submission.log)
        if extra.origin_seq:
            return  # it was counted when it was accepted
        self.accepted += 1
        if extra.to and extra.to != submission.sender:
            self.on_direct(submission.log, extra.to, seq)


def _nothing(*_: object) -> None:
    """Before there are direct messages."""
