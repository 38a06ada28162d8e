"""relay.client.chat_state: rooms and requests, over the real wire protocol and a scripted
server.
"""

from __future__ import annotations

import pytest

from relay.chat.accounts.chain import Pin
from relay.chat.entries import NO_EPOCH, Cursor, GapReason
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms import shown
from relay.client import event_queue
from relay.client.devices.device_queries import NUMBER
from relay.client.errors import MessageTooLong
from relay.client.events import (
    Behind,
    DeviceWarning,
    Event,
    Gap,
    HistoryPage,
    Invited,
    Joined,
    Live,
    Member,
    Members,
    Message,
    Postponed,
    RosterChanged,
    State,
    StateChanged,
    Stored,
    Unfollowed,
)
from relay.client.pending_sends import Offer
from relay.client.refusals import REFUSALS, AlreadyJoined, NameInvalid, NotAMember
from relay.wire import envelopes as wire
from relay.wire import packing
from relay.wire.codes import ErrorCode
from tests.client.peer import Link

EPOCH = b"e" * 8


def entry(seq: int, prev: int | None = None, body: bytes = b"") -> wire.EntryMessage:
    """An ENTRY of room."""
    return wire.EntryMessage(
        "room", EPOCH, seq, seq - 1 if prev is None else prev, 0, "bob", b"", b"p" * 8, 1, 0, "",
        body,
    )  # fmt: skip


def joined(last: int = 0, head: int = 10, options: dict[str, object] | None = None) -> Link:
    """A client that has joined room, with its first events taken."""
    link = Link(**(options or {}))
    link.log_in()
    link.state.chat.join("room", None, last, "join")
    link.run()
    join = link.heard(wire.Join)
    assert join == wire.Join(join.request, "room", None, 0, last)
    link.send_envelopes(wire.Joined(join.request, "room", EPOCH, head - last, EPOCH, head))
    assert link.results() == {
        "join": Joined("room", Cursor(EPOCH, head - last), Cursor(EPOCH, head))
    }
    link.taken()
    return link


def joined_with(identity: bytes) -> Link:
    """A client that has joined the room with this identity."""
    link = Link()
    link.log_in()
    link.state.chat.join("room", None, 0, "join")
    link.run()
    join = link.heard(wire.Join)
    link.send_envelopes(wire.Joined(join.request, "room", EPOCH, 10, EPOCH, 10, identity))
    link.taken()
    return link


def seqs(events: list[Event]) -> list[int]:
    """Return the sequence numbers of entries among events."""
    return [event.seq for event in events if isinstance(event, Message)]


def rejoin(link: Link) -> wire.Join:
    """Take the JOIN that the client sent by itself; answer it."""
    join = link.heard(wire.Join)
    link.send_envelopes(wire.Joined(join.request, "room", EPOCH, join.seq, EPOCH, 99))
    return join


def test_entries_and_where_they_end() -> None:
    """History, LIVE, what comes then; the cursor is that of the last taken entry."""
    link = joined(last=2)
    link.send_envelopes(entry(9), entry(10), wire.Live("room", EPOCH, 10), entry(11))
    assert link.cursors == {"room": Cursor(EPOCH, 8)}
    first = link.state.chat.take()
    assert isinstance(first, Message)
    assert first.cursor == link.cursors["room"] == Cursor(EPOCH, 9)
    assert link.taken() == [Message(*entry(10)), Live("room", 10), Message(*entry(11))]


def test_a_lost_connection_goes_on_from_what_was_received() -> None:
    """Not from the taken one: messages that are still queued are neither lost nor duplicated."""
    link = joined()
    link.send_envelopes(entry(11), entry(12))
    link.lose()
    link.log_in()
    assert rejoin(link) == wire.Join(2, "room", EPOCH, 12, 0)
    link.send_envelopes(entry(13), wire.Live("room", EPOCH, 13))
    assert seqs(link.taken()) == [11, 12, 13]
    assert link.state.chat.rooms.subscriptions.repeats == 0


def test_a_client_that_had_received_nothing_resumes_too() -> None:
    """From where its join began."""
    link = joined()
    link.lose()
    link.log_in()
    assert rejoin(link)[2:] == (EPOCH, 10, 0, b"")


