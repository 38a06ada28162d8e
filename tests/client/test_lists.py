"""When a list of pages has ended, whatever a server answers."""

from __future__ import annotations

import pytest

from relay.client.events import HistoryPage, SearchPage
from relay.client.lists import is_last_page


@pytest.mark.parametrize(
    ("following", "end", "before", "last"),
    [
        (40, False, None, False),
        (40, False, 41, False),
        (40, True, 41, True),
        (1, False, 41, True),  # nothing is below the first entry
        (0, False, None, True),
        (41, False, 41, True),  # a false server's pages lead nowhere
        (2**63 - 1, False, 41, True),
    ],
)
def test_the_last_page(following: int, end: bool, before: int | None, last: bool) -> None:
    assert is_last_page(HistoryPage((), following, end), before) is last
    assert is_last_page(SearchPage((), following, end, 99), before) is last
