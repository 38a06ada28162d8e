"""Each row of the tables of attacks names tests; ``test_references`` checks that these exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLE = re.compile(
    r"^\| (?:attack|what is tried, or happens) \|.*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE
)
TEST = re.compile(r"`tests/[\w/]+\.py::test_\w+`")


def rows(page: str) -> list[str]:
    """Return the rows of all tables of attacks in a page."""
    text = (ROOT / page).read_text()
    return [row for table in TABLE.findall(text) for row in table.splitlines()]


@pytest.mark.parametrize(("page", "least"), [("SECURITY.md", 15), ("docs/attacks.md", 60)])
def test_each_attack_has_its_test(page: str, least: int) -> None:
    found = rows(page)
    assert len(found) >= least
    assert [row for row in found if not TEST.search(row)] == []


def test_a_test_has_one_place() -> None:
    """Two rows with one test describe one attack."""
    named = [test for row in rows("docs/attacks.md") for test in TEST.findall(row)]
    assert sorted(named) == sorted(set(named))
