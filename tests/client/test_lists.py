"""When a list of pages ends, whatever a server answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from relay import codec
from relay.chat.accounts import answers
from relay.chat.rooms import shown
from relay.chat.rooms.events import Kind, Role
from relay.client import lists
from relay.client.events import HistoryPage, SearchPage
from relay.client.lists import is_last_page
from relay.errors import EnvelopeError


@pytest.mark.parametrize(
    ("following", "end", "before", "last"),
    [
        (40, False, None, False),
        (40, False, 41, False),
        (40, True, 41, True),
        (1, False, 41, True),  # there is nothing before the first entry
        (0, False, None, True),
        (41, False, 41, True),  # a false server's pages go in circles
        (2**63 - 1, False, 41, True),
    ],
)
def test_the_last_page(following: int, end: bool, before: int | None, last: bool) -> None:
    assert is_last_page(HistoryPage((), following, end), before) is last
    assert is_last_page(SearchPage((), following, end, 99), before) is last


class EndlessServer:
    """Answers each request for a page with one entry that is a little further."""

    def __init__(self) -> None:
        self.read: Any = None
        self.count = 0

    def ask_account(self, name: str, request: Any, token: object, read: object) -> None:  # noqa: ANN401
        self.read = read

    def ask_room(self, room: str, request: Any, seen: int, token: object, read: object) -> None:  # noqa: ANN401
        self.read = read

    def next(self, page: Callable[[str], bytes]) -> object:
        self.count += 1
        return self.read(page(f"name{self.count:09}"))


def listed(name: str) -> shown.Listed:
    return shown.Listed(name, Kind.PUBLIC, "", "", False, Role.NONE, 0, 1, 1)


@pytest.mark.parametrize(
    ("questions", "page"),
    [
        (lists.account_names, lambda name: codec.pack([name])),
        (lists.read_marks, lambda name: codec.pack(([[name, b"e" * 8, 1]], False))),
        (partial(lists.rooms, mine=False), lambda n: shown.pack_list([listed(n)], n, False)),
        (
            partial(lists.rooms, mine=True),
            lambda n: shown.pack_own([shown.Own(listed(n), bytes(8), 0, 0)], n, False),
        ),
        (
            lists.open_invitations,
            lambda n: answers.packed_invitations(
                answers.Invitations((answers.Invitation(bytes(32), 0, False, "a"),), n)
            ),
        ),
    ],
    ids=["users", "marks", "rooms", "own", "invitations"],
)
def test_a_list_that_always_leads_on_ends(
    questions: Callable[[], Any], page: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a protocol violation, when it is longer than any honest one."""
    monkeypatch.setattr(lists, "LIST_BYTES_MAX", 10_000)
    server: Any = EndlessServer()

    def ask() -> None:
        asking = questions()
        question = next(asking)
        while True:
            question(server, None)
            question = asking.send(server.next(page))

    with pytest.raises(EnvelopeError, match="does not end"):
        ask()
    assert 10 < server.count < 1000
