"""Decides the outcome of each submission of a batch, given what is committed. No I/O.

Each submission has its own outcome: one that cannot be stored changes nothing and does not affect
others. Time and randomness are passed in, and values derived from them are part of the changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay import limits
from relay.chat.dedup import Place, place
from relay.chat.entries import Entry, Extra, Kind, Submission, committed, packable
from relay.chat.names import INBOX_PREFIX
from relay.chat.relations import refusal
from relay.chat.repeats import pushed
from relay.errors import EnvelopeError
from relay.store.derived import copy_links
from relay.store.log import (
    Began,
    Denied,
    Expected,
    Forbidden,
    IdConflict,
    LogRefused,
    Outcome,
    Repeated,
    Stored,
    UnknownOutcome,
)
from relay.store.plain import append_row
from relay.store.refusals import (
    FULL,
    LOG_DAMAGED,
    TOO_MANY_EDITS,
    as_repeat,
    for_another_room,
    unpackable,
)
from relay.store.rules import Rules
from relay.store.state import (
    LOGS_MAX,
    SEQ_BITS,
    SEQ_MASK,
    UNREADABLE,
    Changes,
    LogEnd,
    More,
    ProducerEnd,
    Target,
    View,
    row_id,
)

Pack = Callable[[tuple[object, ...]], bytes]
"""An entry's fields -> the bytes sent to readers."""
EDIT: Final = int(Kind.EDIT)
REDACTION: Final = int(Kind.REDACTION)
MARK: Final = int(Kind.MARK)
ERASED: Final = int(Kind.ERASED)

SYSTEM: Final = int(Kind.SYSTEM)
_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""


