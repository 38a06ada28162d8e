"""The state of a client while it is logged in: rooms, requests and sends of the program.

One ``ChatState`` lives as long as the client, across its connections: ``online`` restarts it on a
new one, ``offline`` suspends it. Connecting is in ``state``, the effect of the server's envelopes
in ``receiver``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from relay import limits
from relay.chat.accounts import requests as account_requests
from relay.chat.accounts.chain import Chain
from relay.chat.accounts.requests import Request as AccountRequest
from relay.chat.entries import Cursor
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms import shown
from relay.chat.rooms.requests import Request as RoomRequest
from relay.client import arguments
from relay.client.devices.senders import Senders
from relay.client.devices.unverified import UnverifiedSenders
from relay.client.errors import ClientError
from relay.client.events import Event
from relay.client.followed_rooms import FollowedRooms
from relay.client.options import Options
from relay.client.pending_sends import Offer, Outcome
from relay.client.receiver import Receiver
from relay.client.refusals import refused
from relay.client.requests import Request, Requests
from relay.client.sends import Sends
from relay.client.subscriptions import Start
from relay.client.trust.next_key import NextKeyProof
from relay.wire import envelopes as wire
from relay.wire import packing
from relay.wire.codes import ErrorCode

log: Final = logging.getLogger(__name__)
Read: TypeAlias = Callable[[bytes], object]
"""Decodes the content of an answer; raises EnvelopeError."""

_OF_WHICHEVER: Final = (
    room_requests.Create, room_requests.Show, room_requests.List, room_requests.Mine,
)  # fmt: skip
"""Requests that are about whichever room has the name, if any has."""


class ChatState:
    """The rooms, requests and sends of a client."""

    def __init__(self, options: Options) -> None:
        self._inbox = arguments.own_inbox(options.name)
        self.next_key = NextKeyProof(options.random_bytes)
        self.requests = Requests(options.retry_timeout_s)
        unverified = UnverifiedSenders()
        self.rooms = FollowedRooms(self.requests, unverified)
        self.queue = self.rooms.queue
        """Events that the application has not taken."""
        self.sends = Sends(
            options.identity.counters,
            inbox=self._inbox,
            window=options.window,
            retry_timeout_s=options.retry_timeout_s,
            retry_spread=options.jitter,
        )
        self.senders = Senders(unverified)
        self._receiver = Receiver(
            self._inbox,
            self.rooms,
            self.requests,
            self.sends,
            self.senders,
            unverified,
            self.next_key,
        )
        self.ending: ClientError | None = None
        """Why this side is ending the client; None: it is not."""
        self.over = False
        """True: nothing arrives any more."""
        self._online = False
        self._body_bytes_max = limits.BODY_BYTES_MAX
        self._server_began_ms: int | None = None
        """The server's clock when the monotonic one was 0."""

    # --- connections -----------------------------------------------------------------------------
    def online(self, welcome: wire.Welcome, now: float) -> None:
        """Start on a new connection: joins from the cursors, open requests, then sends.

        Args:
            welcome: of this connection.
            now: monotonic seconds.
        """
        self._online = True
        self._server_began_ms = welcome.time_ms - int(now * 1000)
        self._receiver.refusal = None  # of an earlier connection
        self._body_bytes_max = min(welcome.body_bytes_max, limits.BODY_BYTES_MAX)
        # Joins first: WHO and HISTORY depend on them.
        self.requests.online(self.rooms.online())
        self.sends.online(welcome.sends_max)

    def server_time_ms(self, now: float) -> int | None:
        """Return the server's clock, in ms since 1970; None: it is not known yet.

        The clock of this machine may differ by years.

        Args:
            now: monotonic seconds.
        """
        began_ms = self._server_began_ms
        return None if began_ms is None else began_ms + int(now * 1000)

    @property
    def refusal(self) -> ClientError | None:
        """The last ERROR that belongs to no request: why the server ends the login, if it does."""
        return self._receiver.refusal

    def offline(self) -> None:
        """The connection has ended."""
        self._online = False
        self.rooms.offline()
        self.senders.offline()
        self._receiver.settled()
        self.sends.offline()
        self.requests.forget_own()
        self.requests.offline()
        for request in self.requests.done_by_loss():
            self.requests.answer(request.token, None)

    def end(self, error: ClientError) -> None:
        """End: everything that waits, and every later call, gets this error."""
        if self.ending is None:
            self.ending = error
        self.over = True
        self._online = False
        self.senders.offline()
        self._receiver.settled()
        self.sends.fail_all(error)
        for request in self.requests.drop_all():
            self.requests.answer(request.token, error)

    def outgoing(self, now: float) -> Iterator[bytes]:
        """Yield the packed envelopes that may be sent now."""
        if self.queue.full and (self.rooms.suspended or self.awaited or self.senders.holding):
            self.rooms.suspend()
        for envelope in self.requests.drain():
            yield packing.pack(envelope)
        for question in self.senders.requests(now):
            yield packing.pack(question)
        yield from self.sends.transmit()

    @property
    def awaited(self) -> bool:
        """True while an answer is awaited."""
        return self.sends.count > 0 or len(self.requests) > 0

    @property
    def paused(self) -> bool:
        """True while the application takes its events too slowly, and no answer is awaited."""
        return self.queue.full and not self.rooms.suspended

    def next_deadline(self) -> float | None:
        """Return when something must be sent again."""
        due = (self.sends.next_deadline(), self.requests.next_deadline(), self.senders.deadline)
        return min((at for at in due if at is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Resend what has waited long enough."""
        self.sends.handle_deadline(now)
        self.requests.handle_deadline(now)
        self.senders.overdue(now)
        self._receiver.settled()

    def hold_chain(self, packed: list[bytes], chains: list[Chain]) -> None:
        """Compare a requested device chain with what was seen of it before.

        Raises:
            DeviceChainError: it is this account's own, and differs.
        """
        self.senders.hold(packed, chains)
        self._receiver.settled()

    def answers(self) -> list[Outcome]:
        """Return the outcomes since the last call."""
        return [*self.requests.outcomes(), *self.sends.outcomes()]

    # --- the program -----------------------------------------------------------------------------
    def take(self, room: str | None = None) -> Event | None:
        """Return the next event, or None; it also moves the cursor of its room.

        ``room`` is one with a queue of its own; None: the queue of all others. This may make space
        for more: a client checks ``rooms.flush_due`` afterwards.
        """
        was_full = self.queue.full
        event = self.queue.take(room)
        if was_full and not self.queue.full:
            self.rooms.resume()
        return event

    def has_event(self, room: str | None = None) -> bool:
        """True if ``take`` has something, or nothing will ever arrive again."""
        left = room is not None and room not in self.rooms.subscriptions
        return self.queue.has(room) or self.over or left

    def log_name(self, room: str) -> str:
        """Return the canonical name of a room, or of an inbox. Raises NameInvalid, TypeError."""
        name = arguments.room_name(room)
        return self._inbox if name == arguments.ME else name

    def send(self, offer: Offer, token: object) -> None:
        """Queue a message; its outcome is returned by ``answers``. The caller has checked
        ``has_space``.

        Raises:
            NameInvalid: not the name of a room.
            MessageTooLong: the body or the content type.
            ClientError: the client has ended.
        """
        self._check_open()
        meant = self.meant(offer)
        arguments.message(meant.content_type, meant.body, self._body_bytes_max)
        self.sends.add(meant, token)

    def meant(self, offer: Offer) -> Offer:
        """Return a message with the room that the program means now, unless it names one.

        Raises:
            NameInvalid: not the name of a room.
        """
        log = self.log_name(offer.log)
        identity = offer.identity or self.rooms.subscriptions.identity(log)
        return offer._replace(log=log, identity=identity)

    def join(
        self, room: str, cursor: Cursor | None, last: int, token: object, *, own_queue: bool = False
    ) -> None:
        """Follow a room, after a cursor or with its last entries.

        With ``own_queue`` its events are returned by ``take(room)``, not by ``take()``.

        Raises:
            NameInvalid: not the name of a room.
            AlreadyJoined: the room is followed.
            ClientError: the client has ended.
        """
        self._check_open()
        room = self.log_name(room)
        if room in self.rooms.subscriptions:
            raise refused(ErrorCode.ALREADY_JOINED)
        assert 0 <= last <= limits.HISTORY_ON_JOIN_MAX
        subscription = self.rooms.subscriptions.add(room, Start(cursor, last))
        if own_queue:
            self.queue.separate(room)
        self.requests.ask(Request(room, subscription.join, token))
        log.debug("joining %s", room)

    def ask_account(
        self, name: str, request: AccountRequest, token: object, read: Read = bytes
    ) -> None:
        """Make a request about an account. ``name``: empty for this client's own account.

        ``read`` decodes the content of the answer; an exception ends the client.
        """
        self._check_open()
        content = account_requests.pack(request)
        self.requests.ask(
            Request("", lambda number: wire.Account(number, name, content), token, read=read)
        )

    def ask_room(
        self, room: str, request: RoomRequest, seen: int, token: object, read: Read = bytes
    ) -> None:
        """Make a request about a room, or change it: the one that the program has joined.

        ``seen``: see ``chat.rooms.requests``.

        ``read``: see ``ask_account``.
        """
        self._check_open()
        content = room_requests.pack(request, seen)
        subscriptions = self.rooms.subscriptions
        enters = isinstance(request, room_requests.Enter)
        whichever = isinstance(request, _OF_WHICHEVER) or (enters and room not in subscriptions)
        identity = b"" if whichever else subscriptions.identity(room)

        def answered(answer: bytes) -> object:
            subscriptions.means(room, shown.unpack_identity(answer))
            return answer

        def envelope(number: int) -> wire.Room:
            return wire.Room(number, room, content, identity)

        if enters or isinstance(request, room_requests.Create):
            read = answered
        self.requests.ask(Request("", envelope, token, read=read))

    def ask_devices(self, name: str, first: int, token: object) -> None:
        """Request links of an account's chain; the answer is (links, whether it is the end)."""
        self._check_open()
        self.requests.ask(Request("", lambda number: wire.Devices(number, name, first), token))

    def cancel_join(self, room: str, token: object) -> None:
        """Cancel a join: the room is not followed, whatever the answer."""
        room = self.log_name(room)
        if self.ending is not None or self.rooms.subscriptions.remove(room) is None:
            return
        self.rooms.forget(room)
        self.requests.drop(token)
        if self._online:  # it may be on its way, or be answered already
            self.rooms.ask_leave(room)

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
        subscription = self.rooms.subscriptions.remove(room)
        self.rooms.subscriptions.forget(room)
        cursor = self.rooms.forget(room)
        if subscription is None:
            raise refused(ErrorCode.NOT_A_MEMBER)
        log.debug("leaving %s", room)
        if self._online:
            self.requests.ask(Request(room, lambda number: wire.Leave(number, room), token, True))
        else:
            self.requests.answer(token, None)
        return cursor

    def who(self, room: str, token: object) -> None:
        """Request the members of a followed room."""
        self._check_open()
        room = self.log_name(room)
        self._ask_member(room, lambda number: wire.Who(number, room), token)

    def history(self, room: str, forward: bool, seq: int, count: int, token: object) -> None:
        """Request a page of a followed room; for ``@name``, of the account's own inbox."""
        self._check_open()
        room = self.log_name(room)
        assert 0 <= seq <= limits.U63_MAX
        assert 1 <= count <= limits.PAGE_ENTRIES_MAX
        joined = self._inbox if room.startswith("@") else room
        self._ask_member(joined, lambda n: wire.History(n, room, forward, seq, count), token)

    def search(self, room: str, text: str, before: int, count: int, token: object) -> None:
        """Search a followed room; for ``@name``, the account's own inbox."""
        self._check_open()
        room = self.log_name(room)
        joined = self._inbox if room.startswith("@") else room
        self._ask_member(joined, lambda n: wire.Search(n, room, text, before, count), token)

    def _check_open(self) -> None:
        if self.ending is not None:
            raise self.ending
        assert not self.over

    def _ask_member(
        self, room: str, envelope: Callable[[int], wire.ClientEnvelope], token: object
    ) -> None:
        """Make a request that requires membership."""
        subscription = self.rooms.subscriptions.get(room)
        if self.rooms.suspended and subscription is not None and not subscription.joined:
            self.rooms.ask_join(subscription)
        self.requests.ask(Request(room, envelope, token))

    # --- the server ------------------------------------------------------------------------------
    def receive(self, envelopes: list[wire.ServerEnvelope], now: float) -> None:
        """Handle the envelopes of one record.

        Raises:
            EnvelopeError: the content of an answer is illegal, or it does not fit its request.
        """
        self._receiver.receive(envelopes, now)
