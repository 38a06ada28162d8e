"""Requests of the control process to the workers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, Final

from relay.server.context import WORKER, worker_socket
from relay.server.control.board_view import BoardView, Seen
from relay.server.line_server import NotAnswered, NotReached, Question, ask

ANSWER_S: Final = 3.0
HOMES_ATTEMPTS: Final = 5
HOMES_PAUSE_S: Final = 0.2
"""Partitions move to another worker in some tenths of a second."""
NO_WORKER: Final = "no worker runs"


class Asked:
    """A worker as it was when a request was sent to it."""

    def __init__(self, seen: Seen) -> None:
        self.number = seen.number
        self.generation = seen.row.get("generation")
        self._row = seen.row

    def has_left(self, answer: NotAnswered) -> bool:
        """Return True if the reason for no answer is that it has ended."""
        row = self._row
        ended = not row.get("ready") or row.get("generation") != self.generation
        return ended or (isinstance(answer, NotReached) and bool(row.get("leaving")))


class WorkerLines:
    """Asks the running workers."""

    def __init__(self, view: BoardView, runtime: Path) -> None:
        self._view = view
        self._runtime = runtime

    async def ask_all(
        self, question: Question, *, none_too: bool = False
    ) -> tuple[list[tuple[Asked, Any]], list[str]]:
        """Return the answer of each worker, and a line for each that does not answer.

        One that is starting has no connections yet, and one that has left has none any more: they
        are not missing.

        Args:
            question: for each of them.
            none_too: return normally even if none of them answers.

        Raises:
            NotAnswered: a worker refuses the request itself, or there is no worker.
        """
        asked = [Asked(one) for one in self._running]
        answers = await asyncio.gather(
            *(self._ask(one, question) for one in asked), return_exceptions=True
        )
        found: list[tuple[Asked, Any]] = []
        missing = []
        for one, answer in zip(asked, answers, strict=True):
            if isinstance(answer, NotAnswered):
                if not one.has_left(answer):
                    missing.append(f"worker {one.number}: {answer}")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.append((one, answer))
        if not found and not none_too:
            raise NotAnswered("; ".join(missing) or NO_WORKER)
        return found, missing

    async def ask_homes(self, question: Question) -> tuple[list[tuple[Asked, Any]], list[str]]:
        """Ask each worker about its own partitions; no partition is in two answers, or in none.

        If a partition has moved meanwhile, or its home is not running, they are asked again, a few
        times.

        Raises:
            NotAnswered: as ``ask_all``.
        """
        board = self._view.boards[WORKER]
        for attempt in range(HOMES_ATTEMPTS):
            await asyncio.sleep(HOMES_PAUSE_S if attempt else 0)
            version = board.table_version
            found, missing = await self.ask_all(question)
            homes = {(one.number, one.generation) for one, _ in found}
            without = [
                n for n in range(self._view.partitions) if tuple(board.owner(n)) not in homes
            ]
            if missing or (not without and version == board.table_version):
                return found, missing
        return found, [
            f"no worker has the partitions {without} now"
            if without
            else "partitions are moving from one worker to another now: try again"
        ]

    async def ask_any(self, question: Question) -> Any:  # noqa: ANN401  # JSON
        """Return the answer of any worker, preferably of one that does not hang.

        Raises:
            NotAnswered: it refuses, or does not answer.
        """
        now_ns = time.monotonic_ns()
        for one in sorted(self._running, key=lambda one: one.silence_ns(now_ns)):
            with contextlib.suppress(NotReached):  # it has just ended; another one can answer
                return await self._ask(Asked(one), question)
        raise NotAnswered(NO_WORKER)

    @property
    def _running(self) -> list[Seen]:
        return [one for one in self._view.of(WORKER) if one.row.get("ready")]

    async def _ask(self, one: Asked, question: Question) -> Any:  # noqa: ANN401  # JSON
        path = worker_socket(self._runtime, one.number, one.generation)
        return await ask(path, question, ANSWER_S)
