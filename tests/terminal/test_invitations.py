"""Which invitations a chat shows, and when."""

from __future__ import annotations

from relay.client.events import Invited, State, StateChanged
from relay.client.room_calls import ListedRoom, RoomRole
from relay.terminal.invitations import KNOWN_MAX, Invitations


def listed(**roles: RoomRole) -> list[ListedRoom]:
    return [ListedRoom(name, "private", "", "", False, role, 1, 1) for name, role in roles.items()]


def test_those_that_come_and_those_that_came_meanwhile() -> None:
    """Each is shown once, but a new one of a room is shown again."""
    invitations = Invitations("here")
    invitations.known(listed(den="invited", hall="member"))
    assert invitations.notice_of(Invited("attic", "ann")) == (
        "ann has invited you to: attic; relay chat ADDRESS ROOM, and /member there"
    )
    states = [State.CONNECTING, State.ONLINE, State.WAITING, State.CONNECTING, State.ONLINE]
    assert [invitations.are_due(StateChanged(state)) for state in states] == [False] * 4 + [True]
    found = listed(den="invited", attic="invited", here="invited", yard="invited", hall="member")
    notice = "invited to: yard; relay chat ADDRESS ROOM, and /member there"
    assert invitations.missed(found) == notice
    assert invitations.missed(found) is None
    assert invitations.missed(listed()) is None
    assert invitations.missed(listed(den="invited")) is not None


def test_nothing_is_asked_again_before_it_was_asked_once() -> None:
    """The connection is lost while the first join waits: the list is requested after that."""
    invitations = Invitations("here")
    states = [State.WAITING, State.ONLINE]
    assert not any(invitations.are_due(StateChanged(state)) for state in states)
    invitations.known(listed())
    assert [invitations.are_due(StateChanged(state)) for state in states] == [False, True]


def test_an_invitation_to_the_room_one_is_in_is_an_entry_there() -> None:
    invitations = Invitations("here")
    assert invitations.notice_of(Invited("here", "ann")) is None
    invitations.out = True
    notice = invitations.notice_of(Invited("here", "ann"))
    assert notice == "ann has invited you to this room: /join goes back"


def test_a_name_from_a_stranger_is_made_harmless() -> None:
    notice = Invitations("here").notice_of(Invited("\x1b[31m", "a\nb"))
    assert notice is not None
    assert notice.isprintable()


def test_a_server_that_invites_without_end() -> None:
    """A bounded number is remembered."""
    invitations = Invitations("here")
    for number in range(3 * KNOWN_MAX):
        assert invitations.notice_of(Invited(f"room{number}", "ann"))
    assert len(invitations._known) <= KNOWN_MAX
