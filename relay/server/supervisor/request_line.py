"""Requests of the control process to the supervisor, over a socket pair, answered at once."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from relay.errors import RelayError
from relay.server.context import SUPERVISOR_MESSAGE_BYTES_MAX

_MESSAGES_PER_LOOK: Final = 16
Action: TypeAlias = Callable[[Mapping[str, Any]], object]
log = logging.getLogger("relay.supervisor")


class RequestLine:
    """Both ends, created before the first fork: the far one for one role, the near one stays."""

    def __init__(self, requests: Mapping[str, Action]) -> None:
        self._requests = requests
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._near.setblocking(False)

    @property
    def fd(self) -> int:
        """Readable when there is a request."""
        return self._near.fileno()

    @property
    def far_fd(self) -> int:
        """The descriptor of the requesting end."""
        return self._far.fileno()

    def close(self) -> None:
        """Close both ends: nobody is left who asks."""
        self._near.close()
        self._far.close()

    def close_near_end(self) -> None:
        """Close the near end, in a child."""
        self._near.close()

    def close_far_end(self) -> None:
        """Close the far end, in a child that makes no requests."""
        self._far.close()

    def answer_all(self) -> None:
        """Answer all waiting requests. Raises nothing, and never blocks."""
        for _ in range(_MESSAGES_PER_LOOK):
            try:
                message = self._near.recv(SUPERVISOR_MESSAGE_BYTES_MAX)
            except OSError:
                return  # there are no more requests
            if not message:
                return  # there is nobody to answer
            try:
                question = json.loads(message)
                number, action = int(question["number"]), self._requests.get(question["do"])
                late = time.monotonic() > float(question.get("before_s", math.inf))
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                log.warning("request_refused", extra={"reason": "not a question"})
                continue
            if late:  # this process was suspended, and the one who asked was told so
                log.warning("request_refused", extra={"reason": "it came too late"})
                continue
            answer = {"number": number, **_answer(action, question)}
            with contextlib.suppress(OSError):  # the answers are not read
                self._near.send(json.dumps(answer).encode())


def _answer(action: Action | None, question: dict[str, Any]) -> dict[str, object]:
    if action is None:
        return {"error": "the supervisor does not know this request"}
    try:
        return {"ok": action(question)}
    except RelayError as error:
        return {"error": str(error)[: SUPERVISOR_MESSAGE_BYTES_MAX // 4]}
    except Exception:
        log.exception("question_failed", extra={"do": question["do"]})
        return {"error": "an internal error; the server's log has it"}
