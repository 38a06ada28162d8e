"""Questions to homes whose answers are awaited: WHO, and requests about accounts and rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.bus.messages import Answered, Ask, Members, Who
from relay.chat.partition import partition_of
from relay.chat.rooms.rights import Actor
from relay.server.worker.member.reply import Reply
from relay.server.worker.member.routes import NO_HOME
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.routes import Routes

PENDING_MAX: Final = 10_000
"""A question that a dead home never answers is sent again to the next; beyond so many, refuse."""


class PendingQueries:
    """Questions by tag; sent again when their home comes back."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._pending: dict[int, tuple[str, Reply[Members | None]]] = {}
        self._asked: dict[int, tuple[Ask, Reply[Answered]]] = {}
        self._count = 0

    def who(self, log: str) -> Reply[Members | None] | None:
        """Ask who follows a log. Returns None when too many questions wait.

        The reply is None when there is no home to answer.
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
    ) -> Reply[Answered] | None:
        """Send a request about a log. Returns None when too many questions wait.

        Args:
            log: of the account, the invitation or the room.
            by: who asks; the handle may be empty before a login.
            key_id: of the device that asks.
            content: packed, see ``chat.accounts.requests`` and ``chat.rooms.requests``.
            subject: the root of the account that the request names, if it does.
            connection: the id of the one that asks, for the log.
        """
        if len(self._asked) >= PENDING_MAX:
            return None
        self._count += 1
        reply: Reply[Answered] = Reply()
        who = (by.root, by.operator, subject, connection)
        message = Ask(self._count, log, by.handle, key_id, content, *who)
        self._asked[self._count] = message, reply
        port = self._routes.port_of(log)
        if port is not None:
            port.send(message)
        return reply

    def ask_then(self, log: str, by: str, content: bytes, then: Callable[[Answered], None]) -> bool:
        """As ``ask``, for a home that asks another one: ``then`` is called with the answer.

        In a later step of the turn, never before this returns. False: too many questions wait, and
        it is never called.
        """
        reply = self.ask(log, Actor(by), b"", content)
        if reply is None:
            return False
        reply.then(then)
        return True

    def on_answered(self, _: Port, message: Answered) -> None:
        """Take an answer; ignored when it came before."""
        found = self._asked.pop(message.tag, None)
        if found is not None:
            found[1].resolve(message)

    def on_members(self, _: Port, message: Members) -> None:
        """Take an answer; ignored when it came before."""
        found = self._pending.pop(message.tag, None)
        if found is not None:
            found[1].resolve(message)

    def give_up(self, partitions: frozenset[int]) -> None:
        """Answer what was asked of homes that have been away for long.

        And forget what nobody waits for any more: a home that hangs may never answer it.
        """
        for tag, (message, reply) in list(self._asked.items()):
            if reply.abandoned or partition_of(message.log) in partitions:
                del self._asked[tag]
                reply.resolve(Answered(tag, int(ErrorCode.UNAVAILABLE), NO_HOME, b""))
        for tag, (log, answer) in list(self._pending.items()):
            if answer.abandoned or partition_of(log) in partitions:
                del self._pending[tag]
                answer.resolve(None)

    def attach(self, partition: int, port: Port) -> None:
        """A home is there (again): ask what is still of interest."""
        for tag, (log, reply) in list(self._pending.items()):
            if reply.abandoned:
                del self._pending[tag]
            elif partition_of(log) == partition:
                port.send(Who(tag, log))
        for tag, (message, answer) in list(self._asked.items()):
            if answer.abandoned:
                del self._asked[tag]
            elif partition_of(message.log) == partition:
                port.send(message)
