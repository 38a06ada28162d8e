"""Calls of a client about single entries and people: edits, reactions, marks, blocks."""

from __future__ import annotations

from typing import cast

from relay.chat.accounts import answers, requests
from relay.chat.accounts.answers import Seen
from relay.chat.entries import Cursor
from relay.client import account_calls, arguments, lists, offers, own_data
from relay.client.account_calls import Preferences, Writers
from relay.client.aio.accounts import AsyncAccounts
from relay.client.events import LogEntry, Stored


class AsyncDirect(AsyncAccounts):
    """The calls of a client about messages that are there, and direct ones."""

    # --- about a message -------------------------------------------------------------------------
    async def edit(
        self,
        message: LogEntry,
        body: str | bytes,
        *,
        content_type: str = "text/plain",
        timeout: float | None = None,
    ) -> Stored:
        """Give a message of one's own another body. Readers get an ``Edit``; the first body stays.

        Args:
            message: from an event, or from a page of history.
            body: text, or bytes.
            content_type: of the body, at most 64 bytes.
            timeout: seconds; None: no limit.

        Raises:
            Refused: NotAllowed, for somebody else's message; NoSuchEntry, ...
            MessageTooLong: nothing was sent.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return await self._append(offers.edit(message, body, content_type), timeout)

    async def redact(
        self,
        message: LogEntry,
        reason: str = "",
        *,
        timeout: float | None = None,
    ) -> Stored:
        """Erase a message, an edit or a reaction; with a message, its edits.

        One's own, or in a room where one moderates those of people of a lower rank.

        Readers get a ``Redaction``. The server forgets the body, and serves an ``Erased`` in its
        place from then on. What others have got before, they have.

        Args:
            message: from an event, or from a page of history.
            reason: text that everybody sees.
            timeout: seconds; None: no limit.

        Raises:
            Refused: NotAllowed, for what one may not erase; NoSuchEntry, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return await self._append(offers.redaction(message, reason), timeout)

    async def react(
        self,
        message: LogEntry,
        text: str,
        *,
        timeout: float | None = None,
    ) -> Stored:
        """React to a message, with an emoji or a short word. ``redact`` takes a reaction back.

        Args:
            message: from an event, or from a page of history.
            text: at most 32 bytes.
            timeout: seconds; None: no limit.

        Raises:
            Refused: NoSuchEntry, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return await self._append(offers.reaction(message, text), timeout)

    # --- what was read ---------------------------------------------------------------------------
    async def mark_read(self, message: LogEntry, *, timeout: float | None = None) -> Stored:
        """Tell one's other devices that one has read up to a message, and with it all before it.

        They get a ``ReadMark`` if they follow the inbox. Nobody else is told.

        Args:
            message: of a room, or a direct one: then of what was exchanged with that person.
            timeout: seconds; None: no limit.

        Raises:
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return await self._append(offers.read_mark(message), timeout)

    async def read_marks(self, *, timeout: float | None = None) -> dict[str, Cursor]:
        """Return up to where one has read, by room, and by ``@name`` for direct messages.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return await self._in_parts(lists.read_marks(), timeout)

    # --- from whom -------------------------------------------------------------------------------
    async def block(self, name: str, *, timeout: float | None = None) -> None:
        """Take no more direct messages of somebody. They are not told that they are blocked.

        Args:
            name: of the account. A later account of this name is another one.
            timeout: seconds; None: no limit.

        Raises:
            Refused: NotRegistered, LimitReached, ...
            DeviceChainError: the server gave a false list of devices.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        chain = await self._device_chain(who, timeout)
        await self._ask_account("", requests.Block(who, chain.root), timeout)

    async def unblock(self, name: str, *, timeout: float | None = None) -> None:
        """Take direct messages of somebody again.

        Args:
            name: of the account.
            timeout: seconds; None: no limit.

        Raises:
            Refused: ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        await self._ask_account("", requests.Unblock(who), timeout)

    async def last_seen(self, name: str, *, timeout: float | None = None) -> Seen:
        """Return whether somebody is here, and when they came or last left, if they let one know.

        Args:
            name: of the account.
            timeout: seconds; None: no limit.

        Raises:
            Refused: NotRegistered, NotAllowed for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        request, read = requests.LastSeen(), answers.unpack_seen
        return cast(Seen, await self._ask_account(who, request, timeout, read))

    async def preferences(self, *, timeout: float | None = None) -> Preferences:
        """Return who may write to one, whom one blocks, and how long the inbox keeps messages.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return await self._in_parts(own_data.preferences(), timeout)

    async def set_preferences(
        self,
        *,
        writers: Writers | None = None,
        seen_by: Writers | None = None,
        keep: tuple[int, int, int] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Choose who may write to one, who is told when one was last here, and what is kept.

        Args:
            writers: "all", "known" (those to whom one has written), "rooms" (these, and members of
                a room in which one is a lasting member) or "nobody"; None: as it is.
            seen_by: likewise.
            keep: how long one's inbox keeps messages: seconds, messages, bytes; 0: as in the
                server's settings, which may bound what one can choose.
            timeout: seconds; None: no limit.

        Raises:
            ValueError, TypeError: another word, or no bounds.
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        account_calls.check_writers(writers, seen_by)
        kept = None if keep is None else account_calls.set_keep(keep)
        now = await self.preferences(timeout=arguments.seconds_or_none("timeout", timeout))
        if writers or seen_by:
            request = account_calls.prefer(writers or now.writers, seen_by or now.seen_by)
            await self._ask_account("", request, timeout)
        if kept is not None:
            await self._ask_account("", kept, timeout)