def test_a_join_without_an_answer_is_asked_again() -> None:
    """With the same arguments and number, unnoticed by the caller."""
    link = Link()
    link.log_in()
    link.state.chat.join("room", None, 5, "join")
    link.run()
    first = link.heard(wire.Join)
    link.lose()
    link.log_in()
    assert link.heard(wire.Join) == first
    link.send_envelopes(wire.Joined(first.request, "room", NO_EPOCH, 0, NO_EPOCH, 0))
    assert "join" in link.results()


def test_a_hole_is_repaired_not_skipped() -> None:
    """Leave, join from the cursor; what is under way meanwhile does not count."""
    link = joined()
    link.send_envelopes(entry(11), entry(13, 12), entry(14))
    leave, join = link.heard(wire.Leave), link.heard(wire.Join)
    assert join[1:] == ("room", EPOCH, 11, 0, b"")
    link.send_envelopes(entry(15), wire.Left(leave.request, "room"))
    link.send_envelopes(wire.Joined(join.request, "room", EPOCH, 11, EPOCH, 15))
    link.send_envelopes(*map(entry, (12, 13, 14, 15)), wire.Live("room", EPOCH, 15))
    assert seqs(link.taken()) == [11, 12, 13, 14, 15]


def test_a_server_that_keeps_a_hole_loses_the_connection() -> None:
    """The repair is tried a few times, not for ever in a hot loop."""
    link = joined()
    for _ in range(3):
        link.send_envelopes(entry(13, 12))
        link.all_heard(wire.Leave)
        rejoin(link)
    assert link.condition() is State.ONLINE
    link.send_envelopes(entry(13, 12))
    assert link.condition() is State.WAITING
    assert "missing" in str(link.state.last_problem)
    assert seqs(link.taken()) == []


def test_gap_behind_and_roster_are_events() -> None:
    """A reason of a later version is given as its number."""
    link = joined()
    link.send_envelopes(
        wire.Behind("room", EPOCH, 10),
        wire.Gap("room", EPOCH, 10, b"f" * 8, 20, 3),
        wire.Gap("room", b"f" * 8, 20, b"f" * 8, 30, 77),
        wire.Roster("room", 5, 6, 2, [["bob", "Bob"]], ["carol"]),
    )
    assert link.taken() == [
        Behind("room", 10),
        Gap("room", Cursor(EPOCH, 10), Cursor(b"f" * 8, 20), GapReason.RETENTION),
        Gap("room", Cursor(b"f" * 8, 20), Cursor(b"f" * 8, 30), 77),
        RosterChanged("room", 2, (Member("bob", "Bob"),), ("carol",), 5, 6),
    ]
    assert link.cursors == {"room": Cursor(b"f" * 8, 30)}


def test_leave_and_join_again() -> None:
    """No entry of the first membership is delivered in the second; the cursor continues."""
    link = joined()
    link.send_envelopes(entry(11), entry(12))
    link.state.chat.take()
    cursor = link.state.chat.leave("Room", "leave")
    assert cursor == Cursor(EPOCH, 11)
    link.state.chat.join("room", cursor, 0, "again")
    link.run()
    leave, join = link.heard(wire.Leave), link.heard(wire.Join)
    link.send_envelopes(entry(13), wire.Left(leave.request, "room"))
    link.send_envelopes(
        wire.Joined(join.request, "room", EPOCH, 11, EPOCH, 13), *map(entry, (12, 13))
    )
    assert seqs(link.taken()) == [12, 13]
    assert set(link.results()) == {"leave", "again"}


def test_leave_while_offline() -> None:
    """It is done at once, and the log is not joined again."""
    link = joined()
    link.lose()
    link.state.chat.leave("room", "leave")
    assert link.results() == {"leave": None}
    link.log_in()
    assert link.all_heard(wire.Join) == []
    assert link.cursors == {}


