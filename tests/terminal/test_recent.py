"""How answers, edits, reactions and erased messages are shown."""

from __future__ import annotations

from relay.client.events import Edit, Erased, LogEntry, Message, Reaction, Redaction
from relay.terminal.recent import REMEMBERED_MAX, Recent, numbered
from relay.terminal.shown import Shown
from tests.terminal.test_chat import Notices

EPOCH = b"epoch..."


def entry(
    kind: type[LogEntry], seq: int, sender: str, text: str = "", about: int = 0, to: str = ""
) -> LogEntry:
    """An entry in a room, or in the inbox of "me"."""
    return kind(
        "@me" if to else "lobby", EPOCH, seq, seq - 1, 0, sender, b"", b"p" * 16, seq, 0,
        "text/plain", text.encode(), to, EPOCH if about else b"", about,
    )  # fmt: skip


def test_who_said_it_to_whom_and_what_it_answers() -> None:
    """All of it stands before the text, where no text can stand."""
    recent = Recent("me")
    first = entry(Message, 1, "bob", 'hi "there"')
    assert recent.label(first) == "bob"
    recent.note(first)
    assert recent.label(entry(Message, 2, "ann", "x", about=1)) == (
        'ann (re bob: "hi \\u{22}there\\u{22}")'
    )
    assert recent.label(entry(Message, 2, "ann", "x", about=9)) == "ann (re an earlier message)"
    assert recent.label(entry(Message, 3, "bob", "x", to="me")) == "bob -> you"
    assert recent.label(entry(Message, 4, "me", "x", to="bob")) == "you -> bob"


def test_what_happened_to_a_message() -> None:
    """Once it is erased, none of it is quoted."""
    recent = Recent("me")
    recent.note(entry(Message, 1, "bob", "helo"))
    edit = entry(Edit, 2, "bob", "hello", about=1)
    assert recent.notice_of(edit) == 'bob edits "helo": now "hello"'
    recent.note(edit)
    assert recent.notice_of(entry(Reaction, 3, "ann", "+1", about=1)) == 'ann reacts "+1" to "helo"'
    redaction = entry(Redaction, 4, "bob", "oops", about=1)
    told = recent.notice_of(redaction)
    assert told is not None
    assert told.startswith("bob has erased a message of ")
    assert told.endswith(': "oops"')
    recent.note(redaction)
    later = recent.notice_of(entry(Reaction, 5, "ann", "+1", about=1))
    assert later == 'ann reacts "+1" to an earlier message'
    assert not recent._entries
    erased = recent.notice_of(entry(Erased, 1, "bob", about=4))
    assert erased is not None
    assert erased.endswith("has been erased")
    recent.note(entry(Erased, 1, "bob", about=4))
    assert recent.notice_of(entry(Erased, 2, "bob", about=4)) is None, "its edit is erased with it"


def test_the_last_message_of_a_room_or_of_a_person() -> None:
    """The target of /edit and /reply."""
    recent = Recent("me")
    for seq, sender, to in ((1, "bob", ""), (2, "me", ""), (3, "bob", "me"), (4, "me", "bob")):
        recent.note(entry(Message, seq, sender, str(seq), to=to))
    found = [recent.last(target, own=own) for target in ("lobby", "@bob") for own in (False, True)]
    assert [one.seq if one else 0 for one in found] == [1, 2, 3, 4]
    assert recent.last("@ann", own=True) is None
    assert recent.last(None, own=True) is recent.last("@bob", own=True)


def test_what_was_looked_up_is_not_the_last_message() -> None:
    """It was shown later, and is older."""
    recent = Recent("me")
    now, earlier = entry(Message, 7, "me", "now"), entry(Message, 3, "me", "earlier")
    for shown in (now, earlier):
        recent.note(shown)
    recent.put_first([earlier])
    assert recent.last("lobby", own=True) is now
    assert [one.seq for one in recent.messages("lobby", 9)] == [3, 7]
    assert recent.messages("lobby", 1) == [now]
    assert recent.has(earlier.cursor)
    assert not recent.has(earlier.cursor._replace(seq=4))


def test_whose_message_a_moderator_has_erased() -> None:
    recent = Recent("me")
    recent.note(entry(Message, 1, "bob", "spam"))
    told = recent.notice_of(entry(Redaction, 2, "ann", "no spam", about=1))
    assert told is not None
    assert told.startswith("ann has erased a message of bob of ")


def test_the_number_of_an_edit_is_that_of_its_message() -> None:
    """The number that ``relay history --search --numbers`` prints is the one to erase."""
    assert numbered(entry(Edit, 7, "bob", "x", about=3), "bob (edited)") == "#3 bob (edited)"
    assert numbered(entry(Message, 7, "bob", "x", about=3), "bob") == "#7 bob", "an answer"


def test_it_forgets_what_is_long_ago() -> None:
    recent = Recent("me")
    for seq in range(1, REMEMBERED_MAX + 100):
        recent.note(entry(Message, seq, "bob", "x"))
    assert len(recent._entries) == REMEMBERED_MAX


async def test_what_is_looked_up_drives_out_nothing_later() -> None:
    """Otherwise /edit would apply to an old message."""
    shown = Shown(Notices(), "me", "lobby")
    now = entry(Message, 2 * REMEMBERED_MAX, "me", "now")
    await shown.show(now)
    count = REMEMBERED_MAX + 10
    await shown.show_earlier(entry(Message, seq, "me", "x") for seq in range(1, count))
    assert shown.recent.last("lobby", own=True) is now
    assert len(shown.recent._entries) == REMEMBERED_MAX
