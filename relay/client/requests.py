"""Requests by number: JOIN, LEAVE, WHO, HISTORY, SEARCH and their answers.

All of them can be asked again without harm, so a lost connection, BUSY and UNAVAILABLE only delay
them; the caller sees the final answer. BUSY and UNAVAILABLE are that when they last: nobody waits
without a word for a disk that somebody has to mend, or for a server that has never time.
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
"""How long a caller's request is asked again after the first BUSY or UNAVAILABLE, at least: a home
that moves to another worker is there sooner. A budget that is spent comes again by itself, with a
minute of honest waiting (``limits.RETRY_MS_MAX``) for whoever asks for much at once. What the
client asks by itself (to follow a room again), it asks until it is answered."""
AGAIN: Final = frozenset(RETRY_S)


def retry_at(error: Error, now: float) -> float:
    """Return when to ask again what was refused with BUSY or UNAVAILABLE."""
    return now + max(min(error.arg, limits.RETRY_MS_MAX) / 1000, RETRY_S_MIN)


def lasts(code: int, since: float, again_at: float, retry_timeout_s: float) -> bool:
    """Tell whether asking again then is too late to be worth it: the refusal is the answer.

    Args:
        code: BUSY or UNAVAILABLE.
        since: when the server first refused it so.
        again_at: see ``retry_at``.
        retry_timeout_s: how long to ask again, if that is more than ``RETRY_S``.
    """
    return again_at - since > max(RETRY_S[code], retry_timeout_s)


class Request(NamedTuple):
    """A question to the server."""

    room: str
    envelope: Callable[[int], ClientEnvelope]
    """Makes the envelope for a request number."""
    token: object
    """The caller's; None for a request that the client makes by itself."""
    over_when_lost: bool = False
    """True when a lost connection does what was asked (LEAVE)."""
    read: Callable[[bytes], object] = bytes
    """Reads the content of the answer (DONE); raises EnvelopeError."""


class Requests:
    """Requests without an answer."""

    __slots__ = (
        "_asked", "_open", "_out", "_outcomes", "_refused_since", "_retry_s", "_waiting",
        "next_number",
    )  # fmt: skip

    def __init__(self, retry_timeout_s: float | None = None) -> None:
        """Begin without one.

        Args:
            retry_timeout_s: for how long a caller's request is asked again, if that is more than
                ``RETRY_S``.
        """
        self.next_number = 1
        self._open: dict[int, Request] = {}
        self._asked: dict[int, ClientEnvelope] = {}
        """How each of them was asked."""
        self._out: list[ClientEnvelope] = []
        self._waiting: dict[int, float] = {}
        """When requests are to be asked again, by their number."""
        self._refused_since: dict[int, float] = {}
        """By the number of a request: of a caller's since the first BUSY or UNAVAILABLE, of the
        client's own since the first UNAVAILABLE."""
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
        """Return what an answer belongs to; None: nothing (any more).

        Raises:
            EnvelopeError: it is no answer to that. The request stays, to be told of the end.
        """
        asked = self._asked.get(answer.request)
        if asked is not None:
            check_answer(asked, answer)
        return self._open.get(answer.request)

    def answered(self, answer: Answer) -> Request | None:
        """Return and forget what an answer belongs to; None: nothing (any more).

        Raises:
            EnvelopeError: see ``asked``.
        """
        self.asked(answer)
        return self.forget(answer.request)

    def forget(self, number: int) -> Request | None:
        """Return and forget the request with a number; None: there is none (any more)."""
        self._refused_since.pop(number, None)
        self._asked.pop(number, None)
        return self._open.pop(number, None)

    def refused(self, error: Error, now: float) -> Request | None:
        """Return the request that is refused for good; None when it is to be asked again."""
        if error.code in AGAIN and error.request in self._open:
            again_at = retry_at(error, now)
            if not self._lasts(error, now, again_at):
                self._waiting.setdefault(error.request, again_at)
                return None
        return self.forget(error.request)

    def _lasts(self, error: Error, now: float, again_at: float) -> bool:
        """Tell whether a caller would wait too long if it were asked again then."""
        of_caller = self._open[error.request].token is not None
        if not of_caller and error.code != ErrorCode.UNAVAILABLE:
            return False
        since = self._refused_since.setdefault(error.request, now)
        return of_caller and lasts(error.code, since, again_at, self._retry_s)

    def waits_anew(self, error: Error) -> bool:
        """True if what the client asks by itself waits for a store, which the caller may not know.

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
        """Give a caller its answer; without effect for what the client asked by itself."""
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
        """True while this question is without an answer."""
        return any(request.envelope == envelope for request in self._open.values())

    def forget_own(self, room: str | None = None) -> None:
        """Drop the requests that the client made by itself, of one room or of all."""
        gone = [
            number
            for number, request in self._open.items()
            if request.token is None and room in (None, request.room)
        ]
        for number in gone:
            self.forget(number)

    def drop(self, token: object) -> None:
        """Forget the request with this token, unless it has been answered."""
        for number, request in self._open.items():
            if request.token is token:
                self.forget(number)
                return

    def online(self, first: list[Request]) -> None:
        """A new connection: ask ``first`` (joins, on which others rest), then all that is open."""
        again = list(self._open.items())
        self.offline()
        for request in first:
            self.ask(request)
        self._out += [request.envelope(number) for number, request in again]

    def offline(self) -> None:
        """Nothing leaves and nothing comes until the next connection."""
        self._waiting.clear()
        self._refused_since.clear()
        self._out.clear()

    def drain(self) -> list[ClientEnvelope]:
        """Return the envelopes to send now."""
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        """Return when a request is to be asked again."""
        return min(self._waiting.values(), default=None)

    def handle_deadline(self, now: float) -> None:
        """Ask again what has waited long enough."""
        due = [number for number, at in self._waiting.items() if at <= now]
        for number in due:
            del self._waiting[number]
        self._out += [self._open[n].envelope(n) for n in due if n in self._open]

    def done_by_loss(self) -> list[Request]:
        """Drop and return what the loss of the connection has done."""
        done = [number for number, request in self._open.items() if request.over_when_lost]
        return [request for number in done if (request := self.forget(number)) is not None]

    def drop_all(self) -> Iterator[Request]:
        """Forget everything, yielding it."""
        self.offline()
        self._asked.clear()
        open_now, self._open = self._open, {}
        yield from open_now.values()
