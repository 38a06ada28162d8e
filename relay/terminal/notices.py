"""A client's events as sentences for a person. No I/O."""

from __future__ import annotations

from typing import Final

from relay.chat.entries import GapReason
from relay.client.account_calls import Preferences
from relay.client.events import (
    DeviceWarning,
    Event,
    Gap,
    Members,
    Postponed,
    RoomChanged,
    RosterChanged,
    State,
    StateChanged,
    Unfollowed,
)
from relay.client.lists import EMPTY_PAGES_MAX
from relay.terminal.room_notices import change_notice
from relay.terminal.text import harmless_name, quoted

_WHY_GAP: Final[dict[int, str]] = {
    GapReason.EPOCH: "the server lost them, or was restored from a backup",
    GapReason.AHEAD: "the server lost them, was restored from a backup, or is another one",
    GapReason.RETENTION: "the server no longer has them",
    GapReason.DAMAGED: "what the server has stored of them is damaged",
}

_WHY_AWAY: Final = {
    "GOING_AWAY": "the server is shutting down or restarting",
    "INTERNAL": "internal error of the server",
    "IDLE": "the connection was silent for too long",
    "TOO_SLOW": "this side read too slowly",
    "OVERLOADED": "the server has too many connections",
    "LOGIN_TIMEOUT": "the login took too long",
    "LOGIN_UNAVAILABLE": "the server cannot look up your account now",
}
"""The close codes after which the client comes back by itself. The protocol's own words for them
speak to authors of clients ("connect again"), and a person would take them for an order."""

_OTHERS_NAMED_MAX: Final = 10
"""So many of those who are in a room are named to whoever enters; ``/who`` names more."""


class Narrator:
    """Tells what happens, and only what is news: remembers what it told of the connection."""

    def __init__(self, me: str | None = None) -> None:
        """Leave out the coming and going of ``me``; with None, of everybody."""
        self._me = me
        self._problem: str | None = None
        """Why there is no connection, as it was told; None: there is one."""

    def notice_of(self, event: Event) -> str | None:
        """Return the notice for an event, or None if there is nothing to tell."""
        if isinstance(event, StateChanged):
            return self._state(event)
        if isinstance(event, RosterChanged) and self._me is not None:
            return self._roster(event)
        if isinstance(event, RoomChanged):
            return change_notice(event)
        if isinstance(event, Gap):
            return _gap(event)
        if isinstance(event, Postponed):
            why = f": {quoted(event.detail)}" if event.detail else ""
            direct = event.room.startswith("@")  # all of them are numbered by one's own inbox
            what = "direct messages" if direct else f"messages in {harmless_name(event.room)}"
            return f"waiting: the server cannot store {what}{why}"
        if isinstance(event, DeviceWarning):
            return (
                f"WARNING about {harmless_name(event.name)}: {event.detail}. Do not trust what is"
                " written under this name until you have asked them in another way; /accept in a"
                " chat, or 'relay device accept', shows what has changed"
            )
        if isinstance(event, Unfollowed):
            return f"no longer in {harmless_name(event.room)}: {event.detail}"
        return None

    def _state(self, event: StateChanged) -> str | None:
        if event.state is State.WAITING:
            told, self._problem = self._problem, event.detail
            if told == event.detail:
                return None
            return f"reconnecting: {_why_away(event.detail)}"
        if event.state is State.ONLINE and self._problem is not None:
            self._problem = None
            return "reconnected"
        return None

    def _roster(self, event: RosterChanged) -> str | None:
        came = [
            f"{person(member.name, member.display)} is here"
            for member in event.joined
            if member.name != self._me
        ]
        went = [f"{harmless_name(name)} left" for name in event.left if name != self._me]
        return ", ".join(came + went) or None


def _why_away(detail: str) -> str:
    """Return why the client waits, in a person's words; a code's name stays, to be searched for."""
    name = detail.partition(":")[0]
    if name in _WHY_AWAY:
        return f"{_WHY_AWAY[name]} ({name})"
    return detail or "the connection was lost"


def _gap(gap: Gap) -> str:
    why = _WHY_GAP.get(gap.reason, f"reason {int(gap.reason)}")
    what = "direct message" if gap.room.startswith("@") else "message"
    if gap.start.epoch != gap.end.epoch:
        return f"{what}s after {gap.start.seq} are missing: {why}"
    if gap.start.seq > gap.end.seq:  # the log ends before what was seen of it
        return f"{_range(what, gap.end.seq + 1, gap.start.seq)} not in the log any more: {why}"
    return f"{_range(what, gap.start.seq + 1, gap.end.seq)} missing: {why}"


def _range(what: str, first: int, last: int) -> str:
    return f"{what} {first} is" if first == last else f"{what}s {first} to {last} are"


def members_notice(members: Members) -> str:
    """Return the answer to "who is here?"."""
    if not members.total:  # one's own connection was left out
        return f"nobody else is in {harmless_name(members.room)}"
    names = [person(member.name, member.display) for member in members.members]
    more = members.total - len(names)
    count = "1 person" if members.total == 1 else f"{members.total} people"
    listed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    return f"{count} in {harmless_name(members.room)}: {listed}"


def others_notice(members: Members, me: str) -> str | None:
    """Return who else is in a room that one has just entered; None: nobody."""
    others = [person(one.name, one.display) for one in members.members if one.name != me]
    if not others:
        return None
    names = others[:_OTHERS_NAMED_MAX]
    more = max(members.total - 1, len(others)) - len(names)
    return f"also here: {', '.join(names)}" + (f" and {more} more" if more else "")


def person(name: str, display: str) -> str:
    """Return a handle, followed by the display name in quotes if that is another one."""
    handle = harmless_name(name)
    return f"{handle} {quoted(display)}" if display and display != name else handle


def not_indexed(indexed: int) -> str:
    """Return what a search tells that has not looked at all messages."""
    return f"the search index is behind: messages after number {indexed} were not searched"


def looked_back_to(seq: int) -> str:
    """Return what is told where a search was given up that found nothing for long."""
    return (
        f"nothing was found in {EMPTY_PAGES_MAX} pages: messages before number {seq} were "
        "not searched"
    )


def choices(found: Preferences) -> str:
    """Return what somebody has chosen about direct messages and their last visit."""
    return f"direct messages from {found.writers}, last seen visible to {found.seen_by}"


def number_of_messages(count: int) -> str:
    """Return how many messages there are, in words."""
    return "1 message" if count == 1 else f"{count} messages"
