"""Describes rooms and their changes for a person. No I/O."""

from __future__ import annotations

from typing import Final

from relay.client.events import Joined, RoomChanged
from relay.client.room_calls import ListedRoom, RoomInfo, RoomPerson
from relay.terminal.text import harmless_name, quoted
from relay.terminal.view import day_and_minute, sender_of

SHOWN_MAX: Final = 10
"""Rooms that a notice names."""
BY_ITSELF: Final = "relay"
"""The sender of what the server does by itself when something expires."""
_SPANS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_KINDS: Final = {
    "public": "public",
    "private": "private: by invitation",
    "announce": "for announcements: only owners and moderators write",
}


def change_notice(event: RoomChanged) -> str:
    """Return a description of a change."""
    who, person = sender_of(event), harmless_name(event.person)
    why = f": {quoted(event.text)}" if event.text else ""
    until = f" until {day_and_minute(event.until_ms)}" if event.until_ms else ""
    kind = _KINDS.get(event.kind, harmless_name(event.kind))
    listed = "" if event.listed or event.kind == "" else ", not in lists"
    match event.change:
        case "create":
            return f"{who} has created the room, {kind}{listed}"
        case "topic" if not event.text:
            return f"{who} has removed the topic"
        case "topic" | "title":
            return f"{who} has set the {event.change}{why}"
        case "kind":
            return f"{who} has made the room {kind}{listed}"
        case "role" if event.role == "none":
            return f"{who} has removed {person}'s role"
        case "role":
            return f"{who} has made {person} {_a_role(event.role)}"
        case "invite":
            return f"{who} has invited {person}"
        case "kick":
            return f"{who} has removed {person}{why}"
        case "ban":
            return f"{who} has banned {person}{until}{why}"
        case "mute":
            return f"{who} has muted {person}{until}{why}"
        case "free" if event.sender == BY_ITSELF:
            return f"time is up: {person} is no longer banned or muted"
        case "free":
            return f"{who} has lifted the ban or mute on {person}"
        case "close":
            return f"{who} has closed the room: nobody can write"
        case "reopen":
            return f"{who} has opened the room again"
        case "enter":
            return f"{who} is a member now"
        case "leave":
            return f"{who} is no longer a member"
        case "keep":
            return f"{who} has set that {keep_words(event.keep)}"
        case "delete":
            return f"{who} has deleted the room{why}"
        case _:
            return f"{who} has changed something that this version does not know"


def keep_words(keep: tuple[int, int, int]) -> str:
    """Return how long messages are kept."""
    age_s, messages, size = keep
    words = [_span(age_s)] if age_s else []
    words += [f"{messages:,} messages"] if messages else []
    words += [f"{size / (1 << 20):.4g} MiB"] if size else []
    return (
        f"{' and at most '.join(words)} are kept"
        if words
        else "messages are kept as the server's settings say"
    )


def _span(seconds: int) -> str:
    length, unit = next((length, unit) for length, unit in _SPANS if not seconds % length)
    count = seconds // length
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


def info_lines(room: RoomInfo) -> list[str]:
    """Return the state of a room."""
    closed = ", closed" if room.closed else ""
    listed = "" if room.listed else ", not in lists"
    lines = [f"{harmless_name(room.name)} is {_KINDS[room.kind]}{listed}{closed}"]
    if room.title:
        lines.append(f"title {quoted(room.title)}")
    if room.topic:
        lines.append(f"topic {quoted(room.topic)}")
    if any(room.keep):
        lines.append(keep_words(room.keep))
    lines += [person_line(person) for person in room.people]
    return lines


def person_line(person: RoomPerson) -> str:
    """Return the description of a user's role in a room."""
    words: list[str] = [person.role] if person.role != "none" else []
    words += ["muted"] if person.muted else []
    words += ["banned"] if person.banned else []
    until = f" until {day_and_minute(person.until_ms)}" if person.until_ms else ""
    return f"{harmless_name(person.name)}: {', '.join(words)}{until}"


def list_line(room: ListedRoom) -> str:
    """Return a room in a list."""
    role = f", you are {_a_role(room.role)}" if room.role != "none" else ""
    closed = ", closed" if room.closed else ""
    topic = f": {quoted(room.topic)}" if room.topic else ""
    title = f" {quoted(room.title)}" if room.title else ""
    count = "1 member" if room.members == 1 else f"{room.members} members"
    unread = f", {room.unread} unread" if room.unread else ""
    return f"{harmless_name(room.name)}{title} {room.kind}{closed}, {count}{role}{unread}{topic}"


def waiting_notices(rooms: list[ListedRoom], here: str) -> list[str]:
    """Return the notices about their rooms for a user who enters a room."""
    invited = [room.name for room in rooms if room.role == "invited"]
    unread = [
        f"{harmless_name(room.name)} ({room.unread})"
        for room in rooms
        if room.unread and room.role != "invited" and room.name != here
    ]
    lines = [f"unread: {_some(unread)}"] if unread else []
    if here in invited:
        invited.remove(here)
        lines.append("you are invited to this room: /member makes you a permanent member")
    if invited:
        lines.append(invited_notice(invited))
    return lines


def invited_notice(rooms: list[str], by: str = "") -> str:
    """Return the notice for an invited user, with how to accept."""
    who = f"{harmless_name(by)} has invited you to" if by else "invited to"
    some = _some([harmless_name(room) for room in rooms])
    return f"{who}: {some}; relay chat ADDRESS ROOM, and /member there"


def not_begun(room: str, *, guest: bool) -> str:
    """Return the notice for a user in a room without an entry: new, or a mistyped name."""
    otherwise = "without an owner (you are a guest)" if guest else "/private as one by invitation"
    return (
        f"there is no room {harmless_name(room)} yet: if you may create rooms here, the first"
        f" message begins it as a public one, {otherwise}"
    )


def out_of(room: str) -> str:
    """Return the notice for a user who was removed from the room of the chat."""
    return f"you are no longer in {harmless_name(room)}; /join follows it again, if you may"


def back_in(joined: Joined) -> str:
    """Return the notice for a user who has joined the room again."""
    here = harmless_name(joined.room)
    if joined.another:
        return f"in {here}, which is another room: the one before no longer exists"
    return f"in {here} again; /history shows what was said meanwhile"


def _some(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN_MAX} more" if len(words) > SHOWN_MAX else ""
    return ", ".join(words[:SHOWN_MAX]) + more


def _a_role(role: str) -> str:
    name = harmless_name(role)
    if role == "invited":
        return "invited"
    return f"an {name}" if role == "owner" else f"a {name}"


def is_member(change: RoomChanged, name: str, before: bool) -> bool:
    """Return True if a user is a permanent member after a change of the room."""
    if change.change == "enter" and change.sender == name:
        return True
    if change.change == "create":
        return change.sender == name
    if change.change == "delete" or (change.change == "leave" and change.sender == name):
        return False
    if change.person != name:
        return before
    if change.change == "role":
        return change.role not in ("none", "invited")
    return before and change.change not in ("kick", "ban", "invite")
