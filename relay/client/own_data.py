"""Exports or erases all data of a user, step by step.

Without I/O, for both clients: each function yields a request or a send, receives the answer (or a
raised refusal), and yields what it finds in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from relay import limits
from relay.chat.accounts import answers, requests
from relay.chat.entries import Cursor
from relay.client import account_calls, arguments, lists, offers
from relay.client.account_calls import Devices, Preferences, User
from relay.client.arguments import ME
from relay.client.devices.chain_check import ChainReading
from relay.client.devices.proof import server_id_bytes
from relay.client.errors import ClientError
from relay.client.events import (
    Edit,
    Erased,
    HistoryPage,
    LogEntry,
    Message,
    Reaction,
    Redaction,
)
from relay.client.lists import Question, Questions
from relay.client.pending_sends import Offer
from relay.client.refusals import (
    AlreadyJoined,
    Banned,
    Busy,
    KickedOut,
    MembersOnly,
    NoSuchEntry,
    NoSuchRoom,
    NotAMember,
    Refused,
    StoreDamaged,
    Unavailable,
    UnknownOutcome,
)
from relay.client.room_calls import ListedRoom, checked_room

if TYPE_CHECKING:
    from relay.client.chat_state import ChatState


class ReadUpTo(NamedTuple):
    """A read mark."""

    room: str
    """The room's name; or ``@`` and a name, for the direct messages with that user."""
    cursor: Cursor


class Deleted(NamedTuple):
    """What happened to the messages of a deleted account."""

    erased: int
    """Messages, edits and reactions."""
    refused: int
    """Number of those that could not be erased: in closed rooms, for example."""


OwnData: TypeAlias = User | Devices | Preferences | ReadUpTo | ListedRoom | LogEntry
"""What ``export`` finds."""


class Pause(NamedTuple):
    """A step in which others have their turn."""


PAUSE: Final = Pause()
Step: TypeAlias = Question | Offer | OwnData | Deleted | Pause
Each: TypeAlias = Callable[[LogEntry], Generator[Step, Any, None]]
_EXPORTED: Final = (Message, Edit, Redaction, Reaction, Erased)
_ERASABLE: Final = (Message, Edit, Reaction)
_UNREADABLE: Final = (MembersOnly, Banned, KickedOut, NotAMember, NoSuchRoom)
_PASSING: Final = (Busy, Unavailable, StoreDamaged, UnknownOutcome)
"""Refusals of what can be erased later. Any other refusal is counted, whatever a room or the other
participant has chosen: nobody can prevent a user from deleting the account."""


class Played:
    """Steps that a client carries out one after the other; it records the result of each here."""

    def __init__(self, steps: Generator[Step, Any, None]) -> None:
        """Create before the first step."""
        self._steps = steps
        self.answer: Any = None
        """The answer to the last request or send."""
        self.refused: Refused | None = None
        """Why it was refused; None: it was not."""

    def next(self) -> Step | None:
        """Return the next step: a request, a send, or something found; None: there are no more."""
        answer, self.answer = self.answer, None
        refused, self.refused = self.refused, None
        try:
            return self._steps.send(answer) if refused is None else self._steps.throw(refused)
        except StopIteration:
            return None


