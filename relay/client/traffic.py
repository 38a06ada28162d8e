"""What a client does while it is logged in: logs, requests, sends, and what they bring.

One ``Traffic`` lives as long as the client, across its connections: ``online`` begins it again on a
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
    Event,
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
from relay.client.follow import REJOINS_MAX, Following, Follows, Start, Step
from relay.client.inbox import Inbox
from relay.client.requests import Request, Requests
from relay.client.sends import Sends
from relay.codec import Unknown
from relay.wire import envelopes as wire
from relay.wire.codes import ErrorCode


class Answer(NamedTuple):
    """The end of something that was asked with a token: a result, or the error."""

    token: object
    result: object


class Traffic:
    """The logs, requests and sends of a client."""

    def __init__(self, sends: Sends) -> None:
        self.inbox = Inbox()
        self.follows = Follows()
        self.requests = Requests()
        self.sends = sends
        self.broken = ""
        """Why the connection must be given up; empty: it need not."""
        self._aside = False
        """True: logs are not followed just now, until the application has caught up. Only while the
        inbox is full."""
        self.flush_due = False
        """True when room in the inbox lets the client read on, or join again: nothing has come from
        the socket, so nothing else would make a face write or read. Reset by ``data_to_send``."""
        self.asides = 0
        """Times that logs were left because the inbox was full, for statistics."""
        self.rejoins = 0
        """Times that something was missing in a log, for statistics."""
        self._body_bytes_max = limits.BODY_BYTES_MAX
        self._answers: list[Answer] = []

    # --- connections -----------------------------------------------------------------------------
    def online(self, welcome: wire.Welcome) -> None:
        """Begin on a new connection: joins from the cursors, open requests, then sends."""
        self._body_bytes_max = min(welcome.body_bytes_max, limits.BODY_BYTES_MAX)
        self._aside = self.inbox.full
        # Joins first: WHO and HISTORY rest on them.
        self.requests.online([] if self._aside else list(map(_join_again, self.follows.known())))
        self.sends.online(welcome.sends_max)

    def offline(self) -> None:
        """The connection is gone."""
        self.broken = ""
        self._aside = False
        self.follows.offline()
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
        if self.inbox.full and (self._aside or self.awaited):
            self._step_aside()
        for envelope in self.requests.drain():
            yield wire.pack(envelope)
        yield from self.sends.transmit()

    @property
    def awaited(self) -> bool:
        """True while an answer is to come."""
        return self.sends.count > 0 or len(self.requests) > 0

    @property
    def held_up(self) -> bool:
        """True while the application takes its events too slowly, and no answer is awaited."""
        return self.inbox.full and not self._aside

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
    def _step_aside(self) -> None:
        """Leave the logs while the inbox is full, so that awaited answers can still be read.

        Without it a program that sends and does not take its events would wait for ever: the
        acknowledgement is behind entries that nobody takes. Also when no log is joined at this
        moment: the answer to a join is awaited then, and must be read. A log that is joined
        meanwhile (for a WHO) is left again, or its entries would come without a bound.
        """
        if not self._aside:
            self._aside = True
            self.asides += 1
        for following in self.follows.known():
            if following.joined:
                following.joined = following.live = False
                self._ask_leave(following)

    def take(self) -> Event | None:
        """Return the next event, or None."""
        was_full = self.inbox.full
        event = self.inbox.take()
        if was_full and not self.inbox.full:
            self._caught_up()
        return event

    def _caught_up(self) -> None:
        """The inbox has room again: read on, and follow the logs again."""
        self.flush_due = True
        if self._aside:
            self._aside = False
            for following in self.follows.known():
                if not following.joined:
                    self._ask_join(following)

    def _ask_leave(self, following: Following) -> None:
        log = following.log
        self.requests.forget_own(log)
        self.requests.ask(Request(log, lambda number: wire.Leave(number, log), None))

    def _ask_join(self, following: Following) -> None:
        if self.requests.asks(following.join):
            return  # a second one would be refused, and end the following
        self.requests.forget_own(following.log)
        self.requests.ask(_join_again(following))

    # --- the program -----------------------------------------------------------------------------
    def send(self, log: str, content_type: str, body: bytes, token: object) -> None:
        """Queue a message. Raises NameInvalid, MessageTooLong."""
        log = canonical(log)
        arguments.text("content_type", content_type)
        if len(body) > self._body_bytes_max:
            raise MessageTooLong(
                f"a message of {len(body)} bytes; at most {self._body_bytes_max} are allowed"
            )
        if len(content_type.encode()) > limits.CONTENT_TYPE_BYTES_MAX:
            raise MessageTooLong(f"a content type over {limits.CONTENT_TYPE_BYTES_MAX} bytes")
        self.sends.add(log, content_type, body, token)

    def join(self, log: str, cursor: Cursor | None, last: int, token: object) -> None:
        """Follow a log. Raises NameInvalid, AlreadyJoined."""
        log = canonical(log)
        if log in self.follows:
            raise refused(ErrorCode.ALREADY_JOINED)
        assert 0 <= last <= limits.HISTORY_ON_JOIN_MAX
        following = self.follows.add(log, Start(cursor, last))
        self.requests.ask(Request(log, following.join, token))

    def cancel_join(self, log: str, token: object, *, online: bool) -> None:
        """Undo a join that nobody waits for any more, whether its answer has come or not."""
        log = canonical(log)
        if self.follows.remove(log) is None:
            return
        self.inbox.unfollow(log)
        self.requests.forget_own(log)
        self.requests.drop(token)
        if online:  # the join may be on its way, or done
            self.requests.ask(Request(log, lambda number: wire.Leave(number, log), None))

    def leave(self, log: str, token: object, *, online: bool) -> Cursor | None:
        """Stop following. Raises NotAMember."""
        log = canonical(log)
        if self.follows.remove(log) is None:
            raise refused(ErrorCode.NOT_A_MEMBER)
        was_full = self.inbox.full
        cursor = self.inbox.unfollow(log)
        if was_full and not self.inbox.full:
            self._caught_up()
        self.requests.forget_own(log)
        if online:
            self.requests.ask(Request(log, lambda number: wire.Leave(number, log), token, True))
        else:
            self._answers.append(Answer(token, None))
        return cursor

    def who(self, log: str, token: object) -> None:
        """Ask for the members of a log."""
        log = canonical(log)
        self._ask_member(log, lambda number: wire.Who(number, log), token)

    def history(self, log: str, forward: bool, seq: int, count: int, token: object) -> None:
        """Ask for a page."""
        log = canonical(log)
        assert 0 <= seq <= limits.U63_MAX
        assert 1 <= count <= limits.PAGE_ENTRIES_MAX
        self._ask_member(log, lambda n: wire.History(n, log, forward, seq, count), token)

    def _ask_member(
        self, log: str, envelope: Callable[[int], wire.ClientEnvelope], token: object
    ) -> None:
        """Ask what only a member may ask."""
        following = self.follows.get(log)
        if self._aside and following is not None and not following.joined:
            self._ask_join(following)
        self.requests.ask(Request(log, envelope, token))

    # --- what the server says --------------------------------------------------------------------
    def receive(self, envelopes: list[wire.ServerEnvelope], now: float) -> None:
        """Take the envelopes of one record."""
        for envelope in envelopes:
            kind = type(envelope)
            if self.inbox.over:
                self._step_aside()  # nothing of a log is taken in any more
            if kind is wire.EntryMessage:
                entry = cast(wire.EntryMessage, envelope)
                step = self.follows.entry(entry)
                if step is Step.DELIVER:
                    self.inbox.put(_as_message(entry))
                elif step is Step.REJOIN:
                    self._rejoin(entry.log)
            elif kind is wire.Ack:
                self.sends.acknowledged(cast(wire.Ack, envelope), now)
            elif kind is wire.Refused:
                refusal = cast(wire.Refused, envelope)
                if self.sends.refused(refusal, now):
                    self.inbox.put(Postponed(refusal.log, refusal.text))
            elif kind is wire.Error:
                self._error(cast(wire.Error, envelope), now)
            elif kind is not Unknown and kind is not wire.Welcome:  # "a client ignores one"
                self._HANDLERS[kind](self, envelope)

    def _answer(self, request: Request, result: object) -> None:
        if request.token is not None:
            self._answers.append(Answer(request.token, result))

    def _rejoin(self, log: str) -> None:
        """Something is missing in a log: back to the cursor. Until JOINED nothing of it counts."""
        following = self.follows.get(log)
        assert following is not None
        following.joined = following.live = False
        following.rejoins += 1
        self.rejoins += 1
        if following.rejoins > REJOINS_MAX:
            self.broken = f"entries of {log} are missing, again and again"
            return
        self._ask_leave(following)
        self.requests.ask(_join_again(following))

    def _joined(self, joined: wire.Joined) -> None:
        request = self.requests.answered(joined.request)
        if request is None:
            return
        start = Cursor(joined.start_epoch, joined.start_seq)
        following = self.follows.get(request.log)
        if following is not None:
            if following.received is None:
                self.inbox.follow(request.log, start)
            following.joined_at(start)
        head = Cursor(joined.head_epoch, joined.head_seq)
        self._answer(request, Joined(request.log, start, head))

    def _left(self, left: wire.Left) -> None:
        request = self.requests.answered(left.request)
        if request is not None:
            self._answer(request, None)

    def _error(self, error: wire.Error, now: float) -> None:
        request = self.requests.refused(error, now)
        if request is None:
            return
        reason = refused(error.code, error.arg, error.text)
        following = self.follows.get(request.log)
        if following is not None and request.envelope == following.join:
            self.follows.remove(request.log)
            if following.received is not None:
                self.inbox.put(Unfollowed(request.log, str(reason)))
        self._answer(request, reason)

    def _roster(self, roster: wire.Roster) -> None:
        following = self.follows.get(roster.log)
        if following is not None and following.joined:
            joined = tuple(Member(name, display) for name, display in roster.joined)
            self.inbox.put(
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
            self._answer(request, Members(request.log, total, listed, incarnation, version))

    def _page(self, page: wire.Page) -> None:
        request = self.requests.answered(page.request)
        if request is not None:
            entries = tuple(map(_as_message, page.entries))
            self._answer(request, HistoryPage(entries, page.next, page.end))

    def _placed(self, place: wire.Live | wire.Behind) -> None:
        step = self.follows.place(place)
        if step is Step.DELIVER:
            kind = Live if type(place) is wire.Live else Behind
            self.inbox.put(kind(place.log, place.seq))
        elif step is Step.REJOIN:
            self._rejoin(place.log)

    def _gap(self, gap: wire.Gap) -> None:
        step = self.follows.gap(gap)
        if step is Step.DELIVER:
            start = Cursor(gap.from_epoch, gap.from_seq)
            end = Cursor(gap.to_epoch, gap.to_seq)
            reason = GapReason(gap.reason) if gap.reason in _GAP_REASONS else gap.reason
            self.inbox.put(Gap(gap.log, start, end, reason))
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


def canonical(log: str) -> str:
    """Return the canonical spelling of a log's name. Raises NameInvalid, TypeError."""
    if not isinstance(log, str):
        raise TypeError(f"the name of a room must be a str, not {type(log).__name__}")
    log = names.normal(log)
    if names.is_room(log) or names.is_inbox(log):
        return log
    raise refused(ErrorCode.NAME_INVALID, 0, "2 to 32 characters of a-z, 0-9, _ and -")


def _join_again(following: Following) -> Request:
    return Request(following.log, following.join, None)


def _as_message(entry: wire.EntryMessage) -> Message:
    # The same fields in the same place: one call in C, no Python constructor per message.
    return tuple.__new__(Message, entry)


_GAP_REASONS: Final = frozenset(int(reason) for reason in GapReason)
