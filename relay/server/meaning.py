"""Checks that what is stored of accounts, invitations and rooms means something.

A file can be intact although the entries that a state follows from do not: a disk has altered a
link of a device chain, or a newer Relay has written it. A running relay finds this when it needs
the log, and does not verify the signatures again; this checks everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relay.chat.accounts import account as accounts
from relay.chat.accounts import events, invitation, links, snapshot
from relay.chat.accounts.account import Account
from relay.chat.accounts.events import Created, InvitationEvent, Linked
from relay.chat.accounts.invitation import Invitation
from relay.chat.accounts.links import LinkError
from relay.chat.entries import Entry
from relay.chat.names import INBOX_PREFIX, is_room
from relay.chat.rooms import events as room_events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.state import Room
from relay.errors import EnvelopeError
from relay.store.examine import Controls
from relay.wire.device_keys import verify

OTHER_STATE: Final = "its stored state contradicts its entries"


def meaningless(logs: Iterable[Controls]) -> list[tuple[str, str]]:
    """Return the logs whose states cannot be relied on, each with the reason."""
    found = ((one.log, _of_room(one) if is_room(one.log) else _of_account(one)) for one in logs)
    return [(log, reason) for log, reason in found if reason]


def _of_room(one: Controls) -> str:
    room = Room()
    for entry in _of_type(one, room_events.CONTENT_TYPE):
        try:
            event = room_events.unpack(entry.body)
        except EnvelopeError as error:
            return f"entry {entry.seq}: {error}"
        room = rooms.applied(room, event, entry.sender, entry.seq)
    if one.state:
        stored = rooms.unpack(one.state)
        if _effect(stored) != _effect(_as_noted(room, stored)):
            return OTHER_STATE
    return ""


def _as_noted(room: Room, stored: Room) -> Room:
    """Return a state without what earlier versions did not note: who has not entered."""
    known = stored.people
    people = {
        name: one._replace(given=False) if name in known and not known[name].given else one
        for name, one in room.people.items()
    }
    return room._replace(people=people)


def _effect(room: Room) -> tuple[object, ...]:
    """Return what a state means for people.

    The other fields tell since when, and versions differ in them. Of a deleted room retention
    removes the entries that told the rest.
    """
    if room.deleted:
        return (True,)
    people = {name: one._replace(seq=0) for name, one in room.people.items() if one.matters}
    return (
        room.created, room.kind, room.listed, room.title, room.topic, room.closed, room.keep, people
    )  # fmt: skip


def _of_account(one: Controls) -> str:
    account, invited = Account(one.log.removeprefix(INBOX_PREFIX)), Invitation()
    is_account = one.log.startswith(INBOX_PREFIX)
    for entry in _of_type(one, events.CONTENT_TYPE):
        try:
            event = events.unpack(entry.body)
            if isinstance(event, Created | Linked) and not links.parse(event.link).verified(verify):
                return f"entry {entry.seq}: a link with a wrong signature"
            if isinstance(event, InvitationEvent):
                invited = invitation.applied(invited, event)
                fits = not is_account
            else:
                account = accounts.applied(account, event)
                held = account.chain
                fits = is_account and (held is None or held.handle == account.handle)
        except (EnvelopeError, LinkError) as error:
            return f"entry {entry.seq}: {error}"
        if not fits:
            return f"entry {entry.seq} is about something else"
        if entry.seq == one.state_seq and snapshot.pack(account) != one.state:
            return OTHER_STATE
    return ""


def _of_type(one: Controls, content_type: str) -> list[Entry]:
    return [entry for entry in one.entries if entry.content_type == content_type]
