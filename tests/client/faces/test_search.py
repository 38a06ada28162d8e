"""Search, with both clients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from relay.client.events import Edit, Message, SearchPage
from relay.client.refusals import BadRequest, NotAMember
from tests.client.faces.adapters import Face
from tests.client.faces.test_arguments import call

Connect = Callable[..., Face]


def search(face: Face, room: str, text: str, **options: object) -> SearchPage:
    page = call(face, "search", room, text, **options)
    assert isinstance(page, SearchPage)
    return page


def name_in(room: str) -> str:
    """The name of a user of this test alone: the relay is shared."""
    return f"ann-{hashlib.sha256(room.encode()).hexdigest()[:8]}"


def until_indexed(face: Face, room: str, seq: int) -> None:
    while search(face, room, "word").indexed < seq:
        pass


def test_pages_of_what_has_the_words(connect: Connect, room: str) -> None:
    """An edit stands for its message; each page begins where the previous one ended."""
    ann = connect(name_in(room))
    first = ann.send(room, "a word, once")
    ann.send(room, "nothing of the kind")
    ann.send(room, "word again")
    ann.join(room)
    [entry] = ann.history(room, before=first.seq + 1, count=1).entries
    last = call(ann, "edit", entry, "the last WORD")
    until_indexed(ann, room, last.seq)
    page = search(ann, room, "word", count=1)
    assert [entry.text for entry in page.entries] == ["word again"]
    assert isinstance(page.entries[0], Message)
    assert not page.end
    page = search(ann, room, "word", before=page.next)
    [edit] = page.entries
    assert isinstance(edit, Edit)
    assert (edit.text, edit.about) == ("the last WORD", first.cursor)
    assert page.end
    assert search(ann, room, '"last word"').entries == (edit,)


def test_names_of_rooms_in_any_spelling(connect: Connect, room: str) -> None:
    ann = connect(name_in(room))
    stored = ann.send(room, "word")
    ann.join(room)
    until_indexed(ann, room, stored.seq)
    assert [entry.seq for entry in search(ann, room.upper(), "Word").entries] == [stored.seq]


def test_refusals(connect: Connect, room: str) -> None:
    ann = connect(name_in(room))
    with pytest.raises(NotAMember):
        search(ann, room, "word")
    ann.join(room)
    with pytest.raises(BadRequest, match="no word"):
        search(ann, room, "!?")


@pytest.mark.parametrize(
    ("text", "options", "error", "output"),
    [
        ("", {}, ValueError, "text has 0 bytes; it must have 1 to 256"),
        ("é" * 129, {}, ValueError, "text has 258 bytes"),
        (b"word", {}, TypeError, "text must be a str, not bytes"),
        ("word", {"count": 101}, ValueError, "count is 101; it must be from 1 to 100"),
        ("word", {"before": 0}, ValueError, "before is 0"),
        ("word", {"before": "1"}, TypeError, "before must be an int"),
    ],
)
def test_wrong_arguments(
    connect: Connect,
    room: str,
    text: str,
    options: dict[str, object],
    error: type[Exception],
    output: str,
) -> None:
    ann = connect(name_in(room))
    ann.join(room)
    with pytest.raises(error, match=output):
        search(ann, room, text, **options)
