"""Paginated answers: which page to request next, and when to stop.

Without I/O, for both clients: each function is a generator that yields one request after the other
and receives the decoded answer to each. A page that makes no progress is a protocol error, like one
that cannot be decoded: otherwise a malicious server could make its client send requests for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from relay.chat import names
from relay.chat.accounts import answers
from relay.chat.accounts import requests as account_requests
from relay.chat.accounts.chain import LINKS_MAX
from relay.chat.entries import Cursor
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms import shown
from relay.client import room_calls
from relay.client.events import HistoryPage, SearchPage
from relay.client.refusals import StoreDamaged
from relay.client.room_calls import ListedRoom, RoomInfo
from relay.codec import names_of
from relay.errors import EnvelopeError

if TYPE_CHECKING:
    from relay.client.chat_state import ChatState, Read
    from relay.client.events import LogEntry, RoomChanged

EMPTY_PAGES_MAX: Final = 200
"""How many consecutive empty pages of a history or a search one call skips. A page of a search
covers 65,536 entries, or as many matches as were requested, which may all be erased or belong to
another conversation. A malicious server could send empty pages for ever, each slightly lower."""
LIST_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of the pages of one list: as a server sends them, which is less than what is made of them. An
honest list of 300,000 rooms with long topics has as much. Those of a malicious server lead on for
ever, each a little ahead."""
PAGE_BYTES: Final = 64
"""What a page counts besides its content."""
BEHIND_ALL: Final = "~"
"""Sorts after the name of every room."""
Result = TypeVar("Result")
Question: TypeAlias = Callable[["ChatState", object], None]
"""Sends a request; the second argument is the token that gets the decoded answer."""
Questions: TypeAlias = Generator[Question, Any, Result]


class _Pages:
    """Those of one list, and how much more there may be."""

    def __init__(self) -> None:
        self._left = LIST_BYTES_MAX

    def reading(self, read: Callable[[bytes], Result]) -> Callable[[bytes], Result]:
        """Return what reads the next page, as ``read`` does.

        It raises EnvelopeError, like a page that cannot be decoded, if there was too much before.
        """

        def counted(data: bytes) -> Result:
            self._left -= len(data) + PAGE_BYTES
            if self._left < 0:
                raise EnvelopeError("a list that does not end")
            return read(data)

        return counted


def _of_accounts(request: account_requests.Request, read: Read) -> Question:
    return lambda chat, token: chat.ask_account("", request, token, read)


def _of_rooms(room: str, request: room_requests.Request, read: Read) -> Question:
    return lambda chat, token: chat.ask_room(room, request, 0, token, read)


def account_names() -> Questions[list[str]]:
    """Return the names of all accounts, sorted; damaged partitions are left out."""
    found: list[str] = []
    pages = _Pages()
    for partition in range(PARTITIONS):
        some = [""]
        with contextlib.suppress(StoreDamaged):
            while some:
                after = some[-1]
                request = account_requests.ListNames(partition, after)
                some = yield _of_accounts(request, pages.reading(partial(_names, after)))
                found += some
    return sorted(found)


def _names(after: str, data: bytes) -> list[str]:
    some = names_of(data)
    _check_names(some, names.is_handle)
    _check_ahead(after, some[-1] if some else None)
    return some


def open_invitations() -> Questions[list[answers.Invitation]]:
    """Return the invitations that can still be used; damaged partitions are left out."""
    found: list[answers.Invitation] = []
    pages = _Pages()
    for partition in range(PARTITIONS):
        after, end = "", False
        with contextlib.suppress(StoreDamaged):
            while not end:
                request = account_requests.ListInvitations(partition, after)
                part = yield _of_accounts(request, pages.reading(partial(_invitations, after)))
                found += part.some
                after, end = part.after, not part.after
    return found


def _invitations(after: str, data: bytes) -> answers.Invitations:
    part = answers.unpack_invitations(data)
    _check_ahead(after, part.after or None)
    return part


def links(name: str) -> Questions[list[bytes]]:
    """Return the links of an account's device chain, at most as many as a chain can have."""
    found: list[bytes] = []
    end = False
    while not end and len(found) < LINKS_MAX:
        some, end = yield _links(name, len(found))
        end = end or not some
        found += some
    return found


def _links(name: str, first: int) -> Question:
    return lambda chat, token: chat.ask_devices(name, first, token)


