"""Which entries may refer to which others, and who their authors are."""

from __future__ import annotations

import pytest

from relay.chat.entries import Entry, Extra, Kind, Submission
from relay.chat.relations import Refusal, differs, is_own, refusal

KEY, OTHER_KEY = b"k" * 16, b"o" * 16
MINE, THEIRS = b"m" * 16, b"t" * 16


def entry(sender: str = "alice", key: bytes = KEY, producer: bytes = MINE, to: str = "") -> Entry:
    return Entry("log", b"e" * 8, 5, 4, 0, sender, key, producer, 1, 0, "", b"x", to)


def offered(
    kind: Kind,
    sender: str = "alice",
    key: bytes = OTHER_KEY,
    producer: bytes = THEIRS,
) -> Submission:
    return Submission("log", sender, key, producer, 2, int(kind), "", b"y")


@pytest.mark.parametrize(
    ("target", "submission", "own"),
    [
        (entry(), offered(Kind.EDIT), True),
        (entry(), offered(Kind.EDIT, "bob"), False),
        (entry(key=b""), offered(Kind.EDIT), False),
        (entry("~bob", b""), offered(Kind.EDIT, "~bob", b""), False),
        (entry("~bob", b""), offered(Kind.EDIT, "~bob", b"", MINE), True),
    ],
    ids=["another device", "somebody else", "from before accounts", "a later guest", "the guest"],
)
def test_whose_an_entry_is(target: Entry, submission: Submission, own: bool) -> None:
    assert is_own(target, submission) is own
    expected = Refusal.NONE if own else Refusal.NOT_ALLOWED
    assert refusal(target, submission, Extra(), ruled=True) is expected


@pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.EDIT, Kind.REDACTION, Kind.REACTION])
def test_nothing_is_about_another_conversation(kind: Kind) -> None:
    """One's own inbox has all conversations: no reference may lead into another one."""
    with_bob, from_bob = entry(to="bob"), entry("bob", to="alice")
    for target in (with_bob, from_bob):
        assert refusal(target, offered(kind), Extra("carol"), ruled=True) is Refusal.NO_SUCH_ENTRY
    assert refusal(with_bob, offered(kind), Extra("bob"), ruled=True) is Refusal.NONE


def test_nobody_erases_what_the_other_one_wrote() -> None:
    """There is no moderator between two users; in a room its permissions decide."""
    from_bob = entry("bob", to="alice")
    redaction = offered(Kind.REDACTION)
    assert refusal(from_bob, redaction, Extra("bob"), ruled=True) is Refusal.NOT_ALLOWED
    assert refusal(entry("bob"), redaction, Extra(), ruled=True) is Refusal.NONE
    assert refusal(entry("bob"), redaction, Extra(), ruled=False) is Refusal.NOT_ALLOWED


def test_a_message_that_was_erased_is_the_same_as_its_resend() -> None:
    """A resend is acknowledged, and the message does not come back under another id."""
    same = offered(Kind.MESSAGE)._replace(body=b"x")
    assert not differs(entry(), same)
    assert differs(entry(), same._replace(body=b"y"))
    assert not differs(entry()._replace(kind=Kind.ERASED, body=b""), same)
    assert not differs(None, same)
