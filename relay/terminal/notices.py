"""What a client's events mean to a person, in words. Pure."""

from __future__ import annotations

from typing import Final

from relay.chat.entries import GapReason
from relay.client.events import (
    Event,
    Gap,
    Members,
    RosterChanged,
    State,
    StateChanged,
    Unfollowed,
)
from relay.terminal.text import harmless, harmless_name

_WHY_GAP: Final[dict[int, str]] = {
    GapReason.EPOCH: "the server lost them, or was restored from a backup",
    GapReason.AHEAD: "they come from another log than the server's",
    GapReason.RETENTION: "the server no longer holds them",
}


def notice_of(event: Event, presence: bool = True) -> str | None:
    """Return the notice for an event, or None if there is nothing to say about it.

    ``presence``: also say who comes and goes.
    """
    if isinstance(event, StateChanged):
        return _state_notice(event)
    if isinstance(event, Gap):
        why = _WHY_GAP.get(event.reason, f"reason {event.reason}")
        return f"messages {event.start.seq + 1} to {event.end.seq} are missing: {why}"
    if isinstance(event, Unfollowed):
        return f"no longer in {harmless_name(event.log)}: {event.detail}"
    if isinstance(event, RosterChanged) and presence:
        return _roster_notice(event)
    return None


def _state_notice(event: StateChanged) -> str | None:
    match event.state:
        case State.ONLINE:
            return "online"
        case State.WAITING:
            return f"connection lost: {event.detail or 'no word'}; reconnecting"
        case State.CLOSED if event.detail:
            return f"closed: {event.detail}"
        case _:
            return None


def _roster_notice(event: RosterChanged) -> str | None:
    came = [f"{person(member.name, member.display)} is here" for member in event.joined]
    went = [f"{harmless_name(name)} left" for name in event.left]
    return ", ".join(came + went) or None


def members_notice(members: Members) -> str:
    """Return the answer to "who is here?"."""
    names = [person(member.name, member.display) for member in members.members]
    more = members.total - len(names)
    count = "1 person" if members.total == 1 else f"{members.total} people"
    listed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    return f"{count} in {harmless_name(members.log)}: {listed}"


def person(name: str, display: str) -> str:
    """Return a handle, with the display name behind it if there is another one."""
    handle = harmless_name(name)
    return f"{handle} ({harmless(display)})" if display and display != name else handle
