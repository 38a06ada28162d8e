"""The tables of docs/protocol.md that are written by hand, each compared with the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.chat.accounts import answers, links
from relay.chat.accounts import requests as account_requests
from relay.chat.entries import GapReason, Kind
from relay.chat.relations import REACTION_BYTES_MAX
from relay.chat.rooms import events, rights, shown
from relay.chat.rooms.events import Role
from relay.chat.rooms.rights import Right
from relay.chat.rooms.state import PERSON, Person, Room
from relay.codec import Shape
from relay.wire import tables

PAGE = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """Return the rows below a heading row, cell by cell."""
    (after,) = (
        f"\n{block}".partition(f"\n{head}")[2]
        for block in PAGE.split("\n\n")
        if f"\n{head}" in f"\n{block}"
    )
    rows = [row for row in after.splitlines()[2:] if row.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def numbered(head: str) -> list[tuple[int, str]]:
    return [(int(row[0]), row[1].strip("*").upper()) for row in table(head)]


def test_gap_reasons() -> None:
    assert numbered("| reason | name | meaning |") == [(one, one.name) for one in GapReason]


def test_kinds() -> None:
    """Which clients may send, and which need to be about an entry."""
    rows = table("| kind | name | body | about |")
    assert [(int(row[0]), row[1].upper()) for row in rows] == [(one, one.name) for one in Kind]
    assert [int(row[0]) for row in rows if "no client sends it" in " ".join(row)] == [
        Kind.SYSTEM, Kind.ERASED,
    ]  # fmt: skip
    assert f"1..{REACTION_BYTES_MAX} bytes" in rows[Kind.REACTION][2]


def test_links_of_a_chain() -> None:
    assert numbered("| kind | name | rules |") == [(one, one.name) for one in links.Kind]


# --- requests -------------------------------------------------------------------------------------
ACCOUNT = "| number | request | fields | who may | DONE has |"
ROOM = "| number | request | fields | DONE has |"


def test_who_may_make_a_request_about_an_account() -> None:
    for row in table(ACCOUNT):
        kind, who = account_requests.SHAPES[int(row[0])].type, row[3]
        assert ("a device" in who) is (kind in account_requests.OF_DEVICES), row
        assert ("operators" in who) is (kind in account_requests.OF_OPERATORS), row
        assert (who == "anybody with an account") is (kind is account_requests.LastSeen)


def elements(text: str) -> list[str]:
    """Return the elements of an array as the page writes it: commas within brackets are theirs."""
    depth, found = 0, [""]
    for char in text[1:-1]:
        depth += (char == "[") - (char == "]")
        if char == "," and not depth:
            found.append("")
        else:
            found[-1] += char
    return [one.strip() for one in found]


def done(head: str, number: int) -> list[str]:
    """Return the elements of the answer to a request."""
    (row,) = (row for row in table(head) if row[0] == str(number))
    found = re.match(r"`(\[.*?\])`", row[-1])
    assert found is not None, row
    return elements(found.group(1))


@pytest.mark.parametrize(
    ("head", "number", "checks"),
    [
        (ACCOUNT, 3, answers._SHOWN),
        (ACCOUNT, 15, answers._WANTED),
        (ACCOUNT, 16, answers._MARKS),
        (ACCOUNT, 20, answers._INVITATIONS),
        (ROOM, 1, shown._IDENTITY),
        (ROOM, 24, shown._SHOWN),
        (ROOM, 25, shown._LIST),
        (ROOM, 26, shown._OWN),
    ],
)
def test_what_done_has(head: str, number: int, checks: tuple[object, ...]) -> None:
    """As many elements as a client expects."""
    assert len(done(head, number)) == len(checks)


def test_rows_in_what_done_has() -> None:
    (people,) = (one for one in done(ROOM, 24) if one.startswith("[[name"))
    assert elements(people)[1] == "..."
    assert len(elements(elements(people)[0])) == len(PERSON)
    listed = elements(elements(done(ROOM, 25)[0])[0])
    assert len(listed) == len(shown._LISTED) == len(shown.Listed._fields)
    own = elements(elements(done(ROOM, 26)[0])[0])
    assert own[0] == "as in 25"
    assert len(own[1:]) == len(shown.Own._fields) - 1
    (devices,) = (one for one in done(ACCOUNT, 3) if one.startswith("[[key"))
    assert len(elements(elements(devices)[0])) == len(answers.Device._fields)
    invitations = elements(elements(done(ACCOUNT, 20)[0])[0])
    assert len(invitations) == len(answers.Invitation._fields)


# --- rights ---------------------------------------------------------------------------------------
ANN = rights.Actor("ann", b"a" * 32)
OPERATOR = rights.Actor("ops", b"o" * 32, operator=True)
ROLES = {"invited": Role.INVITED, "member": Role.MEMBER, "moderator": Role.MODERATOR,
         "owner": Role.OWNER}  # fmt: skip
COLUMNS = [
    Right.READ, Right.WRITE, Right.ENTER, Right.TOPIC | Right.INVITE, Right.MODERATE, Right.MANAGE,
]  # fmt: skip
WHO = "| who | reads | writes | enters | topic, title, invites |"


def rooms(who: str) -> Iterator[tuple[Room, rights.Actor]]:
    """Return the rooms, and the person in them, that a row is about."""
    for kind in events.Kind:
        if who == "operator":
            yield Room(1, 1, kind), OPERATOR
        elif who == "banned":
            yield Room(1, 1, kind, people={"ann": Person(ANN.root, banned=True)}), ANN
        elif who.startswith("none"):
            if f" {kind.name.lower()} " in who:
                yield Room(1, 1, kind), ANN
        else:
            for role in who.split(", "):
                yield Room(1, 1, kind, people={"ann": Person(ANN.root, ROLES[role])}), ANN


def test_rights() -> None:
    seen = 0
    for who, *cells in table(WHO):
        for room, actor in rooms(who):
            seen += 1
            for cell, right in zip(cells, COLUMNS, strict=True):
                has = right in rights.rights(room, actor)
                if cell == "as their role":
                    stranger = rights.rights(room, actor._replace(operator=False))
                    assert has is (right in stranger), (who, room.kind, right)
                elif cell == "not in an announce room":
                    assert has is (room.kind is not events.Kind.ANNOUNCE), (who, room.kind)
                else:
                    assert has is bool(cell), (who, room.kind, right)
    assert seen == 3 + 3 + 2 * 3 + 3 + 3 + 3


def test_whom_a_moderator_has_power_over() -> None:
    cells = {row[0]: row[5] for row in table(WHO)}
    assert cells["moderator"] == cells["owner"] == "those of a lower rank"
    assert cells["operator"] == "anybody"
    ranks = [rights.rank_of(role) for role in Role]
    assert ranks == sorted(ranks)
    assert rights.rank(Room(), OPERATOR) > max(ranks)


# --- the generated columns ------------------------------------------------------------------------
def test_a_row_too_many_or_too_few_is_an_error() -> None:
    shapes = {1: Shape(account_requests.Show, ()), 2: Shape(account_requests.Enable, ())}
    head = "| number | request | fields | |\n|---|---|---|---|\n"
    both = f"{head}| 1, 2 | a, b | | |"
    assert tables.with_fields(both, shapes) == both
    for rows, why in (
        ("| 1 | a | | |", "no row for"),
        ("| 1, 2, 3 | a | | |", "too many"),
        ("| 1, 2 | a | | |\n| 1 | b | | |", "too many"),
    ):
        with pytest.raises(ValueError, match=why):
            tables.with_fields(head + rows, shapes)
    other = account_requests.SHAPES[1]
    with pytest.raises(ValueError, match="different fields"):
        tables.with_fields(both, shapes | {2: other})
