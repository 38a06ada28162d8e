"""What a client does while it is logged in: rooms, requests, sends, and what they bring.

One ``ChatState`` lives as long as the client, across its connections: ``online`` begins it again on
a new one, ``offline`` holds it. How connections come and go is in ``state``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, cast

from relay import limits
from relay.chat.accounts import requests as account_requests
from relay.chat.accounts.requests import Request as AccountRequest
from relay.chat.entries import Cursor
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms.events import RELAY
from relay.chat.rooms.requests import Request as RoomRequest
from relay.client import arguments, decoding
from relay.client.errors import ClientError
from relay.client.event_queue import EventQueue
from relay.client.events import Event, Invited, Postponed, Unfollowed
from relay.client.next_key import NextKeyProof
from relay.client.pending_sends import Offer, Outcome
from relay.client.refusals import describe_refusal, refused
from relay.client.requests import Request, Requests
from relay.client.senders import NUMBER as OWN_NUMBER
from relay.client.senders import Senders
from relay.client.sends import Sends
from relay.client.subscriptions import REJOINS_MAX, Start, Step, Subscription, Subscriptions
from relay.codec import Unknown
from relay.wire import envelopes as wire
from relay.wire import packing
from relay.wire.codes import ErrorCode

log: Final = logging.getLogger(__name__)
Read: TypeAlias = Callable[[bytes], object]
"""Reads the content of an answer; raises EnvelopeError."""


class ChatState:
    """The rooms, requests and sends of a client."""

    def __init__(self, sends: Sends, inbox: str, next_key: NextKeyProof) -> None:
        self._inbox = inbox
        self.next_key = next_key
        self.queue = EventQueue()
        self.subscriptions = Subscriptions()
        self.requests = Requests()
        self.sends = sends
        self.senders = Senders()
        self.ending: ClientError | None = None
        """Why this side is ending the client; None: it is not."""
        self.over = False
        """True: nothing comes any more."""
        self._online = False
        self.broken = ""
        """Why the connection must be given up; empty: it need not."""
        self._suspended = False
        """True: rooms are not followed just now, until the application has caught up. Only while
        the queue is full."""
        self.flush_due = False
        """True when space in the queue lets the client read on, or join again: nothing has come
        from the socket, so nothing else would make a pump write or read. Reset by
        ``ClientState.data_to_send``."""
        self.suspensions = 0
        """Times that rooms were left because the queue was full, for statistics."""
        self.rejoins = 0
        """Times that something was missing in a room, for statistics."""
        self._body_bytes_max = limits.BODY_BYTES_MAX
        self._answers: list[Outcome] = []

    # --- connections -----------------------------------------------------------------------------
    def online(self, welcome: wire.Welcome) -> None:
        """Begin on a new connection: joins from the cursors, open requests, then sends."""
        self._online = True
        self._body_bytes_max = min(welcome.body_bytes_max, limits.BODY_BYTES_MAX)
        self._suspended = self.queue.full
        # Joins first: WHO and HISTORY rest on them.
        self.requests.online(
            [] if self._suspended else list(map(_join_again, self.subscriptions.known()))
        )
        self.sends.online(welcome.sends_max)

    def offline(self) -> None:
        """The connection is gone."""
        self._online = False
        self.broken = ""
        self._suspended = False
        self.subscriptions.offline()
        self.senders.offline()
        self.sends.offline()
        self.requests.forget_own()
        self.requests.offline()
        for request in self.requests.done_by_loss():
            self._answer(request, None)

    def end(self, error: ClientError) -> None:
        """Nothing comes any more: everything that waits, and every later call, gets this answer."""
        if self.ending is None:
            self.ending = error
        self.over = True
        self._online = False
        self.sends.fail_all(error)
        for request in self.requests.drop_all():
            self._answer(request, error)

    def outgoing(self, now: float) -> Iterator[bytes]:
        """Yield the packed envelopes that may leave now."""
        if self.queue.full and (self._suspended or self.awaited):
            self._suspend()
        for envelope in self.requests.drain():
            yield packing.pack(envelope)
        for question in self.senders.requests(now):
            yield packing.pack(question)
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
        due = (self.sends.next_deadline(), self.requests.next_deadline(), self.senders.deadline)
        return min((at for at in due if at is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Send again what has waited long enough."""
        self.sends.handle_deadline(now)
        self.requests.handle_deadline(now)
        self.senders.overdue(now)
        self._warn()

    def answers(self) -> list[Outcome]:
        """Return what has ended since the last call."""
        answers = self._answers
        answers += self.sends.outcomes()
        if answers:
            self._answers = []
        return answers

    # --- falling behind by oneself ---------------------------------------------------------------
    def _suspend(self) -> None:
        """Leave the rooms while the queue is full, so that awaited answers can still be read.

        Without it a program that sends and does not take its events would wait for ever: the
        acknowledgement is behind entries that nobody takes. Also when no room is joined at this
        moment: the answer to a join is awaited then, and must be read. A room that is joined
        meanwhile (for a WHO) is left again, or its entries would come without a bound.
        """
        if not self._suspended:
            log.debug("events are not taken: leaving the rooms until they are")
            self._suspended = True
            self.suspensions += 1
        for subscription in self.subscriptions.known():
            if subscription.joined:
                subscription.joined = False
                self._ask_leave(subscription.room)

    def _resume(self) -> None:
        """The queue has space again: read on, and follow the rooms again."""
        self.flush_due = True
        if self._suspended:
            log.debug("events are taken again: back to the rooms")
            self._suspended = False
            for subscription in self.subscriptions.known():
                if not subscription.joined:
                    self._ask_join(subscription)

    def _ask_leave(self, room: str) -> None:
        self.requests.forget_own(room)
        self.requests.ask(Request(room, lambda number: wire.Leave(number, room), None))

    def _ask_join(self, subscription: Subscription) -> None:
        if self.requests.asks(subscription.join):
            return  # a second one would be refused, and end the subscription
        self.requests.forget_own(subscription.room)
        self.requests.ask(_join_again(subscription))

    # --- the program -----------------------------------------------------------------------------
    def take(self, room: str | None = None) -> Event | None:
        """Return the next event, or None; the cursor of its room moves with it.

        ``room`` is one with a queue of its own; None: the queue of all others. It may make space
        for more: a client looks at ``flush_due`` after it.
        """
        was_full = self.queue.full
        event = self.queue.take(room)
        if was_full and not self.queue.full:
            self._resume()
        return event

    def has_event(self, room: str | None = None) -> bool:
        """True when ``take`` has something, or nothing will ever come again."""
        left = room is not None and room not in self.subscriptions
        return self.queue.has(room) or self.over or left

    def log_name(self, room: str) -> str:
        """Return the canonical name of a room, or of an inbox. Raises NameInvalid, TypeError."""
        name = arguments.room_name(room)
        return self._inbox if name == arguments.ME else name

    def send(self, offer: Offer, token: object) -> None:
        """Queue a message; its outcome comes with ``answers``. The caller has asked ``has_space``.

        Raises:
            NameInvalid: not the name of a room.
            MessageTooLong: the body or the content type.
            ClientError: the client has ended.
        """
        self._check_open()
        log = self.log_name(offer.log)
        arguments.message(offer.content_type, offer.body, self._body_bytes_max)
        self.sends.add(offer if log == offer.log else offer._replace(log=log), token)

    def join(
        self, room: str, cursor: Cursor | None, last: int, token: object, *, own_queue: bool = False
    ) -> None:
        """Follow a room, after a cursor or with its last entries.

        With ``own_queue`` its events are taken by ``take(room)``, and not by ``take()``.

        Raises:
            NameInvalid: not the name of a room.
            AlreadyJoined: the room is followed.
            ClientError: the client has ended.
        """
        self._check_open()
        room = self.log_name(room)
        if room in self.subscriptions:
            raise refused(ErrorCode.ALREADY_JOINED)
        assert 0 <= last <= limits.HISTORY_ON_JOIN_MAX
        subscription = self.subscriptions.add(room, Start(cursor, last))
        if own_queue:
            self.queue.separate(room)
        self.requests.ask(Request(room, subscription.join, token))
        log.debug("joining %s", room)

    def ask_account(
        self, name: str, request: AccountRequest, token: object, read: Read = bytes
    ) -> None:
        """Ask something about an account. ``name``: whose; empty: one's own.

        ``read`` makes the answer of its content; what it raises ends the client.
        """
        self._check_open()
        content = account_requests.pack(request)
        self.requests.ask(
            Request("", lambda number: wire.Account(number, name, content), token, read=read)
        )

    def ask_room(
        self, room: str, request: RoomRequest, seen: int, token: object, read: Read = bytes
    ) -> None:
        """Ask something about a room, or change it; ``seen``: see ``chat.rooms.requests``.

        ``read``: see ``ask_account``.
        """
        self._check_open()
        content = room_requests.pack(request, seen)
        self.requests.ask(
            Request("", lambda number: wire.Room(number, room, content), token, read=read)
        )

    def ask_devices(self, name: str, first: int, token: object) -> None:
        """Ask for links of somebody's chain; the answer is (links, whether it is the end)."""
        self._check_open()
        self.requests.ask(Request("", lambda number: wire.Devices(number, name, first), token))

    def cancel_join(self, room: str, token: object) -> None:
        """Nobody waits for this join any more: the room is not followed, whatever the answer."""
        room = self.log_name(room)
        if self.ending is not None or self.subscriptions.remove(room) is None:
            return
        self._forget(room)
        self.requests.drop(token)
        if self._online:  # it may be on its way, or be answered already
            self._ask_leave(room)

    def leave(self, room: str, token: object) -> Cursor | None:
        """Stop following. Events of the room that were not taken are dropped.

        Returns:
            The cursor of what was taken, to go on from later.

        Raises:
            NotAMember: the room is not followed.
            ClientError: the client has ended.
        """
        self._check_open()
        room = self.log_name(room)
        subscription = self.subscriptions.remove(room)
        cursor = self._forget(room)
        if subscription is None:
            raise refused(ErrorCode.NOT_A_MEMBER)
        log.debug("leaving %s", room)
        if self._online:
            self.requests.ask(Request(room, lambda number: wire.Leave(number, room), token, True))
        else:
            self._answers.append(Outcome(token, None))
        return cursor

    def who(self, room: str, token: object) -> None:
        """Ask for the members of a room that is followed."""
        self._check_open()
        room = self.log_name(room)
        self._ask_member(room, lambda number: wire.Who(number, room), token)

    def history(self, room: str, forward: bool, seq: int, count: int, token: object) -> None:
        """Ask for a page of a room that is followed; of ``@name``, what is in one's own inbox."""
        self._check_open()
        room = self.log_name(room)
        assert 0 <= seq <= limits.U63_MAX
        assert 1 <= count <= limits.PAGE_ENTRIES_MAX
        joined = self._inbox if room.startswith("@") else room
        self._ask_member(joined, lambda n: wire.History(n, room, forward, seq, count), token)

    def search(self, room: str, text: str, before: int, count: int, token: object) -> None:
        """Search a room that is followed; of ``@name``, what is in one's own inbox."""
        self._check_open()
        room = self.log_name(room)
        joined = self._inbox if room.startswith("@") else room
        self._ask_member(joined, lambda n: wire.Search(n, room, text, before, count), token)

    def _forget(self, room: str) -> Cursor | None:
        """Drop what was queued and asked for a room that is followed no more; return its cursor."""
        was_full = self.queue.full
        cursor = self.queue.forget(room)
        self.requests.forget_own(room)
        if was_full and not self.queue.full:
            self._resume()
        return cursor

    def _check_open(self) -> None:
        if self.ending is not None:
            raise self.ending
        assert not self.over

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
        """Take the envelopes of one record.

        Raises:
            EnvelopeError: the content of an answer is illegal.
        """
        for envelope in envelopes:
            kind = type(envelope)
            if self.queue.over:
                self._suspend()  # nothing of a room is taken in any more
            if kind is wire.EntryMessage:
                entry = cast(wire.EntryMessage, envelope)
                step = self.subscriptions.entry(entry)
                if step is Step.DELIVER:
                    self.queue.put(decoding.as_entry(entry))
                    if (entry.sender, entry.key_id) not in self.senders.known and (
                        entry.sender != RELAY or entry.kind != decoding.SYSTEM
                    ):
                        self.senders.look(entry.log, entry.sender, entry.key_id, now)
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
            elif kind is wire.Chain:
                self._chain(cast(wire.Chain, envelope), now)
            elif kind is wire.Done:
                self._done(cast(wire.Done, envelope), now)
            elif kind is not Unknown and kind is not wire.Welcome:  # "a client ignores one"
                self._HANDLERS[kind](self, envelope)

    def _answer(self, request: Request, result: object) -> None:
        if request.token is not None:
            self._answers.append(Outcome(request.token, result))

    def _rejoin(self, room: str) -> None:
        """Something is missing in a room: back to the cursor. Until JOINED nothing of it counts."""
        subscription = self.subscriptions.get(room)
        assert subscription is not None
        subscription.joined = False
        subscription.rejoins += 1
        self.rejoins += 1
        log.debug("messages of %s are missing: joining it again", room)
        if subscription.rejoins > REJOINS_MAX:
            self.broken = f"entries of {room} are missing, again and again"
            return
        self._ask_leave(room)
        self.requests.ask(_join_again(subscription))

    def _joined(self, joined: wire.Joined) -> None:
        request = self.requests.answered(joined.request)
        if request is None:
            return
        result = decoding.as_joined(request.room, joined)
        subscription = self.subscriptions.get(request.room)
        if subscription is not None:
            if subscription.received is None:
                self.queue.follow(request.room, result.start)
            subscription.joined_at(result.start)
            log.debug("in %s, from %d of %d", request.room, result.start.seq, result.head.seq)
        self._answer(request, result)

    def _chain(self, answer: wire.Chain, now: float) -> None:
        if answer.request == OWN_NUMBER:
            self.senders.received(answer, now)
            self._warn()
            return
        request = self.requests.answered(answer.request)
        if request is not None:
            self._answer(request, (answer.links, answer.end))

    def _done(self, done: wire.Done, now: float) -> None:
        if done.request == OWN_NUMBER:
            self.senders.done(now)
            return
        request = self.requests.get(done.request)
        if request is None:
            return
        answer = request.read(done.content)  # if that fails, the end of the client is the answer
        self.requests.answered(done.request)
        if request.envelope == self.next_key.prove:
            if not self.next_key.answered(done.content):
                log.warning("the server announced another key, and did not prove that it is one")
            return
        self._answer(request, answer)

    def _next_key(self, announced: wire.NextKey) -> None:
        if not self.requests.asks(self.next_key.prove) and self.next_key.announced(
            announced.spki_hash
        ):
            self.requests.ask(Request("", self.next_key.prove, None))

    def _warn(self) -> None:
        """Say what is doubtful about a sender."""
        warnings, self.senders.warnings = self.senders.warnings, []
        for warning in warnings:
            log.warning("%s: %s", warning.name, warning.detail)
            self.queue.put(warning)

    def _left(self, left: wire.Left) -> None:
        request = self.requests.answered(left.request)
        if request is not None:
            self._answer(request, None)

    def _error(self, error: wire.Error, now: float) -> None:
        if error.request == OWN_NUMBER:
            self.senders.refused(describe_refusal(error.code, error.text), now)
            self._warn()
            return
        request = self.requests.refused(error, now)
        if request is None:
            return
        reason = refused(error.code, error.arg, error.text)
        log.debug("refused in %s: %s", request.room, reason)
        subscription = self.subscriptions.get(request.room)
        if subscription is not None and request.envelope == subscription.join:
            self.subscriptions.remove(request.room)
            if subscription.received is not None:
                self.queue.put(Unfollowed(request.room, str(reason)))
            else:
                self.queue.forget(request.room)
        self._answer(request, reason)

    def _removed(self, removed: wire.Removed) -> None:
        """This client may not be in a room any more."""
        subscription = self.subscriptions.remove(removed.log)
        if subscription is None:
            return  # it has left meanwhile
        self.requests.forget_own(removed.log)
        detail = describe_refusal(removed.code, removed.text)
        log.debug("put out of %s: %s", removed.log, detail)
        self.queue.put(Unfollowed(removed.log, detail))

    def _invited(self, invited: wire.Invited) -> None:
        log.debug("invited to %s", invited.log)
        self.queue.put(Invited(invited.log, invited.by))

    def _roster(self, roster: wire.Roster) -> None:
        subscription = self.subscriptions.get(roster.log)
        if subscription is not None and subscription.joined:
            self.queue.put(decoding.as_roster(roster))

    def _members(self, members: wire.Members) -> None:
        request = self.requests.answered(members.request)
        if request is not None:
            self._answer(request, decoding.as_members(request.room, members))

    def _page(self, page: wire.Page) -> None:
        request = self.requests.answered(page.request)
        if request is not None:
            self._answer(request, decoding.as_page(page))

    def _found(self, found: wire.Found) -> None:
        request = self.requests.answered(found.request)
        if request is not None:
            self._answer(request, decoding.as_search_page(found))

    def _placed(self, place: wire.Live | wire.Behind) -> None:
        step = self.subscriptions.place(place)
        if step is Step.DELIVER:
            self.queue.put(decoding.as_place(place))
        elif step is Step.REJOIN:
            self._rejoin(place.log)

    def _gap(self, gap: wire.Gap) -> None:
        step = self.subscriptions.gap(gap)
        if step is Step.DELIVER:
            log.debug("a gap in %s: %d to %d", gap.log, gap.from_seq, gap.to_seq)
            self.queue.put(decoding.as_gap(gap))
        elif step is Step.REJOIN:
            self._rejoin(gap.log)

    # Each takes the envelope type of its key; a dict cannot say that.
    _HANDLERS: Final[dict[type, Callable[[Any, Any], None]]] = {
        wire.Joined: _joined,
        wire.Left: _left,
        wire.Roster: _roster,
        wire.Members: _members,
        wire.Page: _page,
        wire.Found: _found,
        wire.Live: _placed,
        wire.Behind: _placed,
        wire.Gap: _gap,
        wire.NextKey: _next_key,
        wire.Removed: _removed,
        wire.Invited: _invited,
    }


def _join_again(subscription: Subscription) -> Request:
    return Request(subscription.room, subscription.join, None)
