"""Edits, redactions, reactions, retention and conversations under torture, and broken relays."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.chat.entries import Entry, GapReason, Kind
from tests.torture import amended
from tests.torture.amendments import (
    Finding,
    Got,
    Said,
    Told,
    check_conversation,
    check_log,
    check_reader,
    check_served,
)


# --- the checker itself --------------------------------------------------------------------------
def entry(seq: int, kind: Kind, sender: str, body: str, about: int = 0, to: str = "") -> Entry:
    place = b"e" * 8 if about else b""
    return Entry(
        "lobby", b"e" * 8, seq, seq - 1, 1, sender, b"k" * 16, b"p" * 16, seq, int(kind), "",
        body.encode(), to, place, about,
    )  # fmt: skip


def test_what_the_checker_finds_in_a_log() -> None:
    one = entry(1, Kind.MESSAGE, "ann", "one")
    sent = [Said("ann", 0, 1, 0, b"one")]
    assert list(check_log([one], 0, sent)) == []
    assert list(check_log([], 1, sent)) == []
    assert list(check_log([], 0, sent)) == [Finding("lost", "ann", 1)]
    edited = entry(2, Kind.EDIT, "bob", "two", 1)
    assert list(check_log([one, edited], 0, [])) == [Finding("not-own", "bob", 2)]
    redacted = entry(2, Kind.REDACTION, "ann", "why", 1)
    assert list(check_log([one, redacted], 0, sent)) == [Finding("not-erased", "ann", 1)]
    erased = entry(1, Kind.ERASED, "ann", "", 2)
    assert list(check_log([erased, redacted], 0, sent)) == []
    reaction = entry(3, Kind.REACTION, "bob", "x", 1)
    found = list(check_log([erased, redacted, reaction], 0, []))
    assert found == [Finding("about-erased", "bob", 3)]
    again = entry(2, Kind.MESSAGE, "ann", "one")
    assert {one.fault for one in check_log([one, again], 0, sent)} == {"doubled"}


def test_what_the_checker_finds_of_readers_and_conversations() -> None:
    gap = Told(0, 5, GapReason.RETENTION)
    got = [Got(6, 5, b"six"), Got(7, 6, b"")]
    assert list(check_reader("bob", [gap, *got], 5)) == []
    assert list(check_reader("bob", [gap, *got], 4)) == [Finding("gap", "bob", 5)]
    assert list(check_reader("bob", [gap, *got], 5, kept=2)) == []
    assert list(check_reader("bob", [gap, *got], 5, kept=3)) == [Finding("removed", "bob", 5)]
    assert list(check_reader("bob", got, 5)) == [Finding("skipped", "bob", 6)]
    assert list(check_served("bob", got, {b"six"})) == [Finding("served", "bob", 6)]
    ones = [
        entry(3, Kind.MESSAGE, "ann", "hi", to="bob"),
        entry(4, Kind.REACTION, "bob", "x", 3, to="ann"),
    ]
    others = [
        entry(8, Kind.MESSAGE, "ann", "hi", to="bob"),
        entry(9, Kind.REACTION, "bob", "x", 8, to="ann"),
    ]
    assert list(check_conversation("ann", ones, "bob", others)) == []
    others[1] = others[1]._replace(about_seq=3)
    assert list(check_conversation("ann", ones, "bob", others)) == [Finding("copy", "bob", 4)]
    assert list(check_conversation("ann", ones, "bob", others[1:])) == [Finding("copy", "ann", 1)]


ABOUT_REMOVAL = ("skipped", "gap", "removed", "served")


# --- a whole relay -------------------------------------------------------------------------------
async def test_amendments_removal_and_kills(tmp_path: Path) -> None:
    """Nothing is lost, duplicated, or served after it was erased; gaps are of removed entries."""
    outcome = await amended.run(tmp_path)
    assert outcome.findings == []
    assert outcome.kills
    assert outcome.floor > 3 * amended.KEPT
    assert outcome.gaps
    assert set(outcome.acknowledged) == {"0", "1", "2", "4"}


@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("removes-untold", "skipped"),
        ("tells-too-much", "gap"),
        ("removes-too-much", "removed"),
        ("erases-for-members-alone", "not-erased"),
        ("keeps-pages", "served"),
        ("anybody-edits", "not-own"),
        ("reacts-to-the-erased", "about-erased"),
        ("copies-places", "copy"),
    ],
)
async def test_broken_relays_are_caught(tmp_path: Path, variant: str, found: str) -> None:
    """Each bug that a reasonable implementation might have."""
    # Violations in the log can be found only while the entries are kept.
    kept = amended.KEPT if found in ABOUT_REMOVAL else 1000
    outcome = await amended.run(tmp_path, variant, rounds=4, kept=kept)
    assert found in {finding.fault for finding in outcome.findings}
