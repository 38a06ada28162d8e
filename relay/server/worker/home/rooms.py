"""The home of rooms: takes requests about them, decides, commits; ends bans whose time is over.

Decisions are ``chat.rooms``', on the state as of the last commit; while a change of one room is
being committed, further requests about it wait. What the change means for those who write is judged
by ``room_rules`` in the commit itself, for those who read by every worker that follows the room
(``member.feed``), at the entry.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from relay.bus.messages import Acks, Answered, Ask, Message, NotHome, Refused
from relay.chat.partition import PARTITIONS, partition_of
from relay.chat.rooms import decide, events, requests, shown
from relay.chat.rooms import state as rooms
from relay.chat.rooms.decide import Context
from relay.chat.rooms.refusal import Reason
from relay.chat.rooms.refusal import Refused as RoomRefused
from relay.chat.rooms.rights import Actor, Right, refusal
from relay.errors import EnvelopeError
from relay.server.worker.home.room_entries import entry_of
from relay.server.worker.room_codes import CODES
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Batch
    from relay.bus.messages import Event as BusEvent
    from relay.chat.entries import Submission
    from relay.chat.rooms.events import Event
    from relay.server.worker.home.home import Home
    from relay.server.worker.home.room_rules import RoomRules

WAITING_MAX: Final = 64
"""Requests about one room that wait for its commit."""
_OVERTAKEN: Final = frozenset({ErrorCode.CHANGED, ErrorCode.ID_CONFLICT})
"""Another entry has the place of the one that was decided on."""
log = logging.getLogger("relay.worker")


class _Change(NamedTuple):
    """One that is being committed."""

    tag: int
    port: Port | None
    """None: nobody has asked for it."""
    ask: Ask | None
    event: Event


class RoomsHome:
    """See the module's docstring. To the home it is the ``Port`` of its own submissions."""

    index = -1
    generation = -1

    def __init__(self, home: Home, rules: RoomRules, steady_ms: Callable[[], int]) -> None:
        """Begin.

        Args:
            home: of this worker.
            rules: of the server.
            steady_ms: milliseconds since 1970, by a clock that nobody sets while it runs.
        """
        self._home = home
        self._rules = rules
        self._steady_ms = steady_ms
        self._count = 0
        self._changes: dict[int, str] = {}
        """Tag of a submission to its room."""
        self._busy: dict[str, tuple[_Change, deque[tuple[Port, Ask]]]] = {}
        """Rooms with a change that is being committed, and who waits for that."""

    # --- requests -----------------------------------------------------------------------------
    def ask(self, port: Port, ask: Ask) -> None:
        """Take a request; its answer comes by the port, at once or later."""
        found = self._busy.get(ask.log)
        if found is None:
            self._decide(port, ask)
        elif len(found[1]) < WAITING_MAX:
            found[1].append((port, ask))
        else:
            _refuse(port, ask, ErrorCode.BUSY, "too many requests about this room")

    def _decide(self, port: Port, ask: Ask) -> None:
        name = ask.log
        actor = Actor(ask.by, ask.root, ask.operator)
        try:
            request, seen = requests.unpack(ask.content)
            packed, head = self._home.state(name)
            room = rooms.unpack(packed)
            if isinstance(request, requests.Show):
                self._show(port, ask, room if head else None, actor, request)
                return
            if isinstance(request, requests.List):
                raise RoomRefused(Reason.BAD_REQUEST)
            anyone = self._rules.anyone_creates
            context = Context(actor, seen, self._steady_ms(), head, ask.subject, anyone)
            event = decide.decide(room, request, context)
        except RoomRefused as refused:
            _refuse(port, ask, CODES[refused.reason], refused.text)
            return
        except EnvelopeError as error:
            _refuse(port, ask, ErrorCode.BAD_REQUEST, str(error))
            return
        except StoreError as error:
            log.error("room_unreadable", extra={"log": name, "reason": str(error)})
            _refuse(port, ask, ErrorCode.UNAVAILABLE, "the room cannot be read now")
            return
        if event is None:
            port.send(Answered(ask.tag, 0, "", b""))
            return
        self._commit(name, port, ask, room.version, event)

    def _show(
        self,
        port: Port,
        ask: Ask,
        room: rooms.Room | None,
        actor: Actor,
        request: requests.Show,
    ) -> None:
        if room is None or room.deleted:
            raise RoomRefused(Reason.NO_SUCH_ROOM, "there is no such room")
        refused = refusal(room, actor, Right.READ)
        if refused is not None and not actor.operator:
            raise refused
        port.send(Answered(ask.tag, 0, "", shown.pack(room, request.after)))

    def _commit(
        self, name: str, port: Port | None, ask: Ask | None, version: int, event: Event
    ) -> None:
        self._count += 1
        self._changes[self._count] = name
        self._busy[name] = _Change(self._count, port, ask, event), deque()
        by, key_id = (events.RELAY, b"") if ask is None else (ask.by, ask.key_id)
        self._home.submit_own(self, self._count, entry_of(name, version, event, by, key_id))

    # --- bans and mutes that end ----------------------------------------------------------------
    def sweep(self) -> None:
        """End what is over. Called about once a second."""
        for index in range(PARTITIONS):
            for name in self._home.due(index, self._steady_ms()):
                if name not in self._busy:
                    self._end_due(name)

    def _end_due(self, name: str) -> None:
        try:
            packed, _ = self._home.state(name)
        except StoreError:
            return
        room = rooms.unpack(packed)
        over = decide.ended(room, self._steady_ms())
        if over:
            self._commit(name, None, None, room.version, over[0])

    # --- Port: the outcome of a commit ----------------------------------------------------------
    def send(self, message: Message) -> None:
        """Take what the home says about a submission of this one."""
        if isinstance(message, Acks):
            for row in message.acks:
                self._committed(cast("int", row[0]))
        elif isinstance(message, Refused):
            change, waiting = self._ended(message.tag)
            if change.port is not None and change.ask is not None:
                if message.code in _OVERTAKEN:
                    # The room began in the same commit, by its first message: look again.
                    waiting.appendleft((change.port, change.ask))
                else:
                    text = message.text or "it could not be stored"
                    _refuse(change.port, change.ask, ErrorCode.UNAVAILABLE, text)
            self._go_on(waiting)
        elif isinstance(message, NotHome):
            # Who asked asks the next home, once it is attached there.
            for name in [one for one in self._busy if partition_of(one) == message.partition]:
                change, _ = self._busy.pop(name)
                del self._changes[change.tag]

    def submit(self, tag: int, submission: Submission) -> None:
        """Nobody submits to this."""
        raise AssertionError

    def publish(self, message: Batch | BusEvent) -> None:
        """Nobody publishes to this."""
        raise AssertionError

    def _ended(self, tag: int) -> tuple[_Change, deque[tuple[Port, Ask]]]:
        return self._busy.pop(self._changes.pop(tag))

    def _committed(self, tag: int) -> None:
        name = self._changes.get(tag)
        if name is None:
            return  # the partition was given away meanwhile
        change, waiting = self._ended(tag)
        by = events.RELAY if change.ask is None else change.ask.by
        what = type(change.event).__name__.lower()
        log.info("room_changed", extra={"log": name, "change": what, "by": by})
        if change.port is not None and change.ask is not None:
            change.port.send(Answered(change.ask.tag, 0, "", b""))
        self._go_on(waiting)
        if change.ask is None and name not in self._busy:
            self._end_due(name)

    def _go_on(self, waiting: deque[tuple[Port, Ask]]) -> None:
        while waiting:
            port, ask = waiting.popleft()
            self._decide(port, ask)
            found = self._busy.get(ask.log)
            if found is not None:
                found[1].extend(waiting)
                return

    def drop(self, port: Port) -> None:
        """A worker is gone: nobody waits for its answers."""
        for _, waiting in self._busy.values():
            kept = [one for one in waiting if one[0] is not port]
            waiting.clear()
            waiting.extend(kept)


def _refuse(port: Port, ask: Ask, code: ErrorCode, text: str) -> None:
    port.send(Answered(ask.tag, int(code), text, b""))
