"""An operator's requests about accounts and rooms while the relay runs.

They go to the home of the account or room, like a client's request, but no device signs them, as
with ``relay user --data`` on a stopped relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from relay.chat import names
from relay.chat.accounts import answers
from relay.chat.accounts import requests as of_accounts
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import requests as of_rooms
from relay.chat.rooms.rights import Actor
from relay.errors import EnvelopeError
from relay.server.line_server import Handler, NotAnswered, Question, number_of, text_of
from relay.server.worker.home.accounts import open_invitations
from relay.server.worker.home.accounts.entries import OPERATOR
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.stored import stored_entry
from relay.store.errors import LogDamaged, StoreCorrupt, StoreError

if TYPE_CHECKING:
    from relay.bus.messages import Answered
    from relay.server.worker.home.accounts.names import NameRegistry
    from relay.server.worker.member.damage import DamageReports
    from relay.server.worker.member.queries import PendingQueries
    from relay.store.log import Reader

USERS: Final = 20
USERS_MAX: Final = 1000
USERS_PER_SLICE: Final = 5
"""Accounts to read before the loop continues: each has its own log."""
DAMAGED: Final = "damaged"
"""The state of an account whose log makes no sense."""
CONNECTION: Final = "ctl"
"""Used in the log instead of the id of a connection."""
ANSWER_S: Final = 2.5
"""Less than the timeout of the control process."""
_NOT_FOR_NOBODY: Final = (
    of_rooms.Create, of_rooms.Enter, of_rooms.Leave, of_rooms.Depart, of_rooms.List,
)  # fmt: skip
"""Requests that would give the requester a role in a room."""


class Administration:
    """Answers the requests for one worker."""

    def __init__(
        self,
        queries: PendingQueries,
        online: NameRegistry,
        owns: Callable[[int], bool],
        reader_at: Callable[[int], Reader],
        reader_of: Callable[[str], Reader],
        damage: DamageReports,
        first_invitation: bytes,
    ) -> None:
        """Create.

        Args:
            queries: carries requests to homes.
            online: knows who is logged in.
            owns: returns whether this worker is the home of a partition.
            reader_at: returns the reader of a partition.
            reader_of: returns the reader of a log.
            damage: reports accounts that cannot be read.
            first_invitation: hash of the invitation in the data directory; empty: none.
        """
        self._queries = queries
        self._online = online
        self._owns = owns
        self._reader_at = reader_at
        self._reader_of = reader_of
        self._damage = damage
        self._first_invitation = first_invitation

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers, by request."""
        return {
            "users": self._users,
            "invitations": self._invitations,
            "user": self._user,
            "room": self._room,
        }

    async def _users(self, question: Question) -> dict[str, Any]:
        """Return the accounts whose home is this worker, by name, after a given one.

        The total counts only what was examined: one more than requested, if there are more.
        """
        most = number_of(question, "limit", USERS, USERS_MAX)
        after = names.INBOX_PREFIX + text_of(question, "after")
        logs: list[str] = []
        try:
            for index in filter(self._owns, range(PARTITIONS)):
                # Nobody can be listed for a damaged partition: ``relay ctl status`` reports it.
                with contextlib.suppress(StoreCorrupt):
                    logs += self._reader_at(index).names(names.INBOX_PREFIX, after, most + 1)
                await asyncio.sleep(0)
            accounts = self._accounts()
            found = []
            for number, log in enumerate(sorted(logs)[:most], 1):
                handle = log[len(names.INBOX_PREFIX) :]
                found.append(self._shown(accounts, handle))
                if number % USERS_PER_SLICE == 0:
                    await asyncio.sleep(0)
        except StoreError as error:
            raise NotAnswered(f"accounts cannot be read now: {error}") from None
        return {"items": found, "total": min(len(logs), most + 1)}

    def _shown(self, accounts: AccountLogs, handle: str) -> dict[str, Any]:
        state, operator, devices = DAMAGED, False, 0
        try:
            account = accounts.account(handle)
        except LogDamaged as error:
            self._damage.report_log(error)
        else:
            shown = answers.unpack_shown(answers.packed_shown(account))
            state, operator, devices = shown.state, shown.operator, len(shown.devices)
        return {
            "name": handle,
            "state": state,
            "operator": operator,
            "devices": devices,
            "sessions": self._online.sessions(handle),
        }

    async def _invitations(self, question: Question) -> dict[str, Any]:
        """Return the usable invitations whose home is this worker.

        Those that expire first come first; the total is of all.
        """
        most = number_of(question, "limit", USERS, USERS_MAX)
        accounts = self._accounts()
        found: list[answers.Invitation] = []
        try:
            for index in filter(self._owns, range(PARTITIONS)):
                reader, now_ms = self._reader_at(index), int(time.time() * 1000)
                with contextlib.suppress(StoreCorrupt):  # as in the list of accounts
                    for some in open_invitations.parts_of(
                        index, reader, accounts, now_ms, self._damage.report_log
                    ):
                        found += some
                        await asyncio.sleep(0)
        except StoreError as error:
            raise NotAnswered(f"invitations cannot be read now: {error}") from None
        found.sort(key=lambda one: one.order)
        items = [
            {
                "id": one.token_hash.hex(),
                "expires_ms": one.expires_ms,
                "operator": one.operator,
                "by": one.by,
            }
            for one in found[:most]
        ]
        return {"items": items, "total": len(found)}

    async def _user(self, question: Question) -> str:
        """Make a request about an account. The answer is packed, as hexadecimal digits."""
        handle, content = _handle_of(question, "name"), _content_of(question)
        try:
            request = of_accounts.unpack(content)
        except EnvelopeError as error:
            raise NotAnswered(str(error)) from None
        if type(request) not in of_accounts.OF_OPERATORS:
            raise NotAnswered("operators cannot request that")
        return await self._ask(names.INBOX_PREFIX + handle, content, b"")

    async def _room(self, question: Question) -> str:
        """The same for a room."""
        room, content = names.normal(text_of(question, "name")), _content_of(question)
        if not names.is_room(room):
            raise NotAnswered("invalid room name")
        try:
            request, _ = of_rooms.unpack(content)
        except EnvelopeError as error:
            raise NotAnswered(str(error)) from None
        if isinstance(request, _NOT_FOR_NOBODY):
            raise NotAnswered("that is for somebody with an account: relay room")
        subject, person = b"", of_rooms.named(request)
        if names.is_handle(person):
            try:
                account = self._accounts().account(person)
            except StoreError as error:
                raise NotAnswered(f"the account cannot be read now: {error}") from None
            if account.chain is None:
                raise NotAnswered(f"there is no user {person}")
            subject = account.root
        return await self._ask(room, content, subject)

    def _accounts(self) -> AccountLogs:
        """Return states as of now: the cache of this object is not kept up to date."""
        return AccountLogs(self._reader_of, stored_entry, self._first_invitation)

    async def _ask(self, log: str, content: bytes, subject: bytes) -> str:
        reply = self._queries.ask(
            log, Actor(OPERATOR, b"", True), b"", content, subject, CONNECTION
        )
        if reply is None:
            raise NotAnswered("too many requests at once")
        came: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        reply.then(lambda answer: None if came.done() else came.set_result(answer))
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await came
        except TimeoutError:
            reply.abandoned = True
            raise NotAnswered(
                "its home does not answer: it is not known whether it was done"
            ) from None
        if answer.code:
            raise NotAnswered(answer.text or f"refused ({answer.code})")
        return answer.content.hex()


def _handle_of(question: Question, field: str) -> str:
    handle = names.normal(text_of(question, field))
    if not names.is_handle(handle):
        raise NotAnswered("invalid name")
    return handle


def _content_of(question: Question) -> bytes:
    try:
        return bytes.fromhex(text_of(question, "content"))
    except ValueError:
        raise NotAnswered("content: expected hexadecimal digits") from None
