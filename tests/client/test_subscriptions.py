"""relay.client.subscriptions."""

from __future__ import annotations

from relay import limits
from relay.chat.entries import NO_EPOCH, Cursor
from relay.chat.rooms import events
from relay.client.subscriptions import SYSTEM, Start, Step, Subscriptions
from relay.wire.envelopes import Behind, EntryMessage, Gap, Join, Live

E1, E2 = b"1" * 8, b"2" * 8


def entry(seq: int, prev: int, epoch: bytes = E1, log: str = "room") -> EntryMessage:
    """An ENTRY as the server sends it."""
    return EntryMessage(log, epoch, seq, prev, 0, "al", b"", b"p" * 8, 1, 0, "", b"")


def followed(cursor: Cursor = Cursor(E1, 10)) -> Subscriptions:  # noqa: B008  # a NamedTuple
    """A log that is joined at a cursor."""
    follows = Subscriptions()
    follows.add("room", Start(None, 5)).joined_at(cursor, b"")
    return follows


def received(follows: Subscriptions) -> Cursor:
    """Return the position in the log."""
    following = follows.get("room")
    assert following is not None
    assert following.received is not None
    return following.received


def test_entries_follow_prev_not_seq() -> None:
    """A log may have gaps in its numbers; an epoch may change at an entry."""
    follows = followed()
    assert follows.entry(entry(11, 10)) is Step.DELIVER
    assert follows.entry(entry(20, 11)) is Step.DELIVER
    assert follows.entry(entry(21, 20, E2)) is Step.DELIVER
    assert received(follows) == Cursor(E2, 21)


def test_a_repeat_is_dropped_and_counted() -> None:
    """Whatever its prev is."""
    follows = followed()
    assert follows.entry(entry(10, 9)) is Step.DROP
    assert follows.entry(entry(3, 0)) is Step.DROP
    assert follows.repeats == 2
    assert received(follows) == Cursor(E1, 10)


def test_a_hole_is_never_skipped() -> None:
    """By an entry, by LIVE, by BEHIND, by a GAP that begins too late."""
    follows = followed()
    assert follows.entry(entry(12, 11)) is Step.REJOIN
    assert follows.entry(entry(12, 9)) is Step.REJOIN
    assert follows.place(Live("room", E1, 12)) is Step.REJOIN
    assert follows.place(Live("room", E1, 9)) is Step.REJOIN
    assert follows.place(Behind("room", E1, 12)) is Step.REJOIN
    assert follows.gap(Gap("room", E1, 12, E2, 30, 1)) is Step.REJOIN
    assert received(follows) == Cursor(E1, 10)


def test_behind_may_repeat() -> None:
    """Entries that were sent before it come again, and are dropped."""
    follows = followed()
    assert follows.place(Behind("room", E1, 8)) is Step.DELIVER
    assert follows.entry(entry(9, 8)) is Step.DROP
    assert follows.entry(entry(11, 10)) is Step.DELIVER


def test_a_gap_moves_the_cursor_also_back() -> None:
    """Reason *ahead*: the log ends before the cursor."""
    follows = followed()
    assert follows.gap(Gap("room", E1, 10, E2, 4, 2)) is Step.DELIVER
    assert follows.entry(entry(5, 4, E2)) is Step.DELIVER


def test_nothing_counts_before_joined() -> None:
    """Entries that were under way before a LEFT, or of a log that is not joined."""
    follows = Subscriptions()
    assert follows.entry(entry(1, 0)) is Step.DROP
    follows.add("room", Start(None, 0))
    assert follows.entry(entry(1, 0)) is Step.DROP
    assert follows.place(Live("room", E1, 1)) is Step.DROP
    assert follows.gap(Gap("room", E1, 0, E1, 1, 3)) is Step.DROP


def test_a_rejoin_begins_at_the_received_cursor() -> None:
    """Also for one that has received nothing yet, in a log that does not exist yet."""
    follows = Subscriptions()
    following = follows.add("room", Start(None, 7))
    assert following.join(3) == Join(3, "room", None, 0, 7)
    following.joined_at(Cursor(NO_EPOCH, 0), b"")
    follows.offline()
    assert following.join(4) == Join(4, "room", NO_EPOCH, 0, 0)
    following.joined_at(Cursor(NO_EPOCH, 0), b"")
    assert follows.entry(entry(1, 0)) is Step.DELIVER
    assert following.join(5) == Join(5, "room", E1, 1, 0)


