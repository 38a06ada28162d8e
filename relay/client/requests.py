"""Requests by number: JOIN, LEAVE, WHO, HISTORY, SEARCH and their answers.

All of them can be repeated without harm, so a lost connection, BUSY and UNAVAILABLE only delay
them; the caller sees the final answer. If BUSY or UNAVAILABLE persists, it is the final answer: no
call waits silently for a disk that must be repaired, or for a server that is always busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from relay import limits
from relay.client.answer_check import Answer, check_answer
from relay.client.pending_sends import Outcome
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import ClientEnvelope, Error

RETRY_S_MIN: Final = 0.05
RETRY_S: Final[dict[int, float]] = {ErrorCode.BUSY: 120.0, ErrorCode.UNAVAILABLE: 10.0}
"""How long a caller's request is at least repeated after the first BUSY or UNAVAILABLE: a home that
moves to another worker needs less. An exhausted budget recovers by itself, within a minute of
honest waiting (``limits.RETRY_MS_MAX``) after many requests at once. Requests of the client itself
(to follow a room again) are repeated until they are answered."""
AGAIN: Final = frozenset(RETRY_S)


def retry_at(error: Error, now: float) -> float:
    """Return when to repeat a request that was refused with BUSY or UNAVAILABLE."""
    return now + max(min(error.arg, limits.RETRY_MS_MAX) / 1000, RETRY_S_MIN)


def lasts(code: int, since: float, again_at: float, retry_timeout_s: float) -> bool:
    """Return True if a repetition at that time is too late: the refusal is then the answer.

    Args:
        code: BUSY or UNAVAILABLE.
        since: when the server first refused the request with it.
        again_at: see ``retry_at``.
        retry_timeout_s: how long to repeat, if that is longer than ``RETRY_S``.
    """
    return again_at - since > max(RETRY_S[code], retry_timeout_s)


class Request(NamedTuple):
    """A request to the server."""

    room: str
    envelope: Callable[[int], ClientEnvelope]
    """Creates the envelope for a request number."""
    token: object
    """Of the caller; None for a request by the client itself."""
    over_when_lost: bool = False
    """True if a lost connection has the requested effect (LEAVE)."""
    read: Callable[[bytes], object] = bytes
    """Decodes the content of the answer (DONE); raises EnvelopeError."""


class Requests:
    """Requests without an answer."""

    __slots__ = (
        "_asked", "_open", "_out", "_outcomes", "_refused_since", "_retry_s", "_waiting",
        "next_number",
    )  # fmt: skip

    def __init__(self, retry_timeout_s: float | None = None) -> None:
        """Create without requests.

        Args:
            retry_timeout_s: how long a caller's request is repeated, if that is longer than
                ``RETRY_S``.
        """
        self.next_number = 1
        self._open: dict[int, Request] = {}
        self._asked: dict[int, ClientEnvelope] = {}
        """The envelope of each request."""
        self._out: list[ClientEnvelope] = []
        self._waiting: dict[int, float] = {}
        """When requests are to be repeated, by number."""
        self._refused_since: dict[int, float] = {}
        """By number: for a caller's request the time of the first BUSY or UNAVAILABLE, for the
        client's own that of the first UNAVAILABLE."""
        self._retry_s = retry_timeout_s or 0.0
        self._outcomes: list[Outcome] = []

    def ask(self, request: Request) -> None:
        """Queue a request under the next number."""
        number = self.next_number
        self.next_number = number % (limits.U32_MAX - 1) + 1  # the last one is ``senders.NUMBER``
        envelope = request.envelope(number)
        self._open[number] = request
        self._asked[number] = envelope
        self._out.append(envelope)

    def get(self, number: int) -> Request | None:
        """Return the request with a number; None: there is none (any more)."""
        return self._open.get(number)

    def asked(self, answer: Answer) -> Request | None:
        """Return the request of an answer; None: there is none (any more).

        Raises:
            EnvelopeError: the answer does not fit. The request stays, to be told of the end.
        """
        asked = self._asked.get(answer.request)
        if asked is not None:
            check_answer(asked, answer)
        return self._open.get(answer.request)

    def answered(self, answer: Answer) -> Request | None:
        """Remove and return the request of an answer; None: there is none (any more).

        Raises:
            EnvelopeError: see ``asked``.
        """
        self.asked(answer)
        return self.forget(answer.request)

    def forget(self, number: int) -> Request | None:
        """Remove and return the request with a number; None: there is none (any more)."""
        self._refused_since.pop(number, None)
        self._asked.pop(number, None)
        return self._open.pop(number, None)

    def refused(self, error: Error, now: float) -> Request | None:
        """Return the request if the refusal is final; None if it will be repeated."""
        if error.code in AGAIN and error.request in self._open:
            again_at = retry_at(error, now)
            if not self._lasts(error, now, again_at):
                self._waiting.setdefault(error.request, again_at)
                return None
        return self.forget(error.request)

    def _lasts(self, error: Error, now: float, again_at: float) -> bool:
        """Return True if a caller would wait too long for a repetition at that time."""
        of_caller = self._open[error.request].token is not None
        if not of_caller and error.code != ErrorCode.UNAVAILABLE:
            return False
        since = self._refused_since.setdefault(error.request, now)
        return of_caller and lasts(error.code, since, again_at, self._retry_s)

    def waits_anew(self, error: Error) -> bool:
        """True if a request of the client itself waits for a store, without the caller's knowledge.

        Once for each request: call it before ``refused``.
        """
        request = self._open.get(error.request)
        return (
            error.code == ErrorCode.UNAVAILABLE
            and request is not None
            and request.token is None
            and error.request not in self._refused_since
        )

    def answer(self, token: object, result: object) -> None:
        """Give a caller its answer; no effect for the client's own requests."""
        if token is not None:
            self._outcomes.append(Outcome(token, result))

    def outcomes(self) -> list[Outcome]:
        """Return the answers since the last call."""
        outcomes = self._outcomes
        if outcomes:
            self._outcomes = []
        return outcomes

    def __len__(self) -> int:
        return len(self._open)

    def asks(self, envelope: Callable[[int], ClientEnvelope]) -> bool:
        """True while this request is unanswered."""
        return any(request.envelope == envelope for request in self._open.values())

    def forget_own(self, room: str | None = None) -> None:
        """Drop the requests of the client itself, for one room or all."""
        gone = [
            number
            for number, request in self._open.items()
            if request.token is None and room in (None, request.room)
        ]
        for number in gone:
            self.forget(number)

    def drop(self, token: object) -> None:
        """Drop the request with this token, unless it has been answered."""
        for number, request in self._open.items():
            if request.token is token:
                self.forget(number)
                return

    def online(self, first: list[Request]) -> None:
        """A new connection: send ``first`` (joins, on which others depend), then open requests."""
        again = list(self._open.items())
        self.offline()
        for request in first:
            self.ask(request)
        self._out += [request.envelope(number) for number, request in again]

    def offline(self) -> None:
        """Nothing is sent or received until the next connection."""
        self._waiting.clear()
        self._refused_since.clear()
        self._out.clear()

    def drain(self) -> list[ClientEnvelope]:
        """Return the envelopes to send now."""
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        """Return when a request is to be repeated."""
        return min(self._waiting.values(), default=None)

    def handle_deadline(self, now: float) -> None:
        """Repeat requests that have waited long enough."""
        due = [number for number, at in self._waiting.items() if at <= now]
        for number in due:
            del self._waiting[number]
        self._out += [self._open[n].envelope(n) for n in due if n in self._open]

    def done_by_loss(self) -> list[Request]:
        """Remove and return the requests whose effect the loss of the connection had."""
        done = [number for number, request in self._open.items() if request.over_when_lost]
        return [request for number in done if (request := self.forget(number)) is not None]

    def drop_all(self) -> Iterator[Request]:
        """Remove all requests, yielding them."""
        self.offline()
        self._asked.clear()
        open_now, self._open = self._open, {}
        yield from open_now.values()
