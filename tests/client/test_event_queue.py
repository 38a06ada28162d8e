"""relay.client.event_queue."""

from __future__ import annotations

from relay.chat.entries import Cursor, GapReason
from relay.client.event_queue import (
    EVENTS_BYTES_MAX,
    EVENTS_MAX,
    STATES_MAX,
    WARNINGS_MAX,
    EventQueue,
)
from relay.client.events import (
    DeviceWarning,
    Event,
    Gap,
    Invited,
    Live,
    Message,
    RoomChanged,
    State,
    StateChanged,
    Unfollowed,
)

EPOCH = b"e" * 8


def message(seq: int, log: str = "room", body: bytes = b"") -> Message:
    """An entry."""
    return Message(log, EPOCH, seq, seq - 1, 0, "al", b"", b"p" * 8, seq, 0, "text/plain", body)


def test_the_cursor_moves_when_a_message_is_taken() -> None:
    """Not when it arrives (invariant "Falling behind"); a gap moves it too."""
    inbox = EventQueue()
    inbox.follow("room", Cursor(EPOCH, 0))
    inbox.put(message(1))
    inbox.put(Gap("room", Cursor(EPOCH, 1), Cursor(b"f" * 8, 9), GapReason.EPOCH))
    assert inbox.taken["room"] == Cursor(EPOCH, 0)
    assert inbox.take() == message(1)
    assert inbox.taken["room"] == Cursor(EPOCH, 1)
    inbox.take()
    assert inbox.taken["room"] == Cursor(b"f" * 8, 9)
    assert inbox.take() is None


def test_what_was_seen_of_a_room_ends_with_it() -> None:
    """A change requested from outside is not compared with what was seen inside."""
    inbox = EventQueue()
    inbox.follow("room", Cursor(EPOCH, 0))
    inbox.put(RoomChanged("room", EPOCH, 1, 0, 1, "ann", b"", "kick", "me"))
    inbox.put(Unfollowed("room", "out"))
    inbox.take()
    assert inbox.changes == {"room": 1}
    inbox.take()
    assert inbox.changes == {}


def test_full_by_number_until_half_is_taken() -> None:
    """So that reading does not stop and resume once per event."""
    inbox = EventQueue()
    for _ in range(EVENTS_MAX + 1):
        inbox.put(Live("room", 0))
    assert inbox.full
    while len(inbox) > EVENTS_MAX // 2:
        assert inbox.full
        inbox.take()
    assert not inbox.full


def test_full_by_bytes() -> None:
    """Few large messages fill it as well."""
    inbox = EventQueue()
    count = EVENTS_BYTES_MAX // 32_768
    for seq in range(1, count + 1):
        inbox.put(message(seq, body=bytes(32_768)))
    assert inbox.full
    while inbox.take():
        pass
    assert not inbox.full


def test_states_that_nobody_takes_do_not_pile_up() -> None:
    """A program that only sends never iterates. The newest are kept; messages are not affected."""
    inbox = EventQueue()
    inbox.put(message(1))
    for number in range(20_000):
        inbox.put(StateChanged(State.WAITING, str(number)))
    assert not inbox.full
    assert inbox.take() == message(1)
    details = []
    while (event := inbox.take()) is not None:
        assert isinstance(event, StateChanged)
        details.append(int(event.detail))
    assert details == list(range(20_000 - STATES_MAX, 20_000))


def warnings_in(inbox: EventQueue) -> list[Event]:
    found = []
    while (event := inbox.take()) is not None:
        found.append(event)
    return [event for event in found if isinstance(event, DeviceWarning)]


def test_nothing_that_comes_later_takes_a_warning_away() -> None:
    """A server that was detected may send anything later: invitations, more warnings."""
    inbox = EventQueue()
    first = DeviceWarning("room", "alice", "begun anew")
    inbox.follow("room", Cursor(EPOCH, 0))
    inbox.put(first)
    for number in range(2 * STATES_MAX):
        inbox.put(Invited(f"room-{number}", "mallory"))
        inbox.put(StateChanged(State.WAITING, str(number)))
        inbox.put(first)
    for number in range(2 * WARNINGS_MAX):
        inbox.put(DeviceWarning("room", f"person-{number}", "x"))
    inbox.forget("room")
    assert not inbox.full
    found = warnings_in(inbox)
    assert found[0] == first
    assert len(found) == len(set(found)) == WARNINGS_MAX
    inbox.put(first)
    assert warnings_in(inbox) == [first], "once it was taken, it may come again"


def test_a_warning_of_a_room_with_a_queue_of_its_own_outlives_it() -> None:
    """The user who removed us from the room may be the one that the warning is about."""
    inbox = EventQueue()
    inbox.separate("room")
    inbox.put(DeviceWarning("room", "alice", "begun anew"))
    inbox.put(message(1))
    inbox.forget("room")
    assert warnings_in(inbox) == [DeviceWarning("room", "alice", "begun anew")]


def test_unfollow_drops_what_was_not_taken() -> None:
    """Of that log alone; the returned cursor is where to resume."""
    inbox = EventQueue()
    inbox.follow("room", Cursor(EPOCH, 0))
    inbox.follow("other", Cursor(EPOCH, 0))
    for seq in (1, 2, 3):
        inbox.put(message(seq))
        inbox.put(message(seq, "other"))
    inbox.take()
    assert inbox.forget("room") == Cursor(EPOCH, 1)
    assert [inbox.take() for _ in range(3)] == [message(n, "other") for n in (1, 2, 3)]
    assert "room" not in inbox.taken
