"""The entries that a program can append to a log, built without I/O, for both clients."""

from __future__ import annotations

from relay.chat.entries import Cursor, Kind
from relay.chat.names import INBOX_PREFIX
from relay.chat.relations import REACTION_BYTES_MAX, is_reaction
from relay.client import arguments
from relay.client.events import Edit, LogEntry
from relay.client.pending_sends import Offer


def message(
    room: str,
    body: str | bytes,
    content_type: str,
    reply_to: LogEntry | Cursor | None,
    room_identity: bytes,
) -> Offer:
    """Return a message, possibly a reply to another one. Raises TypeError, ValueError."""
    data = arguments.body_bytes(body)
    identity = arguments.room_identity("room_identity", room_identity)
    if reply_to is None:
        return Offer(room, content_type, data, identity=identity)
    if isinstance(reply_to, LogEntry):
        about = _message_of(reply_to)
    else:
        about = arguments.place("reply_to", reply_to)
    return Offer(room, content_type, data, int(Kind.MESSAGE), about, identity)


def edit(entry: LogEntry, body: str | bytes, content_type: str) -> Offer:
    """Return a new body for a message of this account. Raises TypeError, ValueError."""
    data = arguments.body_bytes(body)
    return Offer(_log_of(entry), content_type, data, int(Kind.EDIT), _message_of(entry))


def redaction(entry: LogEntry, reason: str) -> Offer:
    """Return a redaction. Raises TypeError, ValueError."""
    why = arguments.text("reason", reason).encode()
    return Offer(_log_of(entry), "text/plain", why, int(Kind.REDACTION), entry.cursor)


def reaction(entry: LogEntry, text: str) -> Offer:
    """Return a reaction to a message. Raises TypeError, ValueError."""
    data = arguments.short_text("text", text, REACTION_BYTES_MAX, REACTION_BYTES_MAX, 1).encode()
    if not is_reaction(data):
        raise ValueError("text has control characters: it is not a reaction")
    return Offer(_log_of(entry), "text/plain", data, int(Kind.REACTION), _message_of(entry))


def read_mark(entry: LogEntry) -> Offer:
    """Return a read mark for a room, or for the messages with a user."""
    if not isinstance(entry, LogEntry):
        raise TypeError(f"message must be a Message, not {type(entry).__name__}")
    of = INBOX_PREFIX + entry.peer if entry.to else entry.room
    return Offer(arguments.ME, "", of.encode(), int(Kind.MARK), entry.cursor)


def _message_of(entry: LogEntry) -> Cursor:
    """Return the position of a message; for an edit from a search, that of its target."""
    return entry.about if isinstance(entry, Edit) and entry.about else entry.cursor


def _log_of(entry: LogEntry) -> str:
    """Return the log for entries about an entry; for a direct message, that of the other user."""
    if not isinstance(entry, LogEntry):
        raise TypeError(f"message must be a Message, not {type(entry).__name__}")
    return INBOX_PREFIX + entry.peer if entry.to else entry.room
