# Generated from relay/client/aio by `python -m tests.blocking_client`: edit that.
"""Calls of a client about single entries and other users: edits, reactions, marks, blocks."""

from __future__ import annotations

from typing import cast

from relay.chat.accounts import answers, requests
from relay.chat.accounts.answers import Seen
from relay.chat.entries import Cursor
from relay.client import account_calls, arguments, lists, offers, own_data
from relay.client.account_calls import Preferences, Writers
from relay.client.blocking.accounts import BlockingAccounts
from relay.client.events import LogEntry, Stored


class BlockingDirect(BlockingAccounts):
    """The calls of a client about existing messages, and direct ones."""

    # --- about a message -------------------------------------------------------------------------
    def edit(
        self,
        message: LogEntry,
        body: str | bytes,
        *,
        content_type: str = "text/plain",
        timeout: float | None = None,
    ) -> Stored:
        """Replace the body of a message of this account. Readers get an ``Edit``; the original
        stays.

        Args:
            message: from an event, or from a page of history.
            body: text, or bytes.
            content_type: of the body, at most 64 bytes.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, for a message of another account; NoSuchEntry, ...
            MessageTooLong: nothing was sent.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return self._append(offers.edit(message, body, content_type), timeout)

    def redact(
        self,
        message: LogEntry,
        reason: str = "",
        *,
        timeout: float | None = None,
    ) -> Stored:
        """Erase a message, an edit or a reaction; a message is erased with its edits.

        It must belong to this account, or be in a room that it moderates, by a member of lower
        rank. Readers get a ``Redaction``. The server erases the body, and serves an ``Erased`` in
        its place from then on. Clients that received it before still have it.

        Args:
            message: from an event, or from a page of history.
            reason: text that everybody can see.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, if this account may not erase it; NoSuchEntry, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return self._append(offers.redaction(message, reason), timeout)

    def react(
        self,
        message: LogEntry,
        text: str,
        *,
        timeout: float | None = None,
    ) -> Stored:
        """React to a message, with an emoji or a short word. ``redact`` removes a reaction.

        Args:
            message: from an event, or from a page of history.
            text: at most 32 bytes.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NoSuchEntry, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return self._append(offers.reaction(message, text), timeout)

    # --- what was read ---------------------------------------------------------------------------
    def mark_read(self, message: LogEntry, *, timeout: float | None = None) -> Stored:
        """Mark a message, and all before it, as read, for the other devices of this account.

        They get a ``ReadMark`` if they follow the inbox. Nobody else is told.

        Args:
            message: of a room, or a direct one: then the mark is for the messages with that person.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return self._append(offers.read_mark(message), timeout)

    def read_marks(self, *, timeout: float | None = None) -> dict[str, Cursor]:
        """Return this account's read marks, by room, and by ``@name`` for direct messages.

        Args:
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return self._in_parts(lists.read_marks(), timeout)

    # --- from whom -------------------------------------------------------------------------------
    def block(self, name: str, *, timeout: float | None = None) -> None:
        """Refuse direct messages from an account. It is not told that it is blocked.

        Args:
            name: of the account. A later account with this name is a different one.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotRegistered, LimitReached, ...
            DeviceChainError: the server sent an invalid list of devices.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        chain = self._device_chain(who, timeout)
        self._ask_account("", requests.Block(who, chain.root), timeout)

    def unblock(self, name: str, *, timeout: float | None = None) -> None:
        """Accept direct messages from an account again.

        Args:
            name: of the account.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        self._ask_account("", requests.Unblock(who), timeout)

    def last_seen(self, name: str, *, timeout: float | None = None) -> Seen:
        """Return whether a user is connected, and when they connected or disconnected, if visible.

        Args:
            name: of the account.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotRegistered, NotAllowed for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        request, read = requests.LastSeen(), answers.unpack_seen
        return cast(Seen, self._ask_account(who, request, timeout, read))

    def preferences(self, *, timeout: float | None = None) -> Preferences:
        """Return this account's settings: who may write, who is blocked, and the inbox's retention.

        Args:
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return self._in_parts(own_data.preferences(), timeout)

    def set_preferences(
        self,
        *,
        writers: Writers | None = None,
        seen_by: Writers | None = None,
        keep: tuple[int, int, int] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Choose who may write to this account and see when it was connected, and what is kept.

        Args:
            writers: "all", "known" (accounts that this one has written to), "rooms" (these, and
                members of rooms in which this account is a permanent member) or "nobody"; None: no
                change.
            seen_by: the same, for who may see when it was last connected.
            keep: how long the inbox keeps messages: seconds, messages, bytes; 0: as in the server's
                settings, which may limit the choice.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            ValueError, TypeError: another word, or invalid limits.
            Refused: NotAllowed, for a guest; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        account_calls.check_writers(writers, seen_by)
        kept = None if keep is None else account_calls.set_keep(keep)
        now = self.preferences(timeout=arguments.seconds_or_none("timeout", timeout))
        if writers or seen_by:
            request = account_calls.prefer(writers or now.writers, seen_by or now.seen_by)
            self._ask_account("", request, timeout)
        if kept is not None:
            self._ask_account("", kept, timeout)
