"""What a client does while it is logged in: rooms, requests, sends, and what they bring.

One ``ChatState`` lives as long as the client, across its connections: ``online`` begins it again on a
new one, ``offline`` holds it. How connections come and go is in ``state``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast

from relay import limits
from relay.chat import names
from relay.chat.entries import Cursor, GapReason
from relay.client import arguments
from relay.client.errors import ClientError, MessageTooLong, refused
from relay.client.events import (
    Behind,
    Gap,
    HistoryPage,
    Joined,
    Live,
    Member,
    Members,
    Message,
    Postponed,
    RosterChanged,
    Unfollowed,
)
from relay.client.subscriptions import REJOINS_MAX, Subscription, Subscriptions, Start, Step
from relay.client.event_queue import EventQueue
from relay.client.requests import Request, Requests
from relay.client.sends import Sends
from relay.codec import Unknown
from relay.wire import envelopes as wire
from relay.wire.codes import ErrorCode


class Answer(NamedTuple):
    """The end of something that was asked with a token: a result, or the error."""

    token: object
    result: object


class ChatState:
    """The rooms, requests and sends of a client."""

    def __init__(self, sends: Sends) -> None:
        self.queue = EventQueue()
        self.subscriptions = Subscriptions()
        self.requests = Requests()
        self.sends = sends
        self.broken = ""
        """Why the connection must be given up; empty: it need not."""
        self._suspended = False
        """True: rooms are not followed just now, until the application has caught up."""
        self.rejoins = 0
        """Times that something was missing in a room, for statistics."""
        self._body_bytes_max = limits.BODY_BYTES_MAX
        self._answers: list[Answer] = []

    # --- connections -----------------------------------------------------------------------------
    def online(self, welcome: wire.Welcome) -> None:
        """Begin on a new connection: joins from the cursors, open requests, then sends."""
        self._body_bytes_max = min(welcome.body_bytes_max, limits.BODY_BYTES_MAX)
        self._suspended = self.queue.full
        # Joins first: WHO and HISTORY rest on them.
        self.requests.online([] if self._suspended else list(map(_join_again, self.subscriptions.known())))
        self.sends.online(welcome.sends_max)

    def offline(self) -> None:
        """The connection is gone."""
        self.broken = ""
        self._suspended = False
        self.subscriptions.offline()
        self.sends.offline()
        self.requests.forget_own()
        self.requests.offline()
        for request in self.requests.done_by_loss():
            self._answer(request, None)

    def end(self, error: ClientError) -> None:
        """Nothing comes any more: everything that waits gets this answer."""
        self.sends.fail_all(error)
        for request in self.requests.drop_all():
            self._answer(request, error)

    def outgoing(self) -> Iterator[bytes]:
        """Yield the packed envelopes that may leave now."""
        if self.queue.full and self.awaited:
            self._suspend()
        for envelope in self.requests.drain():
            yield wire.pack(envelope)
        yield from self.sends.transmit()

    @property
    def awaited(self) -> bool:
        """True while an answer is to come."""
        return self.sends.count > 0 or len(self.requests) > 0

    @property
    def paused(self) -> bool:
        """True while the application takes its events too slowly, and no answer is awaited."""
        return self.queue.full and not self._suspended

    def next_deadline(self) -> float | None:
        """Return when something is to be sent again."""
        due = (self.sends.next_deadline(), self.requests.next_deadline())
        return min((at for at in due if at is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Send again what has waited long enough."""
        self.sends.handle_deadline(now)
        self.requests.handle_deadline(now)

    def answers(self) -> list[Answer]:
        """Return what has ended since the last call."""
        answers = self._answers
        outcomes = self.sends.outcomes()
        if outcomes:
            answers += [Answer(token, result) for token, result in outcomes]
        if answers:
            self._answers = []
        return answers

    # --- falling behind by oneself ---------------------------------------------------------------
    def _suspend(self) -> None:
        """Leave the rooms while the queue is full, so that awaited answers can still be read.

        Without it a program that sends and does not take its events would wait for ever: the
        acknowledgement is behind entries that nobody takes.
        """
        for subscription in self.subscriptions.known():
            if subscription.joined:
                self._suspended = True
                subscription.joined = subscription.live = False
                self._ask_leave(subscription)

    def resume(self) -> None:
        """The application has taken events: follow the rooms again once there is space."""
        if self._suspended and not self.queue.full:
            self._suspended = False
            for subscription in self.subscriptions.known():
                if not subscription.joined:
                    self._ask_join(subscription)

    def _ask_leave(self, subscription: Subscription) -> None:
        room = subscription.room
        self.requests.forget_own(room)
        self.requests.ask(Request(room, lambda number: wire.Leave(number, room), None))

    def _ask_join(self, subscription: Subscription) -> None:
        if self.requests.asks(subscription.join):
            return  # a second one would be refused, and end the subscription
        self.requests.forget_own(subscription.room)
        self.requests.ask(_join_again(subscription))

    # --- the program -----------------------------------------------------------------------------
    def send(self, room: str, content_type: str, body: bytes, token: object) -> None:
        """Queue a message. Raises NameInvalid, MessageTooLong."""
        room = canonical(room)
        arguments.text("content_type", content_type)
        if len(body) > self._body_bytes_max:
            raise MessageTooLong(
                f"a message of {len(body)} bytes; at most {self._body_bytes_max} are allowed"
            )
        if len(content_type.encode()) > limits.CONTENT_TYPE_BYTES_MAX:
            raise MessageTooLong(f"a content type over {limits.CONTENT_TYPE_BYTES_MAX} bytes")
        self.sends.add(room, content_type, body, token)

    def join(self, room: str, cursor: Cursor | None, last: int, token: object) -> None:
        """Follow a room. Raises NameInvalid, AlreadyJoined."""
        room = canonical(room)
        if room in self.subscriptions:
            raise refused(ErrorCode.ALREADY_JOINED)
        assert 0 <= last <= limits.HISTORY_ON_JOIN_MAX
        subscription = self.subscriptions.add(room, Start(cursor, last))
        self.requests.ask(Request(room, subscription.join, token))

    def cancel_join(self, room: str, token: object, *, online: bool) -> None:
        """Undo a join that has no answer yet."""
        room = canonical(room)
        if self.subscriptions.remove(room) is None:
            return
        self.queue.unfollow(room)
        self.requests.forget_own(room)
        if self.requests.drop(token) and online:  # it may be on its way
            self.requests.ask(Request(room, lambda number: wire.Leave(number, room), None))

    def leave(self, room: str, token: object, *, online: bool) -> Cursor | None:
        """Stop following. Raises NotAMember."""
        room = canonical(room)
        if self.subscriptions.remove(room) is None:
            raise refused(ErrorCode.NOT_A_MEMBER)
        cursor = self.queue.unfollow(room)
        self.requests.forget_own(room)
        if online:
            self.requests.ask(Request(room, lambda number: wire.Leave(number, room), token, True))
        else:
            self._answers.append(Answer(token, None))
        return cursor

    def who(self, room: str, token: object) -> None:
        """Ask for the members of a room."""
        room = canonical(room)
        self._ask_member(room, lambda number: wire.Who(number, room), token)

    def history(self, room: str, forward: bool, seq: int, count: int, token: object) -> None:
        """Ask for a page."""
        room = canonical(room)
        assert 0 <= seq <= limits.U63_MAX
        assert 1 <= count <= limits.PAGE_ENTRIES_MAX
        self._ask_member(room, lambda n: wire.History(n, room, forward, seq, count), token)

    def _ask_member(
        self, room: str, envelope: Callable[[int], wire.ClientEnvelope], token: object
    ) -> None:
        """Ask what only a member may ask."""
        subscription = self.subscriptions.get(room)
        if self._suspended and subscription is not None and not subscription.joined:
            self._ask_join(subscription)
        self.requests.ask(Request(room, envelope, token))

    # --- what the server says --------------------------------------------------------------------
    def receive(self, envelopes: list[wire.ServerEnvelope], now: float) -> None:
        """Take the envelopes of one record."""
        for envelope in envelopes:
            kind = type(envelope)
            if self.queue.over:
                self._suspend()  # nothing of a room is taken in any more
            if kind is wire.EntryMessage:
                entry = cast(wire.EntryMessage, envelope)
                step = self.subscriptions.entry(entry)
                if step is Step.DELIVER:
                    self.queue.put(_as_message(entry))
                elif step is Step.REJOIN:
                    self._rejoin(entry.log)
            elif kind is wire.Ack:
                self.sends.acknowledged(cast(wire.Ack, envelope), now)
            elif kind is wire.Refused:
                refusal = cast(wire.Refused, envelope)
                if self.sends.refused(refusal, now):
                    self.queue.put(Postponed(refusal.log, refusal.text))
            elif kind is wire.Error:
                self._error(cast(wire.Error, envelope), now)
            elif kind is not Unknown and kind is not wire.Welcome:  # "a client ignores one"
                self._HANDLERS[kind](self, envelope)

    def _answer(self, request: Request, result: object) -> None:
        if request.token is not None:
            self._answers.append(Answer(request.token, result))

    def _rejoin(self, room: str) -> None:
        """Something is missing in a room: back to the cursor. Until JOINED nothing of it counts."""
        subscription = self.subscriptions.get(room)
        assert subscription is not None
        subscription.joined = subscription.live = False
        subscription.rejoins += 1
        self.rejoins += 1
        if subscription.rejoins > REJOINS_MAX:
            self.broken = f"entries of {room} are missing, again and again"
            return
        self._ask_leave(subscription)
        self.requests.ask(_join_again(subscription))

    def _joined(self, joined: wire.Joined) -> None:
        request = self.requests.answered(joined.request)
        if request is None:
            return
        start = Cursor(joined.start_epoch, joined.start_seq)
        subscription = self.subscriptions.get(request.room)
        if subscription is not None:
            if subscription.received is None:
                self.queue.follow(request.room, start)
            subscription.joined_at(start)
        head = Cursor(joined.head_epoch, joined.head_seq)
        self._answer(request, Joined(request.room, start, head))

    def _left(self, left: wire.Left) -> None:
        request = self.requests.answered(left.request)
        if request is not None:
            self._answer(request, None)

    def _error(self, error: wire.Error, now: float) -> None:
        request = self.requests.refused(error, now)
        if request is None:
            return
        reason = refused(error.code, error.arg, error.text)
        subscription = self.subscriptions.get(request.room)
        if subscription is not None and request.envelope == subscription.join:
            self.subscriptions.remove(request.room)
            if subscription.received is not None:
                self.queue.put(Unfollowed(request.room, str(reason)))
        self._answer(request, reason)

    def _roster(self, roster: wire.Roster) -> None:
        subscription = self.subscriptions.get(roster.log)
        if subscription is not None and subscription.joined:
            joined = tuple(Member(name, display) for name, display in roster.joined)
            self.queue.put(
                RosterChanged(
                    roster.log,
                    roster.total,
                    joined,
                    tuple(roster.left),
                    roster.incarnation,
                    roster.version,
                )
            )

    def _members(self, members: wire.Members) -> None:
        request = self.requests.answered(members.request)
        if request is not None:
            listed = tuple(Member(*cast("list[Any]", row)) for row in members.names)
            _, _, incarnation, version, total, _ = members
            self._answer(request, Members(request.room, total, listed, incarnation, version))

    def _page(self, page: wire.Page) -> None:
        request = self.requests.answered(page.request)
        if request is not None:
            entries = tuple(map(_as_message, page.entries))
            self._answer(request, HistoryPage(entries, page.next, page.end))

    def _placed(self, place: wire.Live | wire.Behind) -> None:
        step = self.subscriptions.place(place)
        if step is Step.DELIVER:
            kind = Live if type(place) is wire.Live else Behind
            self.queue.put(kind(place.log, place.seq))
        elif step is Step.REJOIN:
            self._rejoin(place.log)

    def _gap(self, gap: wire.Gap) -> None:
        step = self.subscriptions.gap(gap)
        if step is Step.DELIVER:
            start = Cursor(gap.from_epoch, gap.from_seq)
            end = Cursor(gap.to_epoch, gap.to_seq)
            reason = GapReason(gap.reason) if gap.reason in _GAP_REASONS else gap.reason
            self.queue.put(Gap(gap.log, start, end, reason))
        elif step is Step.REJOIN:
            self._rejoin(gap.log)

    # Each takes the envelope type of its key; a dict cannot say that.
    _HANDLERS: Final[dict[type, Callable[[Any, Any], None]]] = {
        wire.Joined: _joined,
        wire.Left: _left,
        wire.Roster: _roster,
        wire.Members: _members,
        wire.Page: _page,
        wire.Live: _placed,
        wire.Behind: _placed,
        wire.Gap: _gap,
    }


def canonical(room: str) -> str:
    """Return the canonical spelling of a room's name. Raises NameInvalid, TypeError."""
    if not isinstance(room, str):
        raise TypeError(f"the name of a room must be a str, not {type(room).__name__}")
    room = names.normal(room)
    if names.is_room(room) or names.is_inbox(room):
        return room
    raise refused(ErrorCode.NAME_INVALID, 0, "2 to 32 characters of a-z, 0-9, _ and -")


def _join_again(subscription: Subscription) -> Request:
    return Request(subscription.room, subscription.join, None)


def _as_message(entry: wire.EntryMessage) -> Message:
    # The same fields in the same places (a test says so): one call in C for each message.
    return tuple.__new__(Message, entry)


_GAP_REASONS: Final = frozenset(int(reason) for reason in GapReason)