class Decision:
    """Decides one batch; each submission sees what was accepted before it."""

    __slots__ = (
        "_accepted", "_batch", "_entries", "_generation", "_indexed", "_logs_max", "_next_log_id",
        "_now_ms", "_outcomes", "_pack", "_random_bytes", "_rules", "_view", "changes", "special",
    )  # fmt: skip

    def __init__(
        self,
        view: View,
        *,
        now_ms: int,
        pack: Pack,
        random_bytes: Callable[[int], bytes],
        logs_max: int = LOGS_MAX,
        rules: Rules | None = None,
    ) -> None:
        """Create with nothing accepted.

        Args:
            view: what is committed; modified by this.
            now_ms: the time of the entries, unless their log's last one is later.
            pack: converts the fields of an entry to the bytes sent to readers.
            random_bytes: for new epochs.
            logs_max: how many logs the partition may hold.
            rules: who may append; None: everybody.
        """
        self._view = view
        self._generation = view.generation
        self._now_ms = now_ms
        self._pack = pack
        self._random_bytes = random_bytes
        self._logs_max = logs_max
        self._rules = rules
        self._next_log_id = view.next_log_id
        self._batch: list[Submission] = []
        self._outcomes: list[Outcome] = []
        self._accepted: dict[tuple[str, bytes, int], tuple[Stored | Began, Submission]] = {}
        """What this batch has appended, by id, up to ``_indexed``. Built on demand."""
        self._indexed = 0
        self.special = False
        """True once anything but new messages in rooms without rules was offered."""
        self.changes = Changes(view.logs, view.producers)
        self.changes.copies = view.copies
        self._entries = self.changes.entries

    def decide(self, batch: list[Submission]) -> list[Outcome]:
        """Return the outcomes of the first submissions: of as many as the view covers."""
        assert not self._batch
        self._batch, outcomes = batch, self._outcomes
        ends, ruled = self._view.ends, self._rules is not None
        index, count = 0, min(len(ends), len(batch))
        while index < count:
            log = ends[index].log
            if log.generation == self._generation and not (ruled and log.guarded):
                first = index
                index = append_row(
                    ends, batch, first, count, now_ms=self._now_ms, pack=self._pack,
                    entries=self._entries, outcomes=outcomes,
                )  # fmt: skip
                if index > first:
                    continue
            self.special = True
            outcomes.append(self.offer(ends[index], batch[index]))
            index += 1
        return outcomes

    def offer(self, end: ProducerEnd, submission: Submission) -> Outcome:
        """Decide one submission, given the end of its producer."""
        counter = submission.counter
        extra = submission.extra
        if extra is not None:
            early = self._early(end, submission, extra)
            if early is not None:
                return early
            if extra.origin_seq:
                return self._append(end, self._resolved(end, submission, extra), False)
        elif counter != end.counter + 1:
            return self._not_next(end, submission)  # a repeat stays one whatever the rights are
        elif (gone := self._gone(end.log, submission)) is not None:
            return gone
        if (end.log.guarded or submission.kind) and self._rules is not None:
            try:
                return self._judged(self._rules, end, submission)
            except EnvelopeError:  # this log's stored state is invalid; nothing has changed so far
                return LOG_DAMAGED
        return self._append(end, submission, False)

    def _gone(self, log: LogEnd, submission: Submission) -> Outcome | None:
        identity, rules = submission.identity, self._rules
        return None if not identity or rules is None else for_another_room(rules, log, identity)

    def _judged(self, rules: Rules, end: ProducerEnd, submission: Submission) -> Outcome:
        log = end.log
        if submission.kind == SYSTEM:
            return self._append_control(rules, end, submission)
        extra = submission.extra
        target = None
        if extra is not None and extra.about_seq and submission.kind != MARK:
            target = self._view.targets[submission.log, extra.about_epoch, extra.about_seq].entry
        first = rules.before(log, submission, target)
        if first is None:
            return self._append(end, submission, False)
        if isinstance(first, Denied):
            return first
        refused = self._cannot_follow(log, submission)
        if refused is not None:
            return refused  # otherwise the previous entry would be committed unreported
        author = ProducerEnd(log, 0, (), 0)
        began = self._append_control(rules, author, first)
        if type(began) is not Stored:
            return began
        self.changes.producers[first.log, first.producer] = author
        stored = self._append(end, submission, False)
        return Began(*stored, first=began) if type(stored) is Stored else stored

    def _cannot_follow(self, log: LogEnd, submission: Submission) -> LogRefused | None:
        """Return why a message cannot be appended after another entry; None: it can."""
        seq = log.seq + 2
        if seq > SEQ_MASK:
            return FULL
        try:
            self._pack(committed(submission, log.epoch, seq, seq - 1, self._now_ms))
        except (ValueError, TypeError, OverflowError) as error:
            return unpackable(error)
        return None

    def _append_control(self, rules: Rules, end: ProducerEnd, submission: Submission) -> Outcome:
        log = end.log
        after = rules.after(log, submission)
        if after is None:
            return self._append(end, submission, False)
        if isinstance(after, Denied):
            return after
        begins = after.begins or not log.id
        outcome = self._append(end, submission, after.begins)
        if type(outcome) is Stored:
            if begins:
                log.begun = log.epoch
            log.packed_state, log.state, log.guarded = after.packed, after.state, after.guarded
            row = log.id, log.seq, int(after.guarded), after.due_ms, after.packed
            self.changes.states[log.id] = row
            if after.roles:
                more = self._more()
                for handle, root, role, lasting in after.roles:
                    more.members[handle, log.id] = root, role, lasting
        return outcome

    def _append(self, end: ProducerEnd, submission: Submission, begins: bool) -> Outcome:
        """Store it. ``begins``: a new epoch begins with it in any case."""
        counter = submission.counter
        extra = submission.extra
        state = end.log
        prev = state.seq
        seq = prev + 1
        epoch = state.epoch
        begins = begins or state.generation != self._generation
        if begins:
            if state.id == 0 and self._next_log_id > self._logs_max:
                return LogRefused(f"its partition holds {self._logs_max} logs and takes no new one")
            epoch = self._random_bytes(limits.EPOCH_BYTES)
        if seq > SEQ_MASK:
            return FULL
        time_ms = state.time_ms
        if self._now_ms > time_ms:  # time never goes back in a log
            time_ms = self._now_ms
        try:
            if extra is None:  # as ``committed``, which is a call of Python in a compiled build too
                entry = (submission.log, epoch, seq, prev, time_ms) + submission[1:8]  # noqa: RUF005
                packed = self._pack(entry)
            else:
                packed = self._pack(committed(submission, epoch, seq, prev, time_ms))
        except (ValueError, TypeError, OverflowError) as error:
            return unpackable(error)
        # Nothing has changed before this line, and nothing fails after it.
        if begins:
            self._begin_epoch(submission.log, state, epoch)
        state.seq = seq
        state.time_ms = time_ms
        if extra is not None and extra.origin_seq:
            chain, jump = copy_links(extra.origin_epoch, extra.origin_seq)
            counter = extra.origin_seq
        else:
            chain, jump, end.stack = pushed(end.stack, counter, seq)
        end.counter = counter
        self._entries.append((state.id << SEQ_BITS | seq, time_ms, chain, jump, packed))
        if extra is not None:
            self._note(state, submission, extra)
        return _new(Stored, (epoch, seq, prev, packed))

    def _begin_epoch(self, name: str, state: LogEnd, epoch: bytes) -> None:
        """Begin an epoch (invariant "Epochs are segments"). A new log is the simplest case."""
        if state.id == 0:
            state.id = self._next_log_id
            self._next_log_id += 1
            self.changes.new_logs.append((state.id, name))
        state.epoch = epoch
        state.first_seq = state.seq + 1
        state.generation = self._generation
        self.changes.new_epochs.append((state.id, state.first_seq, epoch, state.generation))

    # --- direct messages, and entries about others ----------------------------------------------
    def _early(self, end: ProducerEnd, submission: Submission, extra: Extra) -> Outcome | None:
        """Return the outcome if it is not appended, or None. Repeats come before rights."""
        if extra.origin_seq:
            if end is UNREADABLE:
                return self._not_next(end, submission)
            if extra.origin_seq <= end.counter:
                return Repeated(extra.origin_epoch, 0)
            if extra.origin_after > end.counter:
                return Expected(0)
            return None  # it was accepted by the sender's inbox and can no longer be refused
        if submission.counter != end.counter + 1:
            return self._not_next(end, submission)
        if (gone := self._gone(end.log, submission)) is not None:
            return gone
        if extra.verdict and extra.to:
            return Forbidden(extra.verdict)
        if extra.about_seq and submission.kind != MARK:
            place = submission.log, extra.about_epoch, extra.about_seq
            found = self._view.targets.get(place)
            target = None if found is None else found.entry
            code = refusal(target, submission, extra, ruled=self._rules is not None)
            if code:
                return self._not_about(end.log, submission, int(code))
            if submission.kind == EDIT:
                count = self._view.edit_counts[submission.log, extra.about_seq]
                return None if count < limits.EDITS_MAX else TOO_MANY_EDITS
        return None

    def _not_about(self, log: LogEnd, submission: Submission, code: int) -> Outcome:
        """Return why something cannot be about an entry, if its sender may know that."""
        try:
            hidden = None if self._rules is None else self._rules.hidden(log, submission)
        except EnvelopeError:
            return LOG_DAMAGED
        return Forbidden(code) if hidden is None else hidden

    def _resolved(self, end: ProducerEnd, submission: Submission, extra: Extra) -> Submission:
        """Return what to pack: for a copy, with an id and with positions in this log."""
        if not extra.origin_seq:
            return submission
        place = extra.about_epoch, extra.about_seq
        if extra.about_in:
            place = self._view.places.get(submission, (b"", 0))
        if (submission.log, *place) not in self._view.targets:
            place = b"", 0  # it is no longer stored
        about = extra._replace(about_epoch=place[0], about_seq=place[1])
        return submission._replace(counter=end.log.seq + 1, extra=about)

    def _note(self, log: LogEnd, submission: Submission, extra: Extra) -> None:
        """Record the further changes by an appended entry. ``submission`` is resolved."""
        more = self._more()
        seq, kind = log.seq, submission.kind
        if submission.kind == MARK:
            place = extra.about_epoch, extra.about_seq
            more.marks.append((log.id, submission.body.decode(), *place, extra.origin_after))
            return
        owner = submission.log[len(INBOX_PREFIX) :]
        if extra.origin_seq:
            peer = submission.sender
            more.directs.append((log.id, peer, seq, extra.origin_epoch, extra.origin_seq))
        elif extra.to:
            more.directs.append((log.id, extra.to, seq, b"", 0))
            if extra.to != owner:
                more.pending.append((log.id, seq))
        resolved = submission.extra
        assert resolved is not None
        if not resolved.about_seq:
            return
        if kind == EDIT:
            more.edits.append((log.id, resolved.about_seq, seq))
            edit = Entry(
                submission.log, log.epoch, seq, seq - 1, log.time_ms, *submission[1:8],
                *resolved[:3],
            )  # fmt: skip
            message = submission.log, resolved.about_seq
            self._view.edits.setdefault(message, []).append(Target(row_id(log.id, seq), edit))
            self._view.edit_counts[message] = self._view.edit_counts.get(message, 0) + 1
        elif kind == REDACTION:
            self._erase(log, submission.log, resolved, more)

    def _more(self) -> More:
        more = self.changes.more
        if more is None:
            more = self.changes.more = More()
        return more

    def _erase(self, log: LogEnd, name: str, about: Extra, more: More) -> None:
        """Erase the target of the redaction that was just appended."""
        view = self._view
        where = name, about.about_epoch, about.about_seq
        for row, entry in (view.targets[where], *view.edits.get((name, about.about_seq), [])):
            erased = entry._replace(
                kind=ERASED, content_type="", body=b"", about_epoch=log.epoch, about_seq=log.seq
            )
            more.erased.append((self._pack(packable(erased)), row))
            place = name, entry.epoch, entry.seq
            if place in view.targets:  # later submissions of this batch find no target
                view.targets[place] = Target(row, erased)

    # --- what is not appended -------------------------------------------------------------------
    def _not_next(self, end: ProducerEnd, submission: Submission) -> Outcome:
        if end is UNREADABLE:
            return LOG_DAMAGED
        match place(submission.counter, end.counter):
            case Place.SKIPPED:
                return Expected(end.counter + 1)
            case Place.UNKNOWN:
                return UnknownOutcome()
            case Place.USED_LONG_AGO:
                return IdConflict(0)
            case where:
                assert where is Place.USED
        key = submission.log, submission.producer, submission.counter
        if submission.counter > end.committed:
            stored, first = self._accepted_now(key)
            if first.content != submission.content:
                return IdConflict(stored.seq)
            return Repeated(stored.epoch, stored.seq)
        return as_repeat(self._view.originals[key], submission)

    def _accepted_now(self, key: tuple[str, bytes, int]) -> tuple[Stored | Began, Submission]:
        """Return what this batch has appended under an id. The index is built on demand."""
        for index in range(self._indexed, len(self._outcomes)):
            outcome, one = self._outcomes[index], self._batch[index]
            if isinstance(outcome, Stored | Began):
                self._accepted[one.log, one.producer, one.counter] = outcome, one
        self._indexed = len(self._outcomes)
        return self._accepted[key]