def test_requests_are_asked_again_behind_the_joins() -> None:
    """WHO requires the membership."""
    link = joined()
    link.state.chat.who("room", "who")
    link.state.chat.history("room", False, 0, 10, "history")
    link.run()
    link.lose()
    link.log_in()
    assert [type(e) for e in link.received] == [wire.Join, wire.Who, wire.History]
    who, history = link.heard(wire.Who), link.heard(wire.History)
    link.send_envelopes(wire.Members(who.request, "room", 1, 2, 1, [["bob", "Bob", 3]]))
    rows = [packing.pack(entry(9)), packing.pack(entry(10))]
    link.send_raw(packing.pack_page(history.request, "room", 9, True, rows))
    assert link.results() == {
        "who": Members("room", 1, (Member("bob", "Bob", 3),), 1, 2),
        "history": HistoryPage((Message(*entry(9)), Message(*entry(10))), 9, True),
    }


def test_a_request_that_is_unavailable_now_is_asked_again() -> None:
    """After the time that the server gave."""
    link = Link()
    link.log_in()
    link.state.chat.join("room", None, 0, "join")
    link.run()
    join = link.heard(wire.Join)
    link.send_envelopes(wire.Error(join.request, int(ErrorCode.UNAVAILABLE), 500, ""))
    assert link.results() == {}
    link.pass_time(0.4)
    assert link.received == []
    link.pass_time(0.2)
    assert link.heard(wire.Join) == join


retried = pytest.mark.parametrize(
    ("code", "options", "arg_ms", "asked"),
    [
        (ErrorCode.UNAVAILABLE, {}, 4000, 3),
        (ErrorCode.UNAVAILABLE, {}, 60_000, 1),
        (ErrorCode.UNAVAILABLE, {"retry_timeout_s": 1}, 4000, 3),
        (ErrorCode.UNAVAILABLE, {"retry_timeout_s": 30}, 10_000, 4),
        (ErrorCode.BUSY, {}, 60_000, 3),
        (ErrorCode.BUSY, {"retry_timeout_s": 1}, 50_000, 3),
        (ErrorCode.BUSY, {"retry_timeout_s": 200}, 50_000, 5),
    ],
)
"""How often a request is repeated that is always refused so."""


@retried
def test_a_request_that_is_never_answered_is_over(
    code: ErrorCode, options: dict[str, object], arg_ms: int, asked: int
) -> None:
    """As soon as the wait would exceed the time for its code, or the given timeout."""
    link = Link(**options)
    link.log_in()
    link.state.chat.join("room", None, 0, "join")
    link.run()
    for time in range(asked):
        if time:
            link.pass_time(arg_ms / 1000)
        assert link.results() == {}
        link.send_envelopes(wire.Error(link.heard(wire.Join).request, int(code), arg_ms, "later"))
    assert isinstance(link.results()["join"], REFUSALS[code])


def test_a_store_that_cannot_be_written_is_told_once() -> None:
    """Not at each try; again if it had recovered meanwhile."""
    link = Link()
    link.log_in()
    link.taken()
    link.state.chat.send(Offer("room", "text/plain", b"x"), "first")
    link.run()
    for _ in range(3):
        counter = link.heard(wire.Send).counter
        link.send_envelopes(
            wire.Refused("room", counter, int(ErrorCode.UNAVAILABLE), 500, "disk full")
        )
        link.pass_time(2.0)
    assert link.taken() == [Postponed("room", "disk full")]
    counter = link.heard(wire.Send).counter
    link.send_envelopes(wire.Ack("room", counter, EPOCH, 1))
    link.state.chat.send(Offer("room", "text/plain", b"y"), "second")
    link.run()
    counter = link.heard(wire.Send).counter
    link.send_envelopes(wire.Refused("room", counter, int(ErrorCode.UNAVAILABLE), 500, ""))
    assert link.taken() == [Postponed("room", "")]


def test_a_refused_join_is_an_error_and_can_be_tried_again() -> None:
    """No state is left."""
    link = Link()
    link.log_in()
    link.state.chat.join("root", None, 0, "join")
    link.run()
    link.send_envelopes(
        wire.Error(link.heard(wire.Join).request, int(ErrorCode.NAME_INVALID), 0, "")
    )
    assert isinstance(link.results()["join"], NameInvalid)
    link.state.chat.join("root", None, 0, "again")
    assert link.cursors == {}


def test_a_log_that_is_refused_after_a_reconnect() -> None:
    """It is an event: no call waits for an answer."""
    link = joined()
    link.lose()
    link.log_in()
    link.taken()
    link.send_envelopes(wire.Error(link.heard(wire.Join).request, int(ErrorCode.LIMIT), 3, ""))
    (event,) = link.taken()
    assert isinstance(event, Unfollowed)
    assert (event.room, "LIMIT" in event.detail) == ("room", True)


