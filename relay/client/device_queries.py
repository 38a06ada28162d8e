"""What is asked about device chains: one question at a time, and again if there is no time. No I/O.

A server that answers BUSY or UNAVAILABLE says nothing about anybody's devices. So the question
waits as long as the server says, and all behind it; only one that lasts is no answer.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from relay import limits
from relay.client.requests import RETRY_S_MIN
from relay.wire.envelopes import Account, Devices

NUMBER: Final = limits.U32_MAX
"""The request number of everything asked here: one question at a time, and no other has it."""
ANSWER_S: Final = 30.0
"""How long an answer may take, and how long a question is asked again."""
Question: TypeAlias = Devices | Account


class DeviceQueries:
    """The question that has no answer yet, and those that are asked after it."""

    __slots__ = ("_out", "_put_off_since", "_waits", "_work", "asked", "deadline")

    def __init__(self) -> None:
        self.asked: Question | None = None
        """The one that has no answer yet."""
        self.deadline: float | None = None
        """When its answer is overdue, or it is to be asked again."""
        self._work: deque[Question] = deque()
        self._out: list[Question] = []
        self._put_off_since: float | None = None
        """When the server first had no time for the one that is asked."""
        self._waits = False
        """True until that is asked again."""

    def add(self, question: Question) -> None:
        """Ask this after all others, unless that is about to happen."""
        if question not in self._work:
            self._work.append(question)

    def next(self, now: float) -> None:
        """Ask the next one, unless another has no answer yet."""
        if self.asked is None and self._work:
            self.ask(self._work.popleft(), now)

    def ask(self, question: Question, now: float) -> None:
        """Ask this now: it is the next one, or the next page of the one before."""
        self.over()
        self.asked = question
        self._send(question, now)

    def over(self) -> Question | None:
        """Nothing is asked any more. Return what was."""
        asked, self.asked = self.asked, None
        self.deadline = self._put_off_since = None
        self._waits = False
        return asked

    def put_off(self, wait_ms: int, now: float) -> bool:
        """The server has no time for what is asked: ask it again. False: that lasts too long."""
        if self.asked is None:
            return False
        if self._put_off_since is None:
            self._put_off_since = now
        if now - self._put_off_since >= ANSWER_S:
            return False
        self._waits = True
        self.deadline = now + min(max(wait_ms / 1000, RETRY_S_MIN), ANSWER_S)
        return True

    def overdue(self, now: float) -> bool:
        """Ask again what has waited long enough. True: an answer is owed for too long."""
        if self.deadline is None or now < self.deadline:
            return False
        if not self._waits:
            return True
        assert self.asked is not None
        self._waits = False
        self._send(self.asked, now)
        return False

    def clear(self) -> None:
        """The connection is gone, and the questions with it."""
        self._work.clear()
        self._out.clear()
        self.over()

    def drain(self) -> list[Question]:
        """Return what is to be sent now."""
        out, self._out = self._out, []
        return out

    def _send(self, question: Question, now: float) -> None:
        self._out.append(question)
        self.deadline = now + ANSWER_S
