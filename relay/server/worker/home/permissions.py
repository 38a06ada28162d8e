"""Holds direct messages while the recipient's home is asked for permission.

A message to ``@bob`` is first stored in the inbox of its sender, by the sender's home; that is its
moment of acceptance (invariant "One moment of acceptance"). Before that, the home of ``@bob`` is
asked whether he accepts it. The messages of one producer to several people keep their order: a
message waits here until those before it have their answers, too.

The answer travels with the submission and refuses only a *new* message. The store checks for
repeats first, and a repeat is acknowledged whatever was decided since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from relay.bus.messages import Answered, Refused
from relay.chat.accounts.requests import MayWrite, pack
from relay.chat.entries import UNDECIDED
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.server.worker.error_codes import code_of
from relay.server.worker.home.submissions import Waiting
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.accounts.account import Account

LATER: Final = frozenset({ErrorCode.BUSY, ErrorCode.UNAVAILABLE})


class Ask(Protocol):
    """Asks the home of an account."""

    def __call__(self, log: str, by: str, content: bytes, then: Callable[[Answered], None]) -> bool:
        """Ask, and call ``then`` with the answer later, whichever home gives it.

        Returns False if too many requests are waiting; ``then`` is then never called.
        """


class _Asked:
    """A message that waits."""

    __slots__ = ("verdict", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.verdict = UNDECIDED


class Permissions:
    """The direct messages that wait for permission from their recipients' homes."""

    def __init__(
        self,
        ask: Ask,
        account_of: Callable[[str], Account],
        submit: Callable[[list[Waiting]], None],
    ) -> None:
        """Create without messages.

        Args:
            ask: asks another home, or this one.
            account_of: returns the account of a handle whose home this is.
            submit: takes a submission whose verdict is known.
        """
        self._ask = ask
        self._account_of = account_of
        self._submit = submit
        self._flows: dict[bytes, deque[_Asked]] = {}
        """By producer; never empty."""

    def take(self, waiting: Waiting) -> None:
        """Take a submission, and submit it again when its verdict is known and it is next in order.

        The sender owns the log. The recipient may be anybody, including the owner.
        """
        submission = waiting.submission
        extra = submission.extra
        assert extra is not None
        asked = _Asked(waiting)
        self._flows.setdefault(submission.producer, deque()).append(asked)
        if extra.to == submission.sender:
            self._decided(asked, 0)
            return
        try:
            chain = self._account_of(submission.sender).chain
        except StoreError as error:
            self._decided(asked, code_of(error))
            return
        if chain is None:
            self._decided(asked, ErrorCode.KEY_REFUSED)  # the account has been removed meanwhile
            return
        if not self._ask(
            INBOX_PREFIX + extra.to,
            submission.sender,
            pack(MayWrite(chain.root)),
            lambda answer: self._decided(asked, answer.code),
        ):
            self._decided(asked, ErrorCode.BUSY)

    def _decided(self, asked: _Asked, code: int) -> None:
        asked.verdict = code
        producer = asked.waiting.submission.producer
        flow = self._flows.get(producer)
        while flow and flow[0].verdict != UNDECIDED:
            first = flow.popleft()
            submission = first.waiting.submission
            assert submission.extra is not None
            decided = submission.extra._replace(verdict=int(first.verdict))
            waiting = first.waiting
            self._submit([Waiting(waiting.port, waiting.tag, submission._replace(extra=decided))])
        if flow is not None and not flow:
            self._flows.pop(producer, None)

    # --- cancelling ---------------------------------------------------------------------------
    def forget(self, unwanted: Callable[[Waiting], bool]) -> None:
        """Drop some of the waiting messages and ignore their answers."""
        for producer, flow in list(self._flows.items()):
            kept = deque([asked for asked in flow if not unwanted(asked.waiting)])
            if kept:
                self._flows[producer] = kept
            else:
                del self._flows[producer]

    def refuse(self, partition: int) -> list[Port]:
        """This worker is no longer the home of a partition.

        Return the workers that must be told.
        """
        if not self._flows:
            return []
        ports: dict[Port, None] = {}
        for flow in self._flows.values():
            for asked in flow:
                if partition_of(asked.waiting.submission.log) == partition:
                    ports[asked.waiting.port] = None
        self.forget(lambda waiting: partition_of(waiting.submission.log) == partition)
        return list(ports)


def refused(tag: int, code: int, retry_ms: int) -> Refused:
    """Return the answer to a message that its recipient's home refuses."""
    return Refused(tag, code, retry_ms if code in LATER else 0, "")