def read_marks() -> Questions[dict[str, Cursor]]:
    """Return the account's read marks, by room and by ``@name``."""
    found: dict[str, Cursor] = {}
    pages = _Pages()
    after, end = "", False
    while not end:
        request = account_requests.Marks(after)
        some, end = yield _of_accounts(request, pages.reading(partial(_marks, after)))
        found |= {log: Cursor(epoch, seq) for log, epoch, seq in some}
        after = some[-1][0] if some else after
    return found


def _marks(after: str, data: bytes) -> tuple[list[tuple[str, bytes, int]], bool]:
    some, end = answers.unpack_marks(data)
    end = end or not some
    _check_ahead(after, None if end else some[-1][0])
    return some, end


def rooms(*, mine: bool, whole: bool = False) -> Questions[list[ListedRoom]]:
    """Return the rooms visible to the account, sorted by name.

    Args:
        mine: only those in which it has a role. The number of requests depends on these alone,
            however many other rooms there are.
        whole: raise StoreDamaged instead of leaving out rooms with damaged data.
    """
    if mine:
        if whole:
            for partition in range(PARTITIONS):
                request = room_requests.List(partition, BEHIND_ALL)
                yield _of_rooms("", request, partial(_rooms, BEHIND_ALL))
        own = yield from _own_rooms()
        return list(own.values())
    found: list[shown.Listed] = []
    pages = _Pages()
    for partition in range(PARTITIONS):
        after, end = "", False
        try:
            while not end:
                request = room_requests.List(partition, after)
                read = pages.reading(partial(_rooms, after))
                some, after, end = yield _of_rooms("", request, read)
                found += some
        except StoreDamaged:
            if whole:
                raise
    own = yield from _own_rooms()
    seen = {one.name: room_calls.as_listed(one) for one in found}
    return [room for _, room in sorted((seen | own).items())]


def _own_rooms() -> Questions[dict[str, ListedRoom]]:
    found: dict[str, ListedRoom] = {}
    pages = _Pages()
    after, end = "", False
    while not end:
        read = pages.reading(partial(_own, after))
        some, after, end = yield _of_rooms("", room_requests.Mine(after), read)
        found |= {one.room.name: room_calls.as_listed(one.room, one.unread) for one in some}
    return found


def _own(after: str, data: bytes) -> tuple[list[shown.Own], str, bool]:
    some, last, end = shown.unpack_own(data)
    _check_names((one.room.name for one in some), names.is_room)
    _check_ahead(after, None if end else last)
    return some, last, end


def _rooms(after: str, data: bytes) -> tuple[list[shown.Listed], str, bool]:
    some, last, end = shown.unpack_list(data)
    _check_names((one.name for one in some), names.is_room)
    _check_ahead(after, None if end else last)
    return some, last, end


def room_state(name: str) -> Questions[RoomInfo]:
    """Return the state of a room."""
    parts: list[shown.Shown] = []
    pages = _Pages()
    after = ""
    while not parts or not parts[-1].end:
        read = pages.reading(partial(_people, after))
        part = yield _of_rooms(name, room_requests.Show(after), read)
        parts.append(part)
        after = max(part.room.people, default="")
    return room_calls.as_info(name, parts)


def _people(after: str, data: bytes) -> shown.Shown:
    part = shown.unpack(data)
    _check_ahead(after, None if part.end else max(part.room.people, default=""))
    return part


def _check_names(listed: Iterable[str], is_legal: Callable[[str], bool]) -> None:
    """Check the names in a list: the next request about one would be refused as the caller's fault.

    Raises:
        EnvelopeError: one is invalid.
    """
    if not all(map(is_legal, listed)):
        raise EnvelopeError("a list with an invalid name")


def _check_ahead(after: str, last: str | None) -> None:
    """Check that a page, which ends with ``last``, makes progress. None: it is the last page.

    Raises:
        EnvelopeError: it does not.
    """
    if last is not None and last <= after:
        raise EnvelopeError("a page of a list that makes no progress")


def is_last_page(page: HistoryPage | SearchPage, before: int | None) -> bool:
    """Return True if no page follows this one, which was requested ``before`` (None: newest).

    Pages of a malicious server that make no progress end the list as well.
    """
    return page.end or page.next <= 1 or (before is not None and page.next >= before)


def holes(entries: Sequence[LogEntry | RoomChanged]) -> int:
    """Return in how many places entries are missing between consecutive ones of a room.

    A server leaves out of a page what it has stored and cannot read.
    """
    return sum(later.prev > earlier.seq for earlier, later in pairwise(entries))