def test_what_a_program_sends_is_for_the_room_that_it_has_joined() -> None:
    """Also what it sends while it is away, or after the server has put it out; until it leaves."""
    link = joined_with(b"identity")
    link.state.chat.send(Offer("Room", "", b"1"), 1)
    link.run()
    assert link.heard(wire.Send).identity == b"identity"
    link.lose()
    link.state.chat.send(Offer("room", "", b"2"), 2)
    link.log_in()
    assert link.heard(wire.Join).identity == b"identity"
    assert {sent.identity for sent in link.all_heard(wire.Send)} == {b"identity"}
    link.send_envelopes(wire.Removed("room", int(ErrorCode.NO_SUCH_ROOM), "deleted"))
    link.state.chat.send(Offer("room", "", b"3"), 3)
    link.run()
    assert link.heard(wire.Send).identity == b"identity"
    link.state.chat.send(Offer("another", "", b"4"), 4)
    link.run()
    assert link.heard(wire.Send).identity == b""
    link.state.chat.join("room", None, 0, "again")
    link.state.chat.send(Offer("room", "", b"5"), 5)
    link.run()
    join = link.heard(wire.Join)
    assert join.identity == b""
    assert link.heard(wire.Send).identity == b"identity", "the new one is not joined yet"
    link.send_envelopes(wire.Joined(join.request, "room", EPOCH, 20, EPOCH, 20, b"next one"))
    link.state.chat.send(Offer("room", "", b"6"), 6)
    link.run()
    assert link.heard(wire.Send).identity == b"next one"


@pytest.mark.parametrize("how", ["refused", "cancelled", "cancelled late"])
def test_a_join_that_fails_does_not_change_what_a_program_means(how: str) -> None:
    """Otherwise what it sends after that would reach a room that it has never been in."""
    link = joined_with(b"identity")
    link.send_envelopes(wire.Removed("room", int(ErrorCode.NO_SUCH_ROOM), "deleted"))
    link.state.chat.join("room", None, 0, "again")
    link.run()
    join = link.heard(wire.Join)
    if how == "refused":
        link.send_envelopes(wire.Error(join.request, int(ErrorCode.NO_SUCH_ROOM), 0, ""))
    else:
        if how == "cancelled late":
            link.send_envelopes(wire.Joined(join.request, "room", EPOCH, 10, EPOCH, 10, b"other"))
        link.state.chat.cancel_join("room", "again")
    link.state.chat.send(Offer("room", "", b"1"), 1)
    link.run()
    late = how == "cancelled late"  # which a program cannot tell from cancelled in time
    assert link.heard(wire.Send).identity == (b"other" if late else b"identity")


@pytest.mark.parametrize("request_", [room_requests.Create(), room_requests.Enter()])
def test_a_room_whose_creation_arrives_before_the_answer(request_: room_requests.Request) -> None:
    """The connection is lost, and the first entry comes with the join; or it is so already."""
    link = joined_with(b"")
    link.state.chat.ask_room("room", request_, 0, "create")
    link.run()
    link.lose()
    link.log_in()
    join, asked = link.heard(wire.Join), link.heard(wire.Room)
    link.send_envelopes(
        wire.Joined(join.request, "room", EPOCH, 10, EPOCH, 11, EPOCH),
        wire.Done(asked.request, shown.pack_identity(EPOCH)),
    )
    link.state.chat.send(Offer("room", "", b"1"), 1)
    link.run()
    assert link.heard(wire.Send).identity == EPOCH


@pytest.mark.parametrize(
    ("before", "now", "another"),
    [(b"one", b"one", False), (b"one", b"two", True), (b"", b"two", False), (b"one", b"", False)],
)
def test_a_join_tells_whether_it_is_another_room(before: bytes, now: bytes, another: bool) -> None:
    """Than the one that the client was in: not if either is unknown."""
    link = joined_with(before)
    link.send_envelopes(wire.Removed("room", int(ErrorCode.KICKED_OUT), ""))
    link.state.chat.answers()
    link.state.chat.join("room", None, 0, "again")
    link.run()
    join = link.heard(wire.Join)
    link.send_envelopes(wire.Joined(join.request, "room", EPOCH, 20, EPOCH, 20, now))
    place = Cursor(EPOCH, 20)
    assert [one.result for one in link.state.chat.answers()] == [
        Joined("room", place, place, another)
    ]


