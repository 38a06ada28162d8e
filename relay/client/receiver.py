"""Handles each envelope that the server sends after the login.

Entries and notifications become events in the queue, answers go to the requester, and missing
entries of a room are requested again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from relay.chat.rooms.events import RELAY
from relay.client import decoding
from relay.client.answer_check import check_entry
from relay.client.devices.device_queries import NUMBER as OWN_NUMBER
from relay.client.devices.senders import Senders
from relay.client.devices.unverified import Pair, UnverifiedSenders
from relay.client.errors import ClientError
from relay.client.events import HistoryPage, Invited, Postponed, SearchPage, Unfollowed
from relay.client.followed_rooms import FollowedRooms
from relay.client.refusals import describe_refusal, refused
from relay.client.requests import AGAIN, Request, Requests
from relay.client.sends import Sends
from relay.client.subscriptions import Step
from relay.client.trust.next_key import NextKeyProof
from relay.codec import Unknown
from relay.wire import envelopes as wire

log: Final = logging.getLogger(__name__)


class _HeldPage(NamedTuple):
    """An answer that waits for the verification of the authors of its entries."""

    token: object
    page: HistoryPage | SearchPage
    authors: list[Pair]
    """Those that are not verified; from its end on they are dropped."""


class Receiver:
    """Handles the envelopes that the server sends after the login."""

    def __init__(
        self,
        inbox: str,
        rooms: FollowedRooms,
        requests: Requests,
        sends: Sends,
        senders: Senders,
        unverified: UnverifiedSenders,
        next_key: NextKeyProof,
    ) -> None:
        self._inbox = inbox
        """Of this account."""
        self._rooms = rooms
        self._queue = rooms.queue
        self._subscriptions = rooms.subscriptions
        self._requests = requests
        self._sends = sends
        self._senders = senders
        self._unverified = unverified
        self._held: list[_HeldPage] = []
        """Answers that wait for the verification of the authors of their entries."""
        self._proof = next_key
        self.refusal: ClientError | None = None
        """The last ERROR that belongs to no request: why the server ends the login, if it does."""

    def receive(self, envelopes: list[wire.ServerEnvelope], now: float) -> None:
        """Handle the envelopes of one record.

        Raises:
            EnvelopeError: the content of an answer is illegal, or it does not fit its request.
        """
        for envelope in envelopes:
            kind = type(envelope)
            if self._queue.over:
                self._rooms.suspend()  # from now on entries of rooms are dropped
            if kind is wire.EntryMessage:
                entry = cast(wire.EntryMessage, envelope)
                step = self._subscriptions.entry(entry)
                if step is Step.DELIVER:
                    if entry.to:  # the check of the cursor has checked the numbers
                        check_entry(entry, self._inbox)
                    if (entry.sender, entry.key_id) not in self._senders.known:
                        self._look(entry, now)  # first: another thread may take the entry at once
                    self._queue.put(decoding.as_entry(entry))
                elif step is Step.REJOIN:
                    check_entry(entry, self._inbox)
                    self._rooms.rejoin(entry.log)
            elif kind is wire.Ack:
                self._sends.acknowledged(cast(wire.Ack, envelope), now)
            elif kind is wire.Refused:
                refusal = cast(wire.Refused, envelope)
                if self._sends.refused(refusal, now):
                    self._queue.put(Postponed(refusal.log, refusal.text))
            elif kind is wire.Error:
                self._error(cast(wire.Error, envelope), now)
            elif kind is wire.Chain:
                self._chain(cast(wire.Chain, envelope), now)
            elif kind is wire.Done:
                self._done(cast(wire.Done, envelope), now)
            elif kind is wire.Page or kind is wire.Found:
                self._page(cast("wire.Page | wire.Found", envelope), now)
            elif kind is not Unknown and kind is not wire.Welcome:  # "a client ignores one"
                self._HANDLERS[kind](self, envelope)
        if self._senders.warnings:
            self.settled()

    def _joined(self, joined: wire.Joined) -> None:
        request = self._requests.answered(joined)
        if request is None:
            return
        before = self._subscriptions.identity(request.room)
        result = decoding.as_joined(request.room, joined, before)
        subscription = self._subscriptions.get(request.room)
        if subscription is not None:
            if subscription.received is None:
                self._queue.follow(request.room, result.start)
            subscription.joined_at(result.start, joined.identity)
            log.debug("in %s, from %d of %d", request.room, result.start.seq, result.head.seq)
        self._requests.answer(request.token, result)

    def _chain(self, answer: wire.Chain, now: float) -> None:
        if answer.request == OWN_NUMBER:
            self._senders.received(answer, now)
            self.settled()
            return
        request = self._requests.answered(answer)
        if request is not None:
            self._requests.answer(request.token, (answer.links, answer.end))

    def _done(self, done: wire.Done, now: float) -> None:
        if done.request == OWN_NUMBER:
            self._senders.done(now)
            return
        request = self._requests.asked(done)
        if request is None:
            return
        answer = request.read(done.content)  # if that fails, the end of the client is the answer
        self._requests.forget(done.request)
        if request.envelope == self._proof.prove:
            proved, later = self._proof.answered(done.content), self._proof.take_later()
            if later:
                self._next_key(later)
            elif not proved:
                log.warning("the server announced another key, and did not prove that it is one")
            return
        self._requests.answer(request.token, answer)

    def _key_announced(self, announced: wire.NextKey) -> None:
        self._next_key(announced.spki_hash)

    def _next_key(self, spki_hash: bytes) -> None:
        """Request a proof for an announced key, unless it is known; one at a time."""
        asking = self._requests.asks(self._proof.prove)
        if self._proof.announced(spki_hash, asking=asking):
            self._requests.ask(Request("", self._proof.prove, None))

    def settled(self) -> None:
        """Senders may have been verified: add warnings, and return answers that waited for it."""
        warnings, self._senders.warnings = self._senders.warnings, []
        for warning in warnings:
            log.warning("%s: %s", warning.name, warning.detail)
            self._queue.put(warning)
        done = [page for page in self._held if not self._unverified.awaits(page.authors)]
        if done:
            self._held = [page for page in self._held if page.authors]
            for page in done:
                self._answer(page.token, page.page)

    def _look(self, entry: wire.EntryMessage, now: float) -> None:
        """Check the author of an entry, unless the server wrote it."""
        if entry.sender != RELAY or entry.kind != decoding.SYSTEM:
            self._senders.look(entry.log, entry.sender, entry.key_id, now)

    def _answer_page(self, token: object, page: HistoryPage | SearchPage) -> None:
        """Answer with a page whose entries are marked; later, if some must wait."""
        authors = self._unverified.awaited(page.entries)
        if authors:
            self._held.append(_HeldPage(token, page, authors))
        else:
            self._answer(token, page)

    def _answer(self, token: object, page: HistoryPage | SearchPage) -> None:
        if self._unverified.any:
            entries = tuple([self._unverified.marked(entry) for entry in page.entries])
            page = page._replace(entries=entries)  # type: ignore[arg-type]
        self._requests.answer(token, page)

    def _left(self, left: wire.Left) -> None:
        request = self._requests.answered(left)
        if request is not None:
            self._requests.answer(request.token, None)

    def _error(self, error: wire.Error, now: float) -> None:
        if error.request == OWN_NUMBER:
            if error.code in AGAIN and self._senders.retry(error, now):
                return
            text, for_now = describe_refusal(error.code, error.text), error.code in AGAIN
            self._senders.refused(text, now, for_now=for_now)
            self.settled()
            return
        if not error.request:
            self.refusal = refused(error.code, error.arg, error.text)
            return
        waits_anew, waiting = self._requests.waits_anew(error), self._requests.get(error.request)
        request = self._requests.refused(error, now)
        if request is None:
            if waits_anew and waiting is not None and self._subscriptions.get(waiting.room):
                self._queue.put(Postponed(waiting.room, error.text))
            return
        reason = refused(error.code, error.arg, error.text)
        log.debug("refused in %s: %s", request.room, reason)
        subscription = self._subscriptions.get(request.room)
        if subscription is not None and request.envelope == subscription.join:
            self._subscriptions.remove(request.room)
            if subscription.received is not None:
                self._queue.put(Unfollowed(request.room, str(reason)))
            else:
                self._queue.forget(request.room)
        if request.envelope == self._proof.prove and (later := self._proof.take_later()):
            self._next_key(later)
        self._requests.answer(request.token, reason)

    def _removed(self, removed: wire.Removed) -> None:
        """This client may no longer be in a room."""
        subscription = self._subscriptions.remove(removed.log)
        if subscription is None:
            return  # it has left meanwhile
        self._requests.forget_own(removed.log)
        detail = describe_refusal(removed.code, removed.text)
        log.debug("put out of %s: %s", removed.log, detail)
        self._queue.put(Unfollowed(removed.log, detail))

    def _invited(self, invited: wire.Invited) -> None:
        log.debug("invited to %s", invited.log)
        self._queue.put(Invited(invited.log, invited.by))

    def _roster(self, roster: wire.Roster) -> None:
        subscription = self._subscriptions.get(roster.log)
        if subscription is not None and subscription.joined:
            self._queue.put(decoding.as_roster(roster))

    def _members(self, members: wire.Members) -> None:
        request = self._requests.answered(members)
        if request is not None:
            self._requests.answer(request.token, decoding.as_members(request.room, members))

    def _page(self, page: wire.Page | wire.Found, now: float) -> None:
        if self._requests.asked(page) is None:
            return
        for entry in page.entries:  # if one is illegal, the end of the client is the answer
            check_entry(entry, self._inbox)
        request = self._requests.forget(page.request)
        assert request is not None
        for entry in page.entries:
            if (entry.sender, entry.key_id) not in self._senders.known:
                self._look(entry, now)
        if isinstance(page, wire.Page):
            self._answer_page(request.token, decoding.as_page(page))
        else:
            self._answer_page(request.token, decoding.as_search_page(page))

    def _placed(self, place: wire.Live | wire.Behind) -> None:
        step = self._subscriptions.place(place)
        if step is Step.DELIVER:
            self._queue.put(decoding.as_place(place))
        elif step is Step.REJOIN:
            self._rooms.rejoin(place.log)

    def _gap(self, gap: wire.Gap) -> None:
        step = self._subscriptions.gap(gap)
        if step is Step.DELIVER:
            log.debug("a gap in %s: %d to %d", gap.log, gap.from_seq, gap.to_seq)
            self._queue.put(decoding.as_gap(gap))
        elif step is Step.REJOIN:
            self._rooms.rejoin(gap.log)

    # Each takes the envelope type of its key; a dict's type cannot express that.
    _HANDLERS: Final[dict[type, Callable[[Any, Any], None]]] = {
        wire.Joined: _joined,
        wire.Left: _left,
        wire.Roster: _roster,
        wire.Members: _members,
        wire.Live: _placed,
        wire.Behind: _placed,
        wire.Gap: _gap,
        wire.NextKey: _key_announced,
        wire.Removed: _removed,
        wire.Invited: _invited,
    }
