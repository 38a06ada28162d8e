"""Requests to homes that wait for answers: WHO, and requests about accounts and rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.bus.messages import Answered, Ask, Members, Who
from relay.chat.partition import partition_of
from relay.chat.rooms.rights import Actor
from relay.server.worker.member.reply import Expiry, Reply
from relay.server.worker.member.routes import NO_HOME
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.routes import Routes

PENDING_MAX: Final = 10_000
"""A request without an answer because its home died is sent again to the next home. Beyond this
number, refuse."""


class PendingQueries:
    """Requests by tag; sent again when their home is available again."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._pending: dict[int, tuple[str, Reply[Members | None]]] = {}
        self._asked: dict[int, tuple[Ask, Reply[Answered]]] = {}
        self._count = 0
        self._called: set[int] = set()
        """Tags of ``ask_then``: no request ends by itself when one of these is not answered."""
        self._expiry = Expiry()

    def who(self, log: str) -> Reply[Members | None] | None:
        """Ask who follows a log. Returns None if too many requests are waiting.

        The reply is None if no home is available.
        """
        if len(self._pending) >= PENDING_MAX:
            return None
        self._count += 1
        reply: Reply[Members | None] = Reply()
        self._pending[self._count] = (log, reply)
        port = self._routes.port_of(log)
        if port is not None:
            port.send(Who(self._count, log))
        return reply

    def ask(
        self,
        log: str,
        by: Actor,
        key_id: bytes,
        content: bytes,
        subject: bytes = b"",
        connection: str = "",
        identity: bytes = b"",
    ) -> Reply[Answered] | None:
        """Send a request about a log. Returns None if too many requests are waiting.

        Args:
            log: of the account, the invitation or the room.
            by: the requesting user; the handle may be empty before a login.
            key_id: of the requesting device.
            content: packed, see ``chat.accounts.requests`` and ``chat.rooms.requests``.
            subject: the root of the account that the request names, if it does.
            connection: the id of the requesting connection, for the log.
            identity: of the room that is meant; empty: whichever has the name.
        """
        if len(self._asked) >= PENDING_MAX:
            return None
        self._count += 1
        reply: Reply[Answered] = Reply()
        who = (by.root, by.operator, subject, connection, identity)
        message = Ask(self._count, log, by.handle, key_id, content, *who)
        self._asked[self._count] = message, reply
        port = self._routes.port_of(log)
        if port is not None:
            port.send(message)
        return reply

    def ask_then(self, log: str, by: str, content: bytes, then: Callable[[Answered], None]) -> bool:
        """As ``ask``, for a home that asks another one: ``then`` is called with the answer.

        The call is made in a later step of the turn, never before this returns. Returns False if
        too many requests are waiting; ``then`` is then never called.
        """
        reply = self.ask(log, Actor(by), b"", content)
        if reply is None:
            return False
        reply.then(then)
        self._called.add(self._count)
        return True

    def on_answered(self, _: Port, message: Answered) -> None:
        """Handle an answer; ignored if there was one before."""
        found = self._asked.pop(message.tag, None)
        self._called.discard(message.tag)
        if found is not None:
            found[1].resolve(message)

    def on_members(self, _: Port, message: Members) -> None:
        """Handle an answer; ignored if there was one before."""
        found = self._pending.pop(message.tag, None)
        if found is not None:
            found[1].resolve(message)

    def give_up(self, partitions: frozenset[int]) -> None:
        """Answer the requests to homes that have been away for long.

        Also drops requests that nobody waits for: a hanging home may never answer them. Answers
        those of ``ask_then`` that have waited for ``ANSWER_S_MAX``. Called once per second.
        """
        late = self._expiry.tick(self._count)
        for tag, (message, reply) in list(self._asked.items()):
            if (
                reply.abandoned
                or partition_of(message.log) in partitions
                or (tag <= late and tag in self._called)
            ):
                del self._asked[tag]
                self._called.discard(tag)
                reply.resolve(Answered(tag, int(ErrorCode.UNAVAILABLE), NO_HOME, b""))
        for tag, (log, answer) in list(self._pending.items()):
            if answer.abandoned or partition_of(log) in partitions:
                del self._pending[tag]
                answer.resolve(None)

    def attach(self, partition: int, port: Port) -> None:
        """A home is available (again): repeat the requests that are still awaited."""
        for tag, (log, reply) in list(self._pending.items()):
            if reply.abandoned:
                del self._pending[tag]
            elif partition_of(log) == partition:
                port.send(Who(tag, log))
        for tag, (message, answer) in list(self._asked.items()):
            if answer.abandoned:
                del self._asked[tag]
                self._called.discard(tag)
            elif partition_of(message.log) == partition:
                port.send(message)
