"""Notices about the connection, the room and missing messages."""

from __future__ import annotations

import pytest

from relay.chat.entries import Cursor, GapReason
from relay.client.closes import describe_close
from relay.client.events import (
    DeviceWarning,
    Gap,
    Live,
    Member,
    Members,
    Postponed,
    RosterChanged,
    State,
    StateChanged,
    Unfollowed,
)
from relay.terminal.notices import Narrator, members_notice, others_notice, person
from relay.terminal.view import NOTICE, notice_lines
from relay.wire.codes import CloseCode, may_reconnect

EPOCH = bytes(8)
OTHER_EPOCH = b"\1" * 8


def test_the_connection_is_news_only_when_it_changes() -> None:
    """Not the first login or each attempt, but a new reason, and its end."""
    narrator = Narrator()
    told = [
        narrator.notice_of(event)
        for event in (
            StateChanged(State.CONNECTING),
            StateChanged(State.ONLINE),
            StateChanged(State.WAITING, describe_close(CloseCode.GOING_AWAY), 1.0),
            StateChanged(State.CONNECTING),
            StateChanged(State.WAITING, "refused", 1.0),
            StateChanged(State.CONNECTING),
            StateChanged(State.WAITING, "refused", 2.0),
            StateChanged(State.ONLINE),
            StateChanged(State.WAITING, "refused", 1.0),
            StateChanged(State.CLOSED),
        )
    ]
    assert [notice for notice in told if notice] == [
        "reconnecting: the server is shutting down or restarting (GOING_AWAY)",
        "reconnecting: refused",
        "reconnected",
        "reconnecting: refused",
    ]


@pytest.mark.parametrize("code", [code for code in CloseCode if may_reconnect(code)])
def test_no_close_code_gives_orders(code: CloseCode) -> None:
    """Each code after which the client reconnects has a readable text with its name."""
    notice = Narrator().notice_of(StateChanged(State.WAITING, describe_close(code), 1.0))
    assert notice is not None
    assert notice.endswith(f" ({code.name})")
    assert "connect again" not in notice


def roster(joined: tuple[Member, ...], left: tuple[str, ...]) -> RosterChanged:
    """A change of the members of a room."""
    return RosterChanged("lobby", 3, joined, left, 1, 1)


def test_people_come_and_go() -> None:
    """Not the user itself; in a large room without names."""
    narrator = Narrator("anna")
    event = roster((Member("anna", ""), Member("bert", "Bert\x1b B.")), ("carl",))
    assert narrator.notice_of(event) == 'bert "Bert\\u{1b} B." is here, carl left'
    assert narrator.notice_of(roster((Member("anna", ""),), ())) is None
    assert narrator.notice_of(roster((), ())) is None
    assert Narrator().notice_of(event) is None


AHEAD = "the server lost them, was restored from a backup, or is another one"


@pytest.mark.parametrize(
    ("gap", "notice"),
    [
        (
            Gap("lobby", Cursor(EPOCH, 4), Cursor(EPOCH, 9), GapReason.RETENTION),
            "messages 5 to 9 are missing: the server no longer has them",
        ),
        (
            Gap("lobby", Cursor(EPOCH, 4), Cursor(OTHER_EPOCH, 2), GapReason.EPOCH),
            "messages after 4 are missing: the server lost them, or was restored from a backup",
        ),
        (
            Gap("lobby", Cursor(EPOCH, 50), Cursor(EPOCH, 48), GapReason.AHEAD),
            f"messages 49 to 50 are not in the log any more: {AHEAD}",
        ),
        (
            Gap("@me", Cursor(EPOCH, 13), Cursor(EPOCH, 12), GapReason.AHEAD),
            f"direct message 13 is not in the log any more: {AHEAD}",
        ),
        (
            Gap("lobby", Cursor(EPOCH, 4), Cursor(EPOCH, 5), 77),
            "message 5 is missing: reason 77",
        ),
    ],
)
def test_gaps_are_told(gap: Gap, notice: str) -> None:
    """With their reason, also one that this version does not know."""
    assert Narrator().notice_of(gap) == notice


