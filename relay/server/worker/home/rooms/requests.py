"""The home of rooms: decides requests about them, commits, and ends bans that have expired.

Decisions are made by ``chat.rooms`` on the state as of the last commit (``log_changes``). For
writers, a change takes effect in the commit itself (``rules``). For readers, every worker that
follows the room applies it at its entry (``member.feed``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.bus.messages import Answered
from relay.chat import names
from relay.chat.accounts.requests import TellInvited, pack
from relay.chat.entries import Cursor
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import decide, events, requests, shown
from relay.chat.rooms.decide import Context
from relay.chat.rooms.refusal import OF_RIGHTS, Reason, not_this_room
from relay.chat.rooms.refusal import Refused as RoomRefused
from relay.chat.rooms.rights import Right, refusal
from relay.errors import EnvelopeError
from relay.server.worker.error_codes import NOT_CONFIRMED, ROOM_CODES
from relay.server.worker.home.log_changes import Change, LogChanges, PendingRequest
from relay.server.worker.home.rooms.entries import entry_of, redaction_of
from relay.server.worker.stored import stored_entry, stored_room
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Ask as Asked
    from relay.bus.messages import Refused
    from relay.chat.entries import Submission
    from relay.chat.rooms.events import Event
    from relay.chat.rooms.rights import Actor
    from relay.chat.rooms.state import Room
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.server.worker.home.accounts.operators import Operators
    from relay.server.worker.home.direct.permissions import Ask
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.home.rooms.rules import RoomRules

_OVERTAKEN: Final = frozenset({ErrorCode.CHANGED, ErrorCode.ID_CONFLICT})
"""Another entry has taken the position of the one that was decided on."""
_JUDGED: Final = frozenset(ROOM_CODES.values()) - _OVERTAKEN
"""Errors of a redaction that the commit itself detects."""
_OF_RIGHTS: Final = frozenset({ROOM_CODES[reason] for reason in OF_RIGHTS})
log = logging.getLogger("relay.worker")


class RoomsHome(LogChanges["Event | requests.Redact"]):
    """The home of rooms."""

    def __init__(
        self,
        partitions: OwnPartitions,
        submit: Callable[[Port, int, Submission], None],
        rules: RoomRules,
        operators: Operators,
        damaged: DamagedLogs,
        steady_ms: Callable[[], int],
    ) -> None:
        """Create the home.

        Args:
            partitions: of this worker.
            submit: queues an entry for the next commit.
            rules: of the server.
            operators: confirms who is an operator.
            damaged: reports logs that cannot be read.
            steady_ms: milliseconds since 1970, from a clock that is not adjusted while the process
                runs.
        """
        super().__init__(submit, damaged, "room")
        self._partitions = partitions
        self._rules = rules
        self._operators = operators
        self._steady_ms = steady_ms
        self.ask_account: Ask = _nobody
        """Asks the home of an account."""

    # --- requests -----------------------------------------------------------------------------
    def _decide(self, asked: PendingRequest) -> None:
        ask = asked.ask
        name = ask.log
        actor, asked.unconfirmed = self._operators.actor(ask)
        try:
            request, seen = requests.unpack(ask.content)
            room, head = self._room(name)
            if ask.identity and not self._is_meant(ask, room, head):
                raise not_this_room()
            if isinstance(request, requests.Show):
                self._show(asked, room if head else None, actor, request)
                return
            if isinstance(request, requests.List | requests.Mine):
                raise RoomRefused(Reason.BAD_REQUEST)
            if isinstance(request, requests.Redact):
                decide.check_redact(room, actor, request, head)
                target = Cursor(self._partitions.epoch_at(name, request.seq), request.seq)
                redaction = redaction_of(ask, actor, target, request.reason)
                self._commit(name, asked, request, redaction)
                return
            anyone = self._rules.anyone_creates
            own = partial(self._own_event, ask)
            context = Context(actor, seen, self._steady_ms(), head, ask.subject, anyone, own)
            event = decide.decide(room, request, context)
        except RoomRefused as refused:
            if asked.unconfirmed and refused.reason in OF_RIGHTS:
                asked.refuse(ErrorCode.UNAVAILABLE, NOT_CONFIRMED)
            else:
                asked.refuse(ROOM_CODES[refused.reason], refused.text)
            return
        except (EnvelopeError, StoreError) as error:
            self._undecided(asked, error)
            return
        if event is None:
            self._done(asked, _effect(request, actor, ask.subject))
            return
        entry = entry_of(name, room.version, event, ask.by, ask.key_id)
        self._commit(name, asked, event, entry)

    def _room(self, name: str) -> tuple[Room, int]:
        """Return a room, and the seq of its last entry. Raises StoreError."""
        packed, head = self._partitions.state(name), self._partitions.head(name).seq
        return stored_room(name, packed, self._rules.unpacked.of), head

    def _is_meant(self, ask: Asked, room: Room, head: int) -> bool:
        """Return True if a request is for the room that has this name now. Raises StoreError."""
        return head > 0 and ask.identity == self._partitions.epoch_at(ask.log, room.created)

    def _own_event(self, ask: Asked, seq: int) -> Event | None:
        """Return the event of an entry of a room if the device that asks has made it."""
        page = self._partitions.reader(ask.log).read(ask.log, seq - 1, seq, limits.PAGE_BYTES_MAX)
        for _, packed in page.rows:
            entry = stored_entry(ask.log, packed)
            if (entry.sender, entry.key_id) == (ask.by, ask.key_id):
                return events.unpack(entry.body)
        return None

    def _show(
        self, asked: PendingRequest, room: Room | None, actor: Actor, request: requests.Show
    ) -> None:
        if room is None or room.deleted:
            raise RoomRefused(Reason.NO_SUCH_ROOM, "there is no such room")
        refused = refusal(room, actor, Right.READ)
        if refused is not None and not actor.operator:
            raise refused
        identity = self._partitions.epoch_at(asked.ask.log, room.created)
        asked.answer(shown.pack(room, request.after, identity))

    # --- bans and mutes that expire -----------------------------------------------------------
    def sweep(self) -> None:
        """End what has expired. Called about once a second."""
        for index in range(PARTITIONS):
            for name in self._partitions.due(index, self._steady_ms()):
                if name not in self._by_log:
                    self._end_due(name)

    def _end_due(self, name: str) -> None:
        try:
            room, _ = self._room(name)
        except StoreError:
            return
        over = decide.ended(room, self._steady_ms())
        if over:
            entry = entry_of(name, room.version, over[0], events.RELAY, b"")
            self._commit(name, None, over[0], entry)

    # --- the outcome of a commit ----------------------------------------------------------------
    def _again(self, refused: Refused) -> bool:
        return refused.code in _OVERTAKEN  # the room was created in the same commit, by a message

    def _refused(self, change: Change[Event | requests.Redact], message: Refused) -> None:
        asked = change.asked
        if asked is not None and asked.unconfirmed and message.code in _OF_RIGHTS:
            asked.refuse(ErrorCode.UNAVAILABLE, NOT_CONFIRMED)
        else:
            super()._refused(change, message)

    def _code_of(self, refused: Refused) -> ErrorCode:
        for code in _JUDGED:
            if code == refused.code:
                return code
        return super()._code_of(refused)

    def _committed(self, change: Change[Event | requests.Redact]) -> None:
        asked = change.asked
        by = events.RELAY if asked is None else asked.ask.by
        what = type(change.decided).__name__.lower()
        connection = "" if asked is None else asked.ask.connection
        log.info(
            "room_changed",
            extra={"log": change.log, "change": what, "by": by, "connection": connection},
        )
        if asked is not None:
            self._done(asked, change.decided)

    def _done(self, asked: PendingRequest, event: Event | requests.Redact | None) -> None:
        """Answer. An invited user is notified first, so that the inviter can rely on it."""
        ask = asked.ask
        if isinstance(event, events.Created | events.Entered):
            self._answer_identity(asked)
            return
        if not isinstance(event, events.Invited):
            asked.answer()
            return
        tell = TellInvited(ask.log, event.root, ask.root)
        inbox = names.INBOX_PREFIX + event.handle
        if not self.ask_account(inbox, ask.by, pack(tell), lambda _: asked.answer()):
            asked.answer()

    def _answer_identity(self, asked: PendingRequest) -> None:
        """Tell which room it is that was created or entered."""
        name = asked.ask.log
        try:
            room, _ = self._room(name)
            identity = self._partitions.epoch_at(name, room.created)
        except StoreError as error:
            self._undecided(asked, error)  # if it is repeated, it finds its own effect
        else:
            asked.answer(shown.pack_identity(identity))

    def _settled(self, change: Change[Event | requests.Redact]) -> None:
        if change.asked is None and change.log not in self._by_log:
            self._end_due(change.log)


def _effect(request: requests.Change, actor: Actor, subject: bytes) -> Event | None:
    """Return the effect that a repeated request has found, if it is answered in a special way.

    The first one may have ended before an invited user was notified.
    """
    match request:
        case requests.Create(kind=kind, listed=listed):
            return events.Created(kind, listed, actor.root)
        case requests.Enter():
            return events.Entered(actor.root)
        case requests.Invite(handle=handle):
            return events.Invited(handle, subject)
    return None


def _nobody(log: str, by: str, content: bytes, then: Callable[[Answered], None]) -> bool:
    """Refuse: there are no other homes."""
    return False
