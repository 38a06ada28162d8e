"""Messages, changes of rooms and gaps as JSON, one object per line (docs/cli.md has the schema)."""

from __future__ import annotations

import base64
from typing import Any

from relay.chat.entries import Cursor, GapReason, Kind
from relay.client.account_calls import User
from relay.client.events import Gap, LogEntry, RoomChanged
from relay.client.room_calls import RoomInfo, RoomPerson
from relay.terminal.view import rfc3339


def message_object(message: LogEntry) -> dict[str, Any]:
    """Return an entry's fields. ``encoding`` is present only for a body that is not text.

    So are ``kind`` for anything but a plain message, ``to`` for a direct one, and ``about``.
    """
    fields: dict[str, Any] = {
        "room": message.room,
        "epoch": message.epoch.hex(),
        "seq": message.seq,
        "prev": message.prev,
        "time": rfc3339(message.time_ms),
        "sender": message.sender,
        "device": message.key_id.hex(),
        "content_type": message.content_type,
    }
    if message.kind:
        known = {int(kind): kind.name.lower() for kind in Kind}
        fields["kind"] = known.get(message.kind, str(message.kind))
    if message.to:
        fields["to"] = message.to
    if message.about is not None:
        fields["about"] = _cursor(message.about)
    if message.doubt:
        fields["unverified"] = message.doubt
    if message.content_type.startswith("text/"):
        try:
            return fields | {"body": message.body.decode()}
        except UnicodeDecodeError:
            pass
    return fields | {"body": base64.b64encode(message.body).decode(), "encoding": "base64"}


def change_object(event: RoomChanged) -> dict[str, Any]:
    """Return a change of a room, and who made it."""
    fields: dict[str, Any] = {
        "room": event.room,
        "epoch": event.epoch.hex(),
        "seq": event.seq,
        "prev": event.prev,
        "time": rfc3339(event.time_ms),
        "sender": event.sender,
        "device": event.key_id.hex(),
    }
    change: dict[str, Any] = {"what": event.change}
    for name in ("person", "text", "role", "kind"):
        if value := getattr(event, name):
            change[name] = value
    if event.kind:
        change["listed"] = event.listed
    if event.change == "keep":
        change["keep"] = list(event.keep)
    if event.until_ms:
        change["until"] = rfc3339(event.until_ms)
    if event.doubt:
        fields["unverified"] = event.doubt
    return fields | {"change": change}


def room_object(room: RoomInfo) -> dict[str, Any]:
    """Return the state of a room."""
    people = [_person_object(person) for person in room.people]
    return room._asdict() | {"people": people, "identity": room.identity.hex()}


def _person_object(person: RoomPerson) -> dict[str, Any]:
    fields = person._asdict()
    until_ms = fields.pop("until_ms")
    return fields | ({"until": rfc3339(until_ms)} if until_ms else {})


def user_object(user: User) -> dict[str, Any]:
    """Return an account's fields."""
    return user._asdict() | {"devices": [device.key for device in user.devices]}


def gap_object(gap: Gap) -> dict[str, Any]:
    """Return a gap: the room, and the two positions between which entries are missing."""
    reason = gap.reason.name.lower() if isinstance(gap.reason, GapReason) else str(gap.reason)
    place = {"after": _cursor(gap.start), "to": _cursor(gap.end), "reason": reason}
    return {"room": gap.room, "gap": place}


def _cursor(cursor: Cursor) -> dict[str, Any]:
    return {"epoch": cursor.epoch.hex(), "seq": cursor.seq}