class OwnRooms:
    """The rooms whose pages are read, each followed only for that time."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        """Create. ``more``: rooms that are in no list, and in which the user has no role.

        Raises:
            NameInvalid, TypeError: they are not names of rooms.
        """
        self._more = tuple(checked_room(one) for one in arguments.several("rooms", more))
        self.following: str | None = None
        """A room that must be left if this is abandoned."""

    def give_up(self, chat: ChatState) -> bool:
        """Abandon the steps. Return True if a room that was being read is now left."""
        if self.following is None:
            return False
        try:
            chat.leave(self.following, None)
        except ClientError:
            return False
        return True

    def exported(self, who: Callable[[], tuple[str, str | None]]) -> Generator[Step, Any, None]:
        """Find all data of a user: the account first, messages last.

        Args:
            who: returns the user's name, and the id of the server. It is called after the server
                has answered: a client that is still connecting knows neither.
        """
        user: User = yield _of_account(requests.Show(), partial(account_calls.as_user, ""))
        name, server = who()
        assert server is not None
        user = user._replace(name=name)
        yield user
        links = yield from lists.links(name)
        reading = ChainReading(links, name, server_id_bytes(server))
        while not reading.advance():
            yield PAUSE
        chain = reading.chains[-1]
        labels = {one.key: one.label for one in user.devices}
        devices = account_calls.as_devices(chain, {})
        labelled = [one._replace(label=labels.get(one.key, "")) for one in devices.devices]
        yield devices._replace(devices=tuple(labelled))
        yield (yield from preferences())
        for room, cursor in (yield from lists.read_marks()).items():
            yield ReadUpTo(room, cursor)
        rooms = yield from lists.rooms(mine=False, whole=True)
        for one in rooms:
            if one.role != "none":
                yield one
        yield from self._read(ME, _found)
        for room in self._names(rooms):
            yield from self._read(room, partial(_found_of, name))

    def erased(self, who: Callable[[], str]) -> Generator[Step, Any, None]:
        """Erase a user's messages, in rooms and in direct messages; find a ``Deleted``.

        Args:
            who: returns the user's name, once the server has answered.
        """
        count = [0, 0]

        def erase(entry: LogEntry) -> Generator[Step, Any, None]:
            if isinstance(entry, _ERASABLE) and entry.sender == who():
                try:
                    yield offers.redaction(entry, "")
                except NoSuchEntry:
                    return  # erased with its target
                except _PASSING:
                    raise
                except Refused:
                    count[1] += 1
                else:
                    count[0] += 1

        for room in (*self._names((yield from lists.rooms(mine=False, whole=True))), ME):
            yield from self._read(room, erase)
        yield Deleted(*count)

    def _names(self, rooms: list[ListedRoom]) -> list[str]:
        return list(dict.fromkeys((*(one.name for one in rooms), *self._more)))

    def _read(self, room: str, each: Each) -> Generator[Step, Any, None]:
        """Read all of a room from its beginning; nothing if that is not allowed."""
        try:
            yield lambda chat, token: chat.join(room, None, 0, token, own_queue=True)
            self.following = room
        except AlreadyJoined:
            pass
        except _UNREADABLE:
            return
        try:
            after, end = 0, False
            while not end:
                page: HistoryPage = yield _page(room, after)
                for entry in page.entries:
                    if isinstance(entry, LogEntry):
                        yield from each(entry)
                # a malicious server must not cause endless requests
                end = page.end or page.next <= after
                after = page.next
        except _UNREADABLE:
            pass  # removed from the room meanwhile
        if self.following is not None:
            self.following = None
            with contextlib.suppress(NotAMember):
                yield lambda chat, token: _leave(chat, room, token)


def preferences() -> Questions[Preferences]:
    """Request a user's settings, and return them."""
    wanted: Preferences = yield _of_account(requests.Preferences(), account_calls.as_preferences)
    keep = yield _of_account(requests.Keep(), answers.unpack_keep)
    return wanted._replace(keep=keep)


def delete() -> Question:
    """Request the deletion of this account."""
    return _of_account(requests.Remove(), bytes)


def _of_account(request: requests.Request, read: Callable[[bytes], Any]) -> Question:
    return lambda chat, token: chat.ask_account("", request, token, read)


def _leave(chat: ChatState, room: str, token: object) -> None:
    chat.leave(room, token)


def _page(room: str, after: int) -> Question:
    most = limits.PAGE_ENTRIES_MAX
    return lambda chat, token: chat.history(room, True, after, most, token)


def _found(entry: LogEntry) -> Generator[Step, Any, None]:
    if isinstance(entry, _EXPORTED):
        yield entry


def _found_of(name: str, entry: LogEntry) -> Generator[Step, Any, None]:
    if entry.sender == name:
        yield from _found(entry)
