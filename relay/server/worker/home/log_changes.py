"""Changes to accounts and rooms that their home decides, one at a time for each log.

While a change of a log is being committed, further requests about it wait. They are then decided in
order, on the resulting state.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from relay.bus.messages import Acks, Answered, Ask, Message, NotHome, Refused
from relay.chat.partition import partition_of
from relay.server.worker.error_codes import code_of
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Batch, Event
    from relay.chat.entries import Submission
    from relay.errors import EnvelopeError
    from relay.server.worker.damaged_logs import DamagedLogs

log = logging.getLogger("relay.worker")
WAITING_MAX: Final = 64
"""Requests about one log that may wait for its commit."""
Decided = TypeVar("Decided")
"""The subclass's own data about a change."""


class PendingRequest:
    """A request, and the port for its answer."""

    __slots__ = ("ask", "port", "unconfirmed")

    def __init__(self, port: Port, ask: Ask) -> None:
        self.port = port
        self.ask = ask
        self.unconfirmed = False
        """True if the requester may be an operator, which cannot be read now: see
        ``accounts.operators``."""

    def answer(self, data: bytes = b"") -> None:
        """Answer that it is done."""
        self._note(0)
        self.port.send(Answered(self.ask.tag, 0, "", data))

    def refuse(self, code: ErrorCode, text: str, data: bytes = b"") -> None:
        """Answer why it is not done."""
        self._note(int(code))
        self.port.send(Answered(self.ask.tag, int(code), text, data))

    def _note(self, code: int) -> None:
        fields = {"connection": self.ask.connection, "log": self.ask.log, "code": code}
        log.debug("request_answered", extra=fields)


class Change(Generic[Decided]):
    """A change being committed, and the requests about its log that wait for it."""

    __slots__ = ("asked", "decided", "log", "seq", "tag", "waiting")

    def __init__(self, tag: int, log: str, asked: PendingRequest | None, decided: Decided) -> None:
        """Create with no waiting requests. ``asked``: None if nobody requested the change."""
        self.tag = tag
        self.log = log
        self.asked = asked
        self.decided = decided
        self.seq = 0
        """The seq of its entry, once it is committed."""
        self.waiting: deque[PendingRequest] = deque()


class LogChanges(Generic[Decided]):
    """Serialises the changes of each log.

    To the home, it is the ``Port`` of its own submissions.
    """

    index = -1
    generation = -1

    def __init__(
        self, submit: Callable[[Port, int, Submission], None], damaged: DamagedLogs, noun: str
    ) -> None:
        """Create without changes.

        Args:
            submit: passes a submission to the home of this worker.
            damaged: reports logs that cannot be read.
            noun: what a log is about, for the texts of answers.
        """
        self._submit = submit
        self._damaged = damaged
        self._noun = noun
        self._count = 0
        self._by_tag: dict[int, Change[Decided]] = {}
        """By the tag of its submission."""
        self._by_log: dict[str, Change[Decided]] = {}

    # --- implemented by subclasses ------------------------------------------------------------
    def _decide(self, asked: PendingRequest) -> None:
        """Answer a request at once, or call ``_commit``."""
        raise NotImplementedError

    def _committed(self, change: Change[Decided]) -> None:
        """Answer the requester of a change that was stored."""
        raise NotImplementedError

    def _settled(self, change: Change[Decided]) -> None:
        """Examine a log whose change was stored, after the waiting requests were decided."""

    def _again(self, refused: Refused) -> bool:
        """Return True if a change that the store refused is to be decided again."""
        return False

    def _code_of(self, refused: Refused) -> ErrorCode:
        """Return the error code for a change that the store refused."""
        damaged = refused.code == ErrorCode.DAMAGED
        return ErrorCode.DAMAGED if damaged else ErrorCode.UNAVAILABLE

    def _commit(
        self, log: str, asked: PendingRequest | None, decided: Decided, submission: Submission
    ) -> None:
        """Store a change. No other change of its log is decided until it has ended."""
        self._count += 1
        change = Change(self._count, log, asked, decided)
        self._by_tag[change.tag] = self._by_log[log] = change
        self._submit(self, change.tag, submission)

    # --- requests -------------------------------------------------------------------------------
    def ask(self, port: Port, ask: Ask) -> None:
        """Take a request. The answer is sent through the port, at once or later."""
        asked = PendingRequest(port, ask)
        if not self._waits(asked, self._by_log.get(ask.log)):
            self._decide(asked)

    def _waits(self, asked: PendingRequest, change: Change[Decided] | None) -> bool:
        """Have a request wait for the end of a change. False: there is no such change."""
        if change is None:
            return False
        if len(change.waiting) < WAITING_MAX:
            change.waiting.append(asked)
        else:
            asked.refuse(ErrorCode.BUSY, f"too many requests about this {self._noun}")
        return True

    def _undecided(self, asked: PendingRequest, error: EnvelopeError | StoreError) -> None:
        """Refuse a request that is malformed, or whose log cannot be read."""
        if isinstance(error, StoreError):
            self._damaged.report(asked.ask.log, error)
            asked.refuse(code_of(error), f"the {self._noun} cannot be read now")
        else:
            asked.refuse(ErrorCode.BAD_REQUEST, str(error))

    def drop(self, port: Port) -> None:
        """A worker has died: its requests need no answers."""
        for change in self._by_log.values():
            change.waiting = deque([one for one in change.waiting if one.port is not port])

    # --- Port: the outcome of a commit ----------------------------------------------------------
    def send(self, message: Message) -> None:
        """Handle the home's answer to a submission."""
        if isinstance(message, Acks):
            for row in message.acks:
                change = self._ended(cast("int", row[0]))
                if change is not None:
                    change.seq = cast("int", row[2])
                    self._committed(change)
                    self._decide_waiting(change)
                    self._settled(change)
        elif isinstance(message, Refused):
            change = self._ended(message.tag)
            if change is not None:
                self._refused(change, message)
                self._decide_waiting(change)
        elif isinstance(message, NotHome):
            # The requester asks the next home once it is attached there.
            for log in [log for log in self._by_log if partition_of(log) == message.partition]:
                del self._by_tag[self._by_log.pop(log).tag]

    def submit(self, tag: int, sends: list[Submission]) -> None:
        """Not used: nobody submits through this port."""
        raise AssertionError

    def publish(self, message: Batch | Event) -> None:
        """Not used: nothing is published through this port."""
        raise AssertionError

    def _ended(self, tag: int) -> Change[Decided] | None:
        """Remove a change. None: its partition was given away meanwhile."""
        change = self._by_tag.pop(tag, None)
        if change is not None:
            del self._by_log[change.log]
        return change

    def _refused(self, change: Change[Decided], message: Refused) -> None:
        if change.asked is None:
            return
        if self._again(message):
            change.waiting.appendleft(change.asked)
        else:
            change.asked.refuse(self._code_of(message), message.text)

    def _decide_waiting(self, ended: Change[Decided]) -> None:
        """Decide the waiting requests, up to the next change."""
        waiting = ended.waiting
        while waiting:
            asked = waiting.popleft()
            # It may have waited for the change of another log.
            if not self._waits(asked, self._by_log.get(asked.ask.log)):
                self._decide(asked)
            change = self._by_log.get(ended.log)
            if change is not None:
                change.waiting.extend(waiting)
                return