def test_a_room_that_was_left_is_no_longer_meant() -> None:
    """Whichever has the name is, until it is joined."""
    link = joined_with(b"identity")
    link.state.chat.leave("room", "leave")
    link.state.chat.send(Offer("room", "", b"1"), 1)
    link.run()
    assert link.heard(wire.Send).identity == b""


def test_a_request_is_about_the_room_that_was_joined() -> None:
    """Not one to see or create whichever has the name; what it creates is meant after that."""
    link = joined_with(b"identity")
    chat = link.state.chat
    chat.ask_room("room", room_requests.Delete(""), 5, "delete")
    link.run()
    assert link.heard(wire.Room).identity == b"identity"
    link.send_envelopes(wire.Removed("room", int(ErrorCode.NO_SUCH_ROOM), "deleted"))
    create = room_requests.Create()
    chat.ask_room("room", create, 6, "create")
    link.run()
    asked = link.heard(wire.Room)
    assert asked.identity == b""
    chat.ask_room("room", room_requests.Ban("bob", 0, ""), 6, "early")
    link.run()
    assert link.heard(wire.Room).identity == b"identity"
    link.send_envelopes(wire.Done(asked.request, shown.pack_identity(b"next one")))
    chat.ask_room("room", room_requests.Ban("bob", 0, ""), 7, "ban")
    link.run()
    assert link.heard(wire.Room).identity == b"next one"


def test_a_room_that_is_created_again_before_the_end_of_the_one_before_arrives() -> None:
    """A worker answers requests, and distributes what follows from them later."""
    link = joined_with(b"identity")
    chat = link.state.chat
    created = shown.pack_identity(b"next one")
    for request, answer in ((room_requests.Delete(""), b""), (room_requests.Create(), created)):
        chat.ask_room("room", request, 5, request)
        link.run()
        link.send_envelopes(wire.Done(link.heard(wire.Room).request, answer))
    for counter in (1, 2):
        chat.send(Offer("room", "", b"for the new one"), counter)
        link.run()
        assert link.heard(wire.Send).identity == b"next one"
        link.send_envelopes(wire.Removed("room", int(ErrorCode.NO_SUCH_ROOM), "deleted"))


def test_an_invitation_comes_among_the_events_of_the_client() -> None:
    """Also in a room with a queue of its own, which it outlives; and a bounded number."""
    link = joined()
    link.state.chat.join("den", None, 0, "join", own_queue=True)
    link.run()
    link.send_envelopes(wire.Invited("den", "ann"))
    link.send_envelopes(
        wire.Error(link.heard(wire.Join).request, int(ErrorCode.MEMBERS_ONLY), 0, "")
    )
    assert link.taken() == [Invited("den", "ann")]
    for number in range(100):
        link.send_envelopes(wire.Invited(f"room-{number}", "ann"))
    assert link.taken() == [
        Invited(f"room-{n}", "ann") for n in range(100 - event_queue.STATES_MAX, 100)
    ]


def test_what_is_refused_before_anything_is_sent() -> None:
    """Names, lengths, ranges."""
    link = joined()
    state = link.state
    for name in ("", "a", "a b", "-x", "é", "x" * 33):
        with pytest.raises(NameInvalid):
            state.chat.send(Offer(name, "", b""), "t")
        with pytest.raises(NameInvalid):
            state.chat.join(name, None, 0, "t")
    with pytest.raises(AlreadyJoined):
        state.chat.join("ROOM", None, 0, "t")
    with pytest.raises(NotAMember):
        state.chat.leave("other", "t")
    with pytest.raises(MessageTooLong, match="32769"):
        state.chat.send(Offer("room", "", bytes(32_769)), "t")
    with pytest.raises(MessageTooLong):
        state.chat.send(Offer("room", "é" * 33, b""), "t")
    link.run()
    assert link.received == []


