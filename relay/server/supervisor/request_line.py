"""Requests of the control process to the supervisor, over a socket pair, answered at once."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from relay.errors import RelayError
from relay.server.context import SUPERVISOR_MESSAGE_BYTES_MAX

_MESSAGES_PER_LOOK: Final = 16
log = logging.getLogger("relay.supervisor")


class RequestLine:
    """Both ends, created before the first fork: the far one for one role, the near one stays."""

    def __init__(self, requests: Mapping[str, Callable[[Mapping[str, Any]], object]]) -> None:
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
                self._near.send(json.dumps(self._answer(json.loads(message))).encode())
            except OSError:
                return  # there are no more requests, or the answers are not read
            except (ValueError, TypeError, KeyError):
                log.warning("request_refused", extra={"reason": "not a question"})

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"number": question["number"]}
        action = self._requests.get(question["do"])
        if action is None:
            return answer | {"error": "the supervisor does not know this request"}
        try:
            return answer | {"ok": action(question)}
        except RelayError as error:
            return answer | {"error": str(error)[: SUPERVISOR_MESSAGE_BYTES_MAX // 4]}
