"""Lists of rooms of one connection: where each continues, and what each reports at its end."""

from __future__ import annotations

from relay.server.worker.connection.listings import LISTING_S, NOTES_MAX, Listings


def test_a_list_knows_to_its_end_that_a_room_was_damaged() -> None:
    """However many pages there are, and however long they take; other lists are not affected."""
    notes, now, after = Listings(), 0.0, ""
    assert notes.take(3, after, now) == ("", False)
    notes.put_damaged(3, now)
    for page in range(3 * NOTES_MAX):
        after, now = f"room{page:03}", now + LISTING_S / 2
        assert notes.take(3, after, now) == (after, True)
    assert notes.take(4, after, now) == (after, False), "another partition"
    assert notes.take(3, "", now) == ("", False), "a new list checks for itself"
    for number in range(NOTES_MAX):
        notes.put(5, f"hall{number}", "hidden", now)
    for number in range(NOTES_MAX):
        assert notes.take(5, f"hall{number}", now) == ("hidden", False)
    assert notes.take(3, after, now + LISTING_S) == (after, False), "long ago"


def test_a_list_that_was_interrupted_at_its_beginning_has_not_begun_again() -> None:
    notes = Listings()
    notes.put_damaged(3, 0.0)
    notes.put(3, "", "hidden", 0.0)
    assert notes.take(3, "", 1.0) == ("hidden", True)
    assert notes.take(3, "", 2.0) == ("", False), "this one begins"
