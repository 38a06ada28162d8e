"""What a chat shows of users who come and go: changes only, and all of them, also after a change of
the home.
"""

from __future__ import annotations

from relay import limits
from relay.client.events import Member, Members, RosterChanged
from relay.terminal.presence import Presence


def roster(
    version: int, joined: str = "", left: str = "", incarnation: int = 1, total: int = 9
) -> RosterChanged:
    came = tuple(Member(name, "") for name in joined.split())
    return RosterChanged("lobby", total, came, tuple(left.split()), incarnation, version)


def members(names: str, version: int = 1, incarnation: int = 1, more: int = 0) -> Members:
    listed = tuple(Member(name, "") for name in names.split())
    return Members("lobby", len(listed) + more, listed, incarnation, version)


def told(event: RosterChanged) -> tuple[str, str]:
    return " ".join(one.name for one in event.joined), " ".join(event.left)


def test_what_is_known_is_no_news() -> None:
    here = Presence()
    assert here.stale
    assert told(here.asked(members("ann bob"))) == ("", "")
    assert not here.stale
    assert told(here.news(roster(2, "ann carol", "dora"))) == ("carol", "")
    assert told(here.news(roster(3, "", "carol"))) == ("", "carol")


def test_another_roster_is_compared() -> None:
    """Users who stayed are not shown again; those who came and went meanwhile are."""
    here = Presence()
    here.asked(members("ann bob carol"))
    assert told(here.news(roster(1, incarnation=2))) == ("", "")
    assert here.stale
    assert told(here.asked(members("ann carol dora", incarnation=2))) == ("dora", "bob")
    assert told(here.news(roster(2, "emil", incarnation=2))) == ("emil", "")
    assert not here.stale


def test_what_was_not_told() -> None:
    """A version is missing: the connection was lost, for example."""
    here = Presence()
    here.asked(members("ann bob"))
    assert told(here.news(roster(4, "carol"))) == ("carol", "")
    assert here.stale
    assert told(here.asked(members("ann carol", version=4))) == ("", "bob")


def test_a_large_room_tells_of_nobody() -> None:
    here = Presence()
    here.asked(members("ann bob", more=300))
    assert told(here.news(roster(2))) == ("", "")
    assert not here.stale
    assert told(here.asked(members("ann", version=3))) == ("", ""), "it is not known who left"
    assert told(here.news(roster(4, "bob"))) == ("bob", "")


def test_a_room_that_has_become_large_tells_of_each_again_once_it_is_small() -> None:
    """Changes were not sent meanwhile, so nothing is known about any user."""
    here = Presence()
    here.asked(members("ann bob"))
    here.news(roster(2, total=limits.ROSTER_NAMES_MAX + 1))
    assert told(here.news(roster(3, "ann", "carol"))) == ("ann", "carol")


def test_whom_a_server_names_twice() -> None:
    """It is no error, and no change either."""
    here = Presence()
    here.asked(members("ann bob"))
    assert told(here.news(roster(2, "carol dora", "bob bob ann"))) == ("carol dora", "bob ann")
    assert told(here.news(roster(3, "", "bob carol carol"))) == ("", "carol")


def test_a_server_that_names_people_without_end() -> None:
    """Whatever number it gives."""
    here = Presence()
    here.asked(members("ann"))
    for version in range(2, 9):
        here.news(roster(version, " ".join(f"p{version}x{n}" for n in range(1000))))
        assert here._here is None or len(here._here) <= limits.ROSTER_NAMES_MAX