def test_a_warning_names_what_shows_the_change() -> None:
    """Otherwise it would come again at each start, without a way to answer it."""
    notice = Narrator().notice_of(DeviceWarning("lobby", "bob", "other devices"))
    assert notice is not None
    assert notice.startswith("WARNING about bob: other devices. Do not trust")
    assert "/accept" in notice
    assert "relay device accept" in notice


def test_other_events() -> None:
    """The end of a membership is shown; being live is not."""
    assert Narrator().notice_of(Unfollowed("lobby", "closed")) == "no longer in lobby: closed"
    assert Narrator().notice_of(Live("lobby", 3)) is None
    assert Narrator().notice_of(Postponed("lobby", "the disk is full\x1b")) == (
        'waiting: the server cannot store messages in lobby: "the disk is full\\u{1b}"'
    )
    assert Narrator().notice_of(Postponed("@me", "")) == (
        "waiting: the server cannot store direct messages"
    )


def test_who_is_here() -> None:
    """At most what the server lists, and how many more."""
    listed = (Member("anna", "anna"), Member("bert", "B."))
    assert members_notice(Members("lobby", 2, listed, 1, 1)) == '2 people in lobby: anna, bert "B."'
    many = members_notice(Members("lobby", 300, listed, 1, 1))
    assert many == '300 people in lobby: anna, bert "B." and 298 more'
    assert members_notice(Members("lobby", 1, listed[:1], 1, 1)) == "1 person in lobby: anna"


def test_who_else_is_here() -> None:
    """Shown after entering: nothing when alone, a few names of many."""
    anna, bert = Member("anna", "anna"), Member("bert", "B.")
    assert others_notice(Members("lobby", 1, (anna,), 1, 1), "anna") is None
    assert others_notice(Members("lobby", 2, (anna, bert), 1, 1), "anna") == 'also here: bert "B."'
    crowd = (*(Member(f"m{number}", "") for number in range(12)), anna)
    told = others_notice(Members("lobby", 13, crowd, 1, 1), "anna")
    assert told is not None
    assert told.endswith("m8, m9 and 2 more")
    told = others_notice(Members("lobby", 300, crowd[:12], 1, 1), "anna")
    assert told is not None
    assert told.endswith("m9 and 289 more")


@pytest.mark.parametrize(
    "display",
    [
        "x) is here, alice left, bob (the operator",
        'x" is here, alice left, bob "the operator',
        "x\u201d is here, alice left, bob \u201cthe operator",
        "x\uff02 is here, alice left, bob \uff02the operator",
        "x\u00bb is here, alice left, bob \u00abthe operator",
        "x'' is here, alice left, bob ''the operator",
        "x\u2019\u2019 is here, alice left, bob \u2018\u2019the operator",
        "x` ' is here, alice left, bob ' `the operator",
        "x\u2032\u2032 is here, alice left, bob \u05f4the operator",
    ],
)
def test_no_display_name_ends_its_quotation(display: str) -> None:
    """So no part of it can look like our own text; common names are not changed."""
    notice = Narrator("anna").notice_of(roster((Member("mallory", display),), ()))
    assert notice is not None
    inner = notice.removeprefix('mallory "').removesuffix('" is here')
    assert len(inner) == len(notice) - len('mallory "" is here')
    assert not set(inner) & set('"\u201c\u201d\uff02\u00ab\u00bb\u05f4')
    assert "''" not in inner
    assert "\u2019\u2019" not in inner


@pytest.mark.parametrize("display", ["Conan O'Brien", "Anna (she/her)", "Jos\u00e9, Jr.", "李雷"])
def test_ordinary_display_names_show_as_they_are(display: str) -> None:
    assert person("bert", display) == f'bert "{display}"'


@pytest.mark.parametrize("width", range(10, 100, 7))
def test_no_display_name_begins_a_line_of_a_notice(width: int) -> None:
    """Wherever the line is wrapped, the rest is indented: only notices begin with -!-."""
    display = "x" + " " * 24 + "alice left" + " " * 20 + "-!- bob"
    notice = Narrator("anna").notice_of(roster((Member("mallory", display),), ()))
    assert notice is not None
    first, *others = notice_lines(notice, width)
    assert first.head == NOTICE
    assert all(line.head == "    " for line in others)
