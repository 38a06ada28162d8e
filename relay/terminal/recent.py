"""The recently shown entries, as targets of edits, reactions and replies. No I/O.

Text that a sender could write proves nothing. So what happened to a message is shown in a notice,
and the message that a reply refers to is shown before its text, beside the sender.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from relay import limits
from relay.chat.entries import Cursor
from relay.client.events import Edit, Erased, Gap, LogEntry, Message, Reaction, Redaction
from relay.terminal.text import harmless_name, quoted
from relay.terminal.view import body_text, clock, sender_of

REMEMBERED_MAX: Final = 2000
SNIPPET_CHARS_MAX: Final = 40


class Recent:
    """The recently shown entries."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._entries: dict[tuple[str, Cursor], LogEntry] = {}
        """In the order in which they were shown; earlier ones that were looked up come first."""
        self._erased: dict[tuple[str, Cursor], None] = {}
        """Redactions that were reported: one erases a message and all of its edits."""
        self._passed: dict[bytes, int] = {}
        """By epoch, which is unique to a log: the highest number up to which everything was shown.
        """

    def note(self, entry: LogEntry) -> None:
        """Record a shown entry. Once it is redacted, its text is not quoted any more."""
        self._note(entry)
        self._forget()

    def note_gap(self, gap: Gap) -> None:
        """Record a gap: entries in it will not arrive."""
        if gap.start.epoch != gap.end.epoch:
            self._pass(Cursor(gap.start.epoch, limits.U63_MAX))
        self._pass(gap.end)

    def _pass(self, cursor: Cursor) -> None:
        self._passed[cursor.epoch] = max(cursor.seq, self._passed.pop(cursor.epoch, 0))
        if len(self._passed) > REMEMBERED_MAX:
            del self._passed[next(iter(self._passed))]

    def _forget(self) -> None:
        while len(self._entries) > REMEMBERED_MAX:
            del self._entries[next(iter(self._entries))]

    def _note(self, entry: LogEntry) -> None:
        self._pass(entry.cursor)
        entries = self._entries
        about = entry.about
        if isinstance(entry, Redaction) and about is not None:
            entries.pop((entry.room, about), None)
            for place in [
                p for p, e in entries.items() if isinstance(e, Edit) and e.about == about
            ]:
                del entries[place]
        elif isinstance(entry, Message | Edit | Reaction):
            entries[entry.room, entry.cursor] = entry
        elif isinstance(entry, Erased) and about is not None:
            self._erased[entry.room, about] = None
            if len(self._erased) > REMEMBERED_MAX:
                del self._erased[next(iter(self._erased))]

    def places(self) -> set[tuple[str, Cursor]]:
        """Return the positions of the recorded entries."""
        return set(self._entries)

    def note_earlier(self, entry: LogEntry) -> None:
        """As ``note``, for an entry that ``put_first`` orders: it displaces no later one."""
        self._note(entry)

    def put_first(self, entries: Iterable[LogEntry]) -> None:
        """Order entries that were shown last before all others: none of them is the last."""
        places = [(entry.room, entry.cursor) for entry in entries]
        first = {place: self._entries.pop(place) for place in places if place in self._entries}
        self._entries = {**first, **self._entries}
        self._forget()

    def passed(self, cursor: Cursor) -> bool:
        """Return True if everything up to a position was shown, in whichever log it is.

        The entry there may have been erased meanwhile, or be in a gap.
        """
        return cursor.seq <= self._passed.get(cursor.epoch, 0)

    def has(self, cursor: Cursor) -> bool:
        """Return True if the entry at this position was shown and is still recorded."""
        return any(place == cursor for _, place in reversed(self._entries))

    def last(self, target: str | None, *, own: bool) -> LogEntry | None:
        """Return the last message in a room, or with ``@name``, by this user or by others.

        ``target``: None for the last one anywhere.
        """
        for entry in reversed(self._entries.values()):
            if (
                isinstance(entry, Message)
                and target in (None, conversation(entry))
                and (entry.sender == self._me) is own
            ):
                return entry
        return None

    def messages(self, room: str, count: int) -> Sequence[LogEntry]:
        """Return the last messages of a room, oldest first."""
        found = [e for e in self._entries.values() if isinstance(e, Message) and e.room == room]
        return found[-count:]

    def label(self, message: LogEntry) -> str:
        """Return the label of a message: author, recipient, and what it replies to.

        For an edit that stands for its message, as in search results: that it is an edit.
        """
        who = sender_of(message)
        if message.to:
            mine = message.sender == self._me
            who = f"you -> {harmless_name(message.to)}" if mine else f"{who} -> you"
        if isinstance(message, Edit):
            return f"{who} (edited)"
        about = message.about
        if about is None:
            return who
        answered = self._entries.get((message.room, about))
        if answered is None:
            return f"{who} (re an earlier message)"
        return f"{who} (re {sender_of(answered)}: {snippet(answered)})"

    def notice_of(self, entry: LogEntry) -> str | None:
        """Return the notice for an entry that is not a message; None: nothing to report."""
        who = sender_of(entry)
        if entry.to:
            who += " (direct)"
        known = self._entries.get((entry.room, entry.about)) if entry.about else None
        of = "an earlier message" if known is None else snippet(known)
        text = body_text(entry.content_type, entry.body)
        if isinstance(entry, Edit):
            return f"{who} edits {of}: now {quoted(text)}"
        if isinstance(entry, Redaction):
            when = "an earlier message" if known is None else f"a message of {clock(known.time_ms)}"
            if known is not None and known.sender != entry.sender:
                when = f"a message of {harmless_name(known.sender)} of {clock(known.time_ms)}"
            return f"{who} has erased {when}" + (f": {quoted(text)}" if text else "")
        if isinstance(entry, Reaction):
            return f"{who} reacts {quoted(text)} to {of}"
        if isinstance(entry, Erased) and (entry.room, entry.about) in self._erased:
            return None
        if isinstance(entry, Erased):
            return f"a message of {who} of {clock(entry.time_ms)} has been erased"
        return None


def numbered(entry: LogEntry, label: str) -> str:
    """Return a label with the number of its message, in a form that no name can have.

    For an edit that stands for its message, the number of the message, which can be erased.
    """
    about = entry.about if isinstance(entry, Edit) else None
    return f"#{entry.seq if about is None else about.seq} {label}"


def conversation(entry: LogEntry) -> str:
    """Return the conversation of a message: its room, or ``@`` and the other user's name."""
    return f"@{entry.peer}" if entry.to else entry.room


def snippet(entry: LogEntry) -> str:
    """Return the beginning of a message's text, in quotes."""
    text = " ".join(body_text(entry.content_type, entry.body).split())
    cut = text if len(text) <= SNIPPET_CHARS_MAX else f"{text[:SNIPPET_CHARS_MAX]}…"
    return quoted(cut)