# --- an application that does not take its events ------------------------------------------------
def fill(link: Link, first: int) -> int:
    """Send entries until the client stops reading; return the next seq."""
    seq = first
    while not link.state.reading_paused:
        link.send_envelopes(*[entry(seq + n) for n in range(100)])
        seq += 100
    return seq


def test_reading_stops_and_goes_on() -> None:
    """At the bound, until half of it is taken; meanwhile silence is not counted."""
    link = joined()
    end = fill(link, 11)
    assert end - 11 <= event_queue.EVENTS_MAX + 100
    deadline = link.state.next_deadline()
    assert deadline is None
    taken = []
    while link.state.reading_paused:
        event = link.state.chat.take()
        assert isinstance(event, Message)
        taken.append(event.seq)
    assert link.state.chat.rooms.flush_due, "the pump is to read again"
    assert len(taken) >= event_queue.EVENTS_MAX // 2
    link.send_envelopes(entry(end))
    assert taken + seqs(link.taken()) == list(range(11, end + 1))


def test_an_answer_is_never_stuck_behind_entries() -> None:
    """A client that waits for an answer with a full queue leaves its logs, and joins them again
    later.
    """
    link = joined()
    end = fill(link, 11)
    link.state.chat.send(Offer("room", "", b"x"), "send")
    assert link.state.reading_paused
    link.run()
    assert not link.state.reading_paused
    leave = link.heard(wire.Leave)
    link.send_envelopes(*[entry(end + n) for n in range(100)], wire.Left(leave.request, "room"))
    link.send_envelopes(wire.Ack("room", 1, EPOCH, end + 100))
    assert link.results() == {"send": Stored(EPOCH, end + 100)}
    assert link.all_heard(wire.Join) == []
    taken = seqs(link.taken())
    join = rejoin(link)
    assert join.seq == taken[-1] == end - 1
    assert not link.state.chat.rooms.flush_due
    link.send_envelopes(*[entry(end + n) for n in range(100)])
    assert taken + seqs(link.taken()) == list(range(11, end + 100))


def test_a_full_queue_over_a_reconnect() -> None:
    """The logs are joined again only once there is space: memory stays bounded."""
    link = joined()
    end = fill(link, 11)
    link.lose()
    link.log_in()
    assert link.condition() is State.ONLINE
    assert link.all_heard(wire.Join) == []
    events = link.taken()
    assert rejoin(link).seq == end - 1
    assert seqs(events) == list(range(11, end))
    assert [e.state for e in events if isinstance(e, StateChanged)] == [
        State.WAITING,
        State.CONNECTING,
        State.ONLINE,
    ]


def test_who_while_stepped_aside() -> None:
    """It joins for the request, so that the answer is not "not a member"."""
    link = joined()
    fill(link, 11)
    link.state.chat.send(Offer("room", "", b"x"), "send")
    link.run()
    link.send_envelopes(wire.Left(link.heard(wire.Leave).request, "room"))
    link.state.chat.who("room", "who")
    link.run()
    assert [type(e) for e in link.received][-2:] == [wire.Join, wire.Who]


def test_no_second_join_while_one_is_unanswered() -> None:
    """It would be refused with ALREADY_JOINED, and the log would not be followed any more."""
    link = joined()
    fill(link, 11)
    link.state.chat.send(Offer("room", "", b"x"), "send")
    link.run()
    link.send_envelopes(wire.Left(link.heard(wire.Leave).request, "room"))
    link.state.chat.who("room", "who")
    link.run()
    link.taken()  # there is space again: the log is to be followed
    assert [type(envelope) for envelope in link.received].count(wire.Join) == 1


def test_leaving_makes_space_too() -> None:
    """The room that filled the queue is left: the others are followed again at once."""
    link = joined()
    link.state.chat.join("other", None, 0, "other")
    link.run()
    link.send_envelopes(wire.Joined(link.heard(wire.Join).request, "other", EPOCH, 5, EPOCH, 5))
    link.taken()
    fill(link, 11)
    link.state.chat.send(Offer("room", "", b"x"), "send")
    link.run()
    for leave in link.all_heard(wire.Leave):
        link.send_envelopes(wire.Left(leave.request, leave.log))
    link.state.chat.leave("room", "leave")
    link.run()
    join = link.heard(wire.Join)
    assert (join.log, join.seq) == ("other", 5)


