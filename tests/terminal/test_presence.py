"""What a chat shows of users who come and go: changes that last, also after a change of the home,
and by name as many as a person can read.
"""

from __future__ import annotations

from relay import limits
from relay.client.events import Member, Members, RosterChanged
from relay.terminal.presence import (
    AWAY_S,
    BACK_S,
    COUNTED_S,
    NAMED_MAX,
    NAMED_PER_S,
    Allowance,
    Presence,
)


def roster(
    version: int, joined: str = "", left: str = "", incarnation: int = 1, total: int = 9
) -> RosterChanged:
    came = tuple(Member(name, "") for name in joined.split())
    return RosterChanged("lobby", total, came, tuple(left.split()), incarnation, version)


def members(names: str, version: int = 1, incarnation: int = 1, more: int = 0) -> Members:
    listed = tuple(Member(name, "") for name in names.split())
    return Members("lobby", len(listed) + more, listed, incarnation, version)


class Watched:
    """A presence, and a clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.presence = Presence()
        self.now = 0.0

    def news(self, event: RosterChanged) -> str:
        return _names(self.presence.news(event, self.now))

    def asked(self, members: Members) -> str:
        return _names(self.presence.asked(members, self.now))

    def gone(self, after_s: float) -> str:
        self.now += after_s
        return " ".join(self.presence.gone(self.now))


def _names(event: RosterChanged) -> str:
    assert event.left == ()
    return " ".join(one.name for one in event.joined)


def test_what_is_known_is_no_news() -> None:
    here = Watched()
    assert here.presence.stale
    assert here.news(roster(1, "ann bob")) == "", "the answer names all"
    assert here.asked(members("ann bob")) == ""
    assert not here.presence.stale
    assert here.news(roster(2, "ann carol", "dora")) == "carol"
    assert here.news(roster(3, "", "carol")) == ""
    assert here.presence.due_at == AWAY_S
    assert here.gone(AWAY_S - 0.1) == ""
    assert here.gone(0.1) == "carol"
    assert here.gone(100.0) == ""
    assert here.news(roster(4, "carol")) == "carol"


def test_whoever_is_back_soon_has_not_left() -> None:
    """Neither the departure nor the arrival is reported, however often."""
    here = Watched()
    here.asked(members("ann bob"))
    for version in range(2, 20, 2):
        here.news(roster(version, "", "bob"))
        assert here.gone(AWAY_S - 0.1) == ""
        assert here.news(roster(version + 1, "bob")) == ""
    assert here.gone(100.0) == ""


def test_another_roster_is_compared() -> None:
    """Users who stayed are not shown again; those who came and went meanwhile are."""
    here = Watched()
    here.asked(members("ann bob carol"))
    assert here.news(roster(1, incarnation=2)) == ""
    assert here.presence.stale
    assert here.asked(members("ann carol dora", incarnation=2)) == "dora"
    assert here.news(roster(2, "emil", incarnation=2)) == "emil"
    assert not here.presence.stale
    assert here.gone(BACK_S) == "bob"


def test_a_restart_of_the_server_tells_of_those_who_do_not_return() -> None:
    """All are gone in the first answer, and come back one after the other."""
    here = Watched()
    here.asked(members("me ann bob carol"))
    here.news(roster(2, "", "bob"))
    here.presence.disconnected()
    assert here.gone(AWAY_S + 10.0) == "", "it is not known whether bob has come back meanwhile"
    assert here.presence.due_at is None
    assert here.news(roster(1, "me", incarnation=2)) == ""
    assert here.asked(members("me", incarnation=2)) == ""
    here.now += BACK_S - 1.0
    assert here.news(roster(2, "ann bob emil", incarnation=2)) == "emil"
    assert here.gone(1.0) == "carol"


def test_answers_postpone_a_departure_once() -> None:
    """However often the server makes the chat ask."""
    here = Watched()
    here.asked(members("ann bob"))
    here.asked(members("ann", version=2))
    for version in range(3, 3 + int(BACK_S) // 10 - 1):
        here.now += 10.0
        here.asked(members("ann", version=version))
    assert here.gone(10.0) == "bob"


def test_what_was_not_told() -> None:
    """A version is missing: the connection was lost, for example."""
    here = Watched()
    here.asked(members("ann bob"))
    assert here.news(roster(4, "carol")) == "carol"
    assert here.presence.stale
    assert here.asked(members("ann carol", version=4)) == ""
    assert here.gone(BACK_S) == "bob"


def test_a_large_room_tells_of_nobody() -> None:
    here = Watched()
    here.asked(members("ann bob", more=300))
    assert here.news(roster(2)) == ""
    assert not here.presence.stale
    assert here.asked(members("ann", version=3)) == ""
    assert here.gone(BACK_S) == "", "it is not known who left"
    assert here.news(roster(4, "bob")) == "bob"


def test_a_room_that_has_become_large_tells_of_each_again_once_it_is_small() -> None:
    """Changes were not sent meanwhile, so nothing is known about any user."""
    here = Watched()
    here.asked(members("ann bob"))
    here.news(roster(2, total=limits.ROSTER_NAMES_MAX + 1))
    assert here.news(roster(3, "ann", "carol")) == "ann"
    assert here.gone(AWAY_S) == "carol"


def test_whom_a_server_names_twice() -> None:
    """It is no error, and no change either."""
    here = Watched()
    here.asked(members("ann bob"))
    assert here.news(roster(2, "carol dora", "bob bob ann")) == "carol dora"
    assert here.news(roster(3, "", "bob carol carol")) == ""
    assert here.gone(AWAY_S) == "bob ann carol"


def test_a_server_that_names_people_without_end() -> None:
    """Whatever number it gives."""
    here = Watched()
    here.asked(members("ann"))
    for version in range(2, 9):
        names = " ".join(f"p{version}x{n}" for n in range(1000))
        here.news(roster(version, names, names if version % 2 else ""))
        known = here.presence._here
        assert known is None or len(known) <= limits.ROSTER_NAMES_MAX
        assert len(here.presence._leaving) <= limits.ROSTER_NAMES_MAX


def test_a_stream_of_changes_is_counted() -> None:
    """The first ones are reported by name, and later as many as a person can read."""
    allowance = Allowance()
    assert allowance.named(NAMED_MAX + 5, 1.0) == NAMED_MAX
    assert (allowance.counted, allowance.due_at) == (5, 1.0 + COUNTED_S)
    named = sum(allowance.named(1, 2.0 + second) for second in range(50))
    assert named == int(51 * NAMED_PER_S)
    assert allowance.due_at == 1.0 + COUNTED_S
    assert allowance.take() == 5 + 50 - named
    assert allowance.take() == 0
    assert allowance.named(NAMED_MAX + 1, 1000.0) == NAMED_MAX, "never more at once"