def test_live_tells_the_epoch() -> None:
    """A cursor without one adopts it, so that a later loss of the log is noticed."""
    follows = followed(Cursor(NO_EPOCH, 10))
    assert follows.place(Live("room", E1, 10)) is Step.DELIVER
    assert received(follows) == Cursor(E1, 10)


def test_a_program_means_the_room_that_it_has_joined() -> None:
    """Until it leaves it, joins again, or sees another begin there; also when it was put out."""
    follows = Subscriptions()
    assert follows.identity("room") == b""
    joined = follows.add("room", Start(None, 5))
    assert joined.join(1) == Join(1, "room", None, 0, 5)
    joined.joined_at(Cursor(E1, 10), E1)
    assert follows.identity("room") == E1
    assert follows.identity("other") == b""
    assert joined.join(2) == Join(2, "room", E1, 10, 0, E1)
    joined.joined_at(Cursor(E1, 10), E2)  # a server that has let it join another one
    assert follows.identity("room") == E1
    follows.remove("room")
    assert follows.identity("room") == E1
    again = follows.add("room", Start(Cursor(E1, 10), 5))
    assert again.join(3) == Join(3, "room", E1, 10, 0), "whichever room has the name"
    assert follows.identity("room") == E1, "until that one is joined"
    follows.remove("room")
    assert follows.identity("room") == E1, "the join has failed"
    assert follows.add("room", Start(None, 5)).join(4) == Join(4, "room", None, 0, 5)
    following = follows.get("room")
    assert following is not None
    following.joined_at(Cursor(E2, 12), E2)
    assert follows.identity("room") == E2
    follows.remove("room")
    follows.forget("room")
    assert follows.identity("room") == b""


def test_a_server_that_tells_no_identity() -> None:
    """Whichever room has the name is meant: not the one before."""
    follows = Subscriptions()
    follows.add("room", Start(None, 5)).joined_at(Cursor(E1, 10), E1)
    follows.remove("room")
    follows.add("room", Start(None, 5)).joined_at(Cursor(E2, 20), b"")
    assert follows.identity("room") == b""


def test_a_program_means_the_room_that_it_has_created_or_entered() -> None:
    """Also while it follows the one before, whose end has not arrived yet."""
    follows = Subscriptions()
    follows.means("room", E1)
    assert follows.identity("room") == E1
    following = follows.add("room", Start(None, 5))
    following.joined_at(Cursor(E1, 10), E1)
    follows.means("room", E2)
    assert follows.identity("room") == E2
    follows.remove("room")
    assert follows.identity("room") == E2


def test_a_room_that_begins_while_it_is_followed() -> None:
    """By its first message, or after the end of the one before, if the server lets it follow."""
    follows = Subscriptions()
    follows.add("room", Start(None, 5)).joined_at(Cursor(NO_EPOCH, 0), b"")
    assert follows.identity("room") == b""
    created = events.Created(events.Kind.PUBLIC, True, b"r" * 32)
    begun = entry(1, 0)._replace(
        kind=SYSTEM, content_type=events.CONTENT_TYPE, body=events.pack(created)
    )
    assert follows.entry(begun) is Step.DELIVER
    assert follows.entry(entry(2, 1)) is Step.DELIVER
    assert follows.identity("room") == E1
    another = begun._replace(epoch=E2, seq=3, prev=2)
    for not_one in (
        another._replace(kind=0),
        another._replace(content_type="text/plain", seq=4, prev=3),
        another._replace(body=b"\xc1", seq=5, prev=4),
    ):
        assert follows.entry(not_one) is Step.DELIVER
        assert follows.identity("room") == E1
    assert follows.entry(another._replace(seq=6, prev=5)) is Step.DELIVER
    assert follows.identity("room") == E2


def test_how_many_rooms_are_remembered_that_are_not_followed() -> None:
    """The last ones."""
    follows = Subscriptions()
    for number in range(limits.LOGS_PER_CONNECTION_MAX + 1):
        follows.add(f"room-{number}", Start(None, 0)).joined_at(Cursor(E1, 1), E1)
        follows.remove(f"room-{number}")
    assert follows.identity("room-0") == b""
    assert follows.identity("room-1") == E1
