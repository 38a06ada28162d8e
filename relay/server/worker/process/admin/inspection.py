"""Operator queries about a worker and its connections, in slices instead of one long turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from relay.server.line_server import Handler, NotAnswered, Question, number_of, text_of
from relay.server.worker.connection.stages import Stage
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.server.worker.connection.connections import Connections
    from relay.server.worker.connection.endings import Endings
    from relay.server.worker.connection.session import Session
    from relay.server.worker.member.feed import Feed

ITEMS_PER_SLICE: Final = 100
"""Connections or rooms to examine before the loop continues: about 0.2 ms."""
ITEMS_MAX: Final = 1000
"""Items in one answer."""
TOP: Final = 20
_T = TypeVar("_T")


class Inspection:
    """Answers the queries for one worker."""

    def __init__(
        self,
        connections: Connections,
        feeds: Mapping[str, Feed],
        endings: Endings,
        clock: Callable[[], float],
    ) -> None:
        """Create.

        Args:
            connections: of the worker.
            feeds: the logs that they follow, by name.
            endings: the last connections that ended.
            clock: monotonic seconds.
        """
        self._connections = connections
        self._feeds = feeds
        self._endings = endings
        self._clock = clock
        self._heads: dict[str, int] = {}
        """Heads at the last ``top``, by log, for computing rates."""
        self._asked_s = 0.0

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers, by request."""
        return {
            "connections": self._list_connections,
            "rooms": self._list_rooms,
            "top": self._top,
            "kick": self._kick,
            "closed": self._closed,
        }

    async def _list_connections(self, question: Question) -> dict[str, Any]:
        """List connections, those with the most pending bytes first."""
        name, room = text_of(question, "name"), text_of(question, "room")
        most = number_of(question, "limit", TOP, ITEMS_MAX)
        found = [
            (_owed(session), session.id, session)
            async for session in self._sessions()
            if (not name or session.name == name)
            and (not room or room in session.subscriptions.by_log)
        ]
        found.sort(key=lambda entry: entry[:2], reverse=True)
        now = self._clock()
        return {"items": _connections(found[:most], now), "total": len(found)}

    async def _list_rooms(self, question: Question) -> dict[str, Any]:
        most = number_of(question, "limit", TOP, ITEMS_MAX)
        found = [
            (len(feed.subscriptions), feed.log, feed)
            async for feed in _in_slices(list(self._feeds.values()))
        ]
        found.sort(key=lambda entry: entry[:2], reverse=True)
        return {"items": [_room(feed) for _, _, feed in found[:most]], "total": len(found)}

    async def _top(self, _: Question) -> dict[str, Any]:
        """Return the busiest rooms since the last request, and the slowest readers."""
        heads: dict[str, int] = {}
        grown: list[tuple[int, str]] = []
        async for feed in _in_slices(list(self._feeds.values())):
            heads[feed.log] = feed.seq
            more = feed.seq - self._heads.get(feed.log, feed.seq)
            if more > 0:
                grown.append((more, feed.log))
        grown.sort(reverse=True)
        now = self._clock()
        passed_s, self._asked_s, self._heads = now - self._asked_s, now, heads
        slow = [
            (_owed(session), session.id, session)
            async for session in self._sessions()
            if _owed(session) or _behind(session)
        ]
        slow.sort(key=lambda entry: entry[:2], reverse=True)
        return {
            "rooms": [
                {
                    "room": log,
                    "messages_per_s": round(more / passed_s, 1),
                    "connections": _followers(self._feeds, log),
                }
                for more, log in grown[:TOP]
            ],
            "readers": [
                reader
                for reader in _connections(slow[:TOP], now)
                if reader["owed_bytes"] or reader["behind"]  # some have caught up meanwhile
            ],
        }

    async def _kick(self, question: Question) -> dict[str, int]:
        """End one connection by its id, or all of a name."""
        wanted, name = text_of(question, "id"), text_of(question, "name")
        if bool(wanted) == bool(name):
            raise NotAnswered("kick takes the id of a connection or a name")
        kicked = 0
        async for session in self._sessions():
            if session.id == wanted or (name and session.name == name):
                session.close(CloseCode.KICKED, detail="an operator ended it")
                kicked += 1
        return {"kicked": kicked}

    async def _closed(self, question: Question) -> dict[str, Any]:
        most = number_of(question, "limit", TOP, ITEMS_MAX)
        recent = list(self._endings.recent)
        return {"items": [ending._asdict() for ending in recent[-most:]], "total": len(recent)}

    async def _sessions(self) -> AsyncIterator[Session]:
        async for session in _in_slices(list(self._connections.sessions)):
            if not session.ended:
                yield session


async def _in_slices(items: Iterable[_T]) -> AsyncIterator[_T]:
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_SLICE == 0:
            await asyncio.sleep(0)


def _owed(session: Session) -> int:
    """Return the unread bytes of a session: in its outbox and its transport."""
    return session.outbox.size + (session.stream.buffered if session.stream.connected else 0)


def _behind(session: Session) -> int:
    """Return the number of followed logs in which a session is not live."""
    return sum(not one.live for one in session.subscriptions.by_log.values())


def _connections(found: Iterable[tuple[int, str, Session]], now: float) -> list[dict[str, Any]]:
    return [_connection(session, now) for _, _, session in found if session.stage is not Stage.LOST]


def _connection(session: Session, now: float) -> dict[str, Any]:
    return {
        "id": session.id,
        "name": session.name,
        "peer": session.peer,
        "stage": session.stage.value,
        "age_s": round(now - session.since_us / 1e6, 1),
        "rooms": len(session.subscriptions.by_log),
        "behind": _behind(session),
        "owed_bytes": _owed(session),
    }


def _room(feed: Feed) -> dict[str, Any]:
    return {
        "room": feed.log,
        "connections": len(feed.subscriptions),
        "live": len(feed.live),
        "head": feed.seq,
    }


def _followers(feeds: Mapping[str, Feed], log: str) -> int:
    feed = feeds.get(log)
    return 0 if feed is None else len(feed.subscriptions)
