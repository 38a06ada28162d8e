"""Pauses the commits of all workers for some milliseconds, so that a backup shows one state.

Used by ``relay backup create``. The workers end the pause by themselves, whatever happens to this
process and to the requester.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from relay.server.context import WORKER, worker_socket
from relay.server.control.board_view import BoardView
from relay.server.line_server import NotAnswered, Question, ask

ANSWER_S: Final = 0.5


class CommitPauses:
    """Pauses the commits of all workers."""

    def __init__(self, view: BoardView, runtime: Path) -> None:
        self._view = view
        self._runtime = runtime

    async def begin(self, _: Question) -> dict[str, list[list[Any]]]:
        """Begin a pause of all workers; return [number, generation, token] of each.

        Raises:
            NotAnswered: not all of them hold their commits.
        """
        workers = [(one.number, one.row.get("generation")) for one in self._view.of(WORKER)]
        if homeless := self._view.homeless(time.monotonic_ns()):
            raise NotAnswered(f"no worker has the partitions {homeless} now")
        answers = await self._ask(workers, [{"do": "pause"}] * len(workers))
        held = [
            [*worker, answer]
            for worker, answer in zip(workers, answers, strict=True)
            if isinstance(answer, str)
        ]
        if len(held) < len(workers):
            await self.end({"held": held})
            reasons = [str(answer) for answer in answers if not isinstance(answer, str)]
            raise NotAnswered(f"not every worker holds its commits: {reasons[0]}")
        return {"held": held}

    async def end(self, question: Question) -> dict[str, bool]:
        """End a pause. ``held``: no worker has begun a commit since it was answered."""
        held = question.get("held")
        try:
            workers = [(int(number), int(generation)) for number, generation, _ in held or ()]
            questions = [{"do": "go-on", "token": str(token)} for _, _, token in held or ()]
        except (TypeError, ValueError, OverflowError):  # OverflowError: JSON's Infinity
            raise NotAnswered("held: expected what was answered") from None
        answers = await self._ask(workers, questions)
        return {"held": bool(answers) and all(answer is True for answer in answers)}

    async def _ask(
        self, workers: list[tuple[int, int]], questions: list[dict[str, Any]]
    ) -> list[object]:
        """Return each worker's answer, or why there is none."""
        answers: list[object] = await asyncio.gather(
            *(
                ask(worker_socket(self._runtime, *worker), question, ANSWER_S)
                for worker, question in zip(workers, questions, strict=True)
            ),
            return_exceptions=True,
        )
        return answers
