"""Queries about device chains: one at a time, repeated while the server is busy. No I/O.

BUSY and UNAVAILABLE say nothing about the devices of an account. So the query is repeated at the
time that the server states, for as long as any other request (``requests.lasts``), and later
queries wait.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from relay import limits
from relay.client.requests import lasts, retry_at
from relay.wire.envelopes import Account, Devices, Error

NUMBER: Final = limits.U32_MAX
"""The request number of all queries: there is one at a time, and no other request uses it."""
ANSWER_S: Final = 30.0
"""Timeout for an answer."""
Query: TypeAlias = Devices | Account


class DeviceQueries:
    """The current query, and the queue of those after it."""

    __slots__ = ("_busy_since", "_out", "_retry_s", "_waits", "_work", "asked", "deadline")

    def __init__(self, retry_timeout_s: float | None = None) -> None:
        """Create without queries. ``retry_timeout_s``: see ``Requests``."""
        self._retry_s = retry_timeout_s or 0.0
        self.asked: Query | None = None
        """The current query, which has no answer yet; None: there is none."""
        self.deadline: float | None = None
        """When its answer is overdue, or when to repeat it."""
        self._work: deque[Query] = deque()
        self._out: list[Query] = []
        self._busy_since: float | None = None
        """When the server first refused the current query with BUSY or UNAVAILABLE."""
        self._waits = False
        """True while it waits to be repeated."""

    def add(self, query: Query) -> None:
        """Queue a query, unless it is queued already."""
        if query not in self._work:
            self._work.append(query)

    def next(self, now: float) -> None:
        """Send the next query, unless another has no answer yet."""
        if self.asked is None and self._work:
            self.ask(self._work.popleft(), now)

    def ask(self, query: Query, now: float) -> None:
        """Send this query now: the next one, or the next page of the previous one."""
        self.over()
        self.asked = query
        self._send(query, now)

    def over(self) -> Query | None:
        """End the current query, and return it."""
        asked, self.asked = self.asked, None
        self.deadline = self._busy_since = None
        self._waits = False
        return asked

    def retry(self, error: Error, now: float) -> bool:
        """BUSY or UNAVAILABLE: schedule a retry. False: it has been refused for too long."""
        if self.asked is None:
            return False
        if self._busy_since is None:
            self._busy_since = now
        again_at = retry_at(error, now)
        if lasts(error.code, self._busy_since, again_at, self._retry_s):
            return False
        self._waits = True
        self.deadline = again_at
        return True

    def overdue(self, now: float) -> bool:
        """Repeat the query if that is due. True: its answer is overdue."""
        if self.deadline is None or now < self.deadline:
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
        self._out.clear()
        self.over()

    def drain(self) -> list[Query]:
        """Return the queries to send now."""
        out, self._out = self._out, []
        return out

    def _send(self, query: Query, now: float) -> None:
        self._out.append(query)
        self.deadline = now + ANSWER_S