def test_an_answer_is_read_when_no_room_is_joined() -> None:
    """The queue is full, and the only room is being joined again: there is none to leave."""
    link = joined()
    end = fill(link, 11)
    link.send_envelopes(entry(end + 1))  # one is missing
    assert not link.state.reading_paused
    rejoin_request = link.heard(wire.Join).request
    link.state.chat.send(Offer("room", "", b"x"), "send")
    link.run()
    assert not link.state.reading_paused
    link.send_envelopes(wire.Ack("room", 1, EPOCH, end))
    assert link.results() == {"send": Stored(EPOCH, end)}
    link.send_envelopes(wire.Joined(rejoin_request, "room", EPOCH, end - 1, EPOCH, end + 1))
    taken = seqs(link.taken())
    assert taken == list(range(11, end))
    assert rejoin(link).seq == end - 1


def test_a_room_joined_while_suspended_is_left_again() -> None:
    """Its answer came with the JOINED: no call waits, and its entries must not pile up."""
    link = joined()
    fill(link, 11)
    link.state.chat.send(Offer("room", "", b"x"), "send")
    link.run()
    link.send_envelopes(
        wire.Left(link.heard(wire.Leave).request, "room"), wire.Ack("room", 1, EPOCH, 20_000)
    )
    link.state.chat.who("room", "who")
    link.run()
    join, who = link.heard(wire.Join), link.heard(wire.Who)
    link.send_envelopes(
        wire.Joined(join.request, "room", EPOCH, join.seq, EPOCH, join.seq),
        wire.Members(who.request, "room", 1, 1, 1, []),
    )
    assert link.heard(wire.Leave).log == "room"
    assert not link.state.reading_paused


# --- whose devices wrote it ---------------------------------------------------------------------
def of_device(room: str, seq: int) -> wire.EntryMessage:
    """An ENTRY that bob wrote on a device that was not verified yet."""
    return entry(seq)._replace(log=room, key_id=bytes(16))


def warnings(link: Link) -> list[tuple[str, str]]:
    return [(one.room, one.name) for one in link.taken() if isinstance(one, DeviceWarning)]


@pytest.mark.parametrize(
    ("code", "arg_ms", "asked"),
    [(ErrorCode.UNAVAILABLE, 4000, 3), (ErrorCode.BUSY, 50_000, 3)],
)
def test_a_query_about_devices_is_given_up_whatever_time_a_program_has(
    code: ErrorCode, arg_ms: int, asked: int
) -> None:
    """The server answers Unavailable each time; if that lasts, there is a warning."""
    link = joined(options={"retry_timeout_s": 86_400.0})
    link.send_envelopes(of_device("room", 11))
    for time in range(asked):
        if time:
            link.pass_time(arg_ms / 1000)
        assert warnings(link) == []
        assert link.heard(wire.Devices) == wire.Devices(NUMBER, "bob", 0)
        link.send_envelopes(wire.Error(NUMBER, int(code), arg_ms, "later"))
    assert warnings(link) == [("room", "bob")]


def test_a_doubt_is_told_with_the_first_entry_in_each_room() -> None:
    """Not with the server's next message, which may never come."""
    link = joined()
    link.send_envelopes(of_device("room", 11))
    link.send_envelopes(wire.Error(NUMBER, ErrorCode.NOT_ALLOWED, 0, "no"))
    assert warnings(link) == [("room", "bob")]
    link.state.chat.join("other", None, 0, "join")
    link.run()
    request = link.heard(wire.Join).request
    link.send_envelopes(wire.Joined(request, "other", EPOCH, 10, EPOCH, 10))
    link.send_envelopes(of_device("other", 11))
    assert warnings(link) == [("other", "bob")]


def test_an_entry_is_looked_at_before_anybody_can_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application may be in another thread: it gets no entry before its check."""
    link, taken = joined(), []
    link.state.chat.senders.pins.known["bob"] = Pin(bytes(32), 0, bytes(32))
    put = event_queue.EventQueue.put

    def put_and_take(queue: event_queue.EventQueue, event: Event) -> None:
        put(queue, event)
        taken.append(queue.take())

    monkeypatch.setattr(event_queue.EventQueue, "put", put_and_take)
    link.send_envelopes(of_device("room", 11))
    assert taken == [None]
