"""Queries about device chains: one at a time, repeated while the server is busy. No I/O.

BUSY and UNAVAILABLE are no answers about anybody's devices. So the query is repeated after the time
that the server gives, for as long as a request whose caller gives no time of his own
(``requests.RETRY_S``). After BUSY nothing else is asked until then: it is this client who asks for
too much, or everybody. After UNAVAILABLE, which is one account's, the others have their turn.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from relay import limits
from relay.client.requests import lasts, retry_at
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Account, Devices, Error

NUMBER: Final = limits.U32_MAX
"""The request number of all queries: there is one at a time, and no other request uses it."""
ANSWER_S: Final = 30.0
"""Timeout for an answer."""
AGAIN_S: Final = 60.0
"""After so long a sender is asked about again, by itself, whose devices could not be had."""
Query: TypeAlias = Devices | Account


class DeviceQueries:
    """The current query, and the queue of those after it."""

    __slots__ = ("_due", "_later", "_out", "_since", "_waits", "_work", "asked")

    def __init__(self) -> None:
        """Begin without one."""
        self.asked: Query | None = None
        """The current query, which has no answer yet; None: there is none."""
        self._due: float | None = None
        """When its answer is overdue, or when to repeat it."""
        self._work: dict[Query, None] = {}
        """In order. A server can have a thousand senders looked up, each several times."""
        self._later: dict[Query, float] = {}
        """Those that are queued again then."""
        self._out: list[Query] = []
        self._since: dict[str, float] = {}
        """When the server first refused a query with BUSY or UNAVAILABLE, by its name."""
        self._waits = False
        """True while the one that is asked waits to be repeated."""

    @property
    def deadline(self) -> float | None:
        """When to look what is overdue (``overdue``)."""
        due = [self._due] if self._due is not None else []
        return min([*due, *self._later.values()], default=None)

    def add(self, query: Query) -> None:
        """Queue a query, unless it is queued already."""
        if query not in self._later:
            self._work.setdefault(query)

    def add_later(self, name: str, at: float) -> None:
        """Queue a query about somebody's devices then."""
        self._later[Devices(NUMBER, name, 0)] = at

    def next(self, now: float) -> None:
        """Send the next query, unless another has no answer yet."""
        if self.asked is None and self._work:
            query = next(iter(self._work))
            del self._work[query]
            self.ask(query, now)

    def ask(self, query: Query, now: float) -> None:
        """Send this query now: the next one, or the next page of the previous one."""
        since = self._since.get(query.name)
        self.over()
        if since is not None:
            self._since[query.name] = since
        self.asked = query
        self._send(query, now)

    def over(self) -> Query | None:
        """End the current query, and return it."""
        asked, self.asked = self.asked, None
        self._due = None
        self._waits = False
        if asked is not None:
            self._since.pop(asked.name, None)
        return asked

    def retry(self, error: Error, now: float) -> bool:
        """BUSY or UNAVAILABLE: schedule a retry. False: it has been refused for too long."""
        if self.asked is None:
            return False
        name = self.asked.name
        since = self._since.setdefault(name, now)
        again_at = retry_at(error, now)
        if lasts(error.code, since, again_at, 0.0):
            return False
        if error.code == ErrorCode.UNAVAILABLE and isinstance(self.asked, Devices):
            self.over()
            self._since[name] = since
            self.add_later(name, again_at)
        else:
            self._waits = True
            self._due = again_at
        return True

    def overdue(self, now: float) -> bool:
        """Repeat what is due. True: the answer to the one that is asked is overdue."""
        for query in [query for query, at in self._later.items() if at <= now]:
            del self._later[query]
            self.add(query)
        if self._due is None or now < self._due:
            return False
        if not self._waits:
            return True
        assert self.asked is not None
        self._waits = False
        self._send(self.asked, now)
        return False

    def clear(self) -> None:
        """Drop all of them: the connection has ended."""
        self._work.clear()
        self._later.clear()
        self._out.clear()
        self.over()
        self._since.clear()

    def drain(self) -> list[Query]:
        """Return the queries to send now."""
        out, self._out = self._out, []
        return out

    def _send(self, query: Query, now: float) -> None:
        self._out.append(query)
        self._due = now + ANSWER_S
