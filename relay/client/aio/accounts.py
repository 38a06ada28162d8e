"""Calls of a client about accounts: devices, invitations, users."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from relay.chat.accounts import requests
from relay.chat.accounts.chain import Chain
from relay.chat.accounts.links import Kind
from relay.client import account_calls, arguments, lists
from relay.client.account_calls import (
    Change,
    DeviceChange,
    Devices,
    OpenInvitation,
    User,
)
from relay.client.aio.calls import AsyncCalls
from relay.client.chat_state import Read
from relay.client.devices.chain_check import ChainReading
from relay.client.devices.device_key import DeviceKey
from relay.client.devices.proof import server_id_bytes
from relay.client.lists import Question, Questions, Result
from relay.client.refusals import Refused
from relay.limits import INVITATION_DAYS


class AsyncAccounts(AsyncCalls):
    """The calls of a client about accounts."""

    async def devices(self, name: str | None = None, *, timeout: float | None = None) -> Devices:
        """Return the devices of an account, as proved by its signed chain.

        The chain is compared with what was seen of it before, and remembered. If it does not
        continue that, a ``DeviceWarning`` is added to the events.

        Args:
            name: of the account; None: this client's own, with labels.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            DeviceChainError: the server sent an invalid list, or an outdated one of this account.
            Refused: NotRegistered, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = self.name if name is None else account_calls.checked_name(name)
        last = await self._device_chain(who, timeout)
        labels: dict[bytes, str] = {}
        if name is None:
            labels = await self._ask_account("", requests.Show(), timeout, account_calls.labels)
        return account_calls.as_devices(last, labels)

    async def device_change(
        self, name: str, *, timeout: float | None = None
    ) -> DeviceChange | None:
        """Return how an account's devices contradict what was seen of them; None: they do not.

        Until ``accept_devices`` all messages of this sender have a ``doubt``.

        Args:
            name: of the account.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            DeviceChainError: the server sent an invalid list, which cannot be accepted.
            Refused: NotRegistered, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        chains, _ = await self._links(account_calls.checked_name(name), timeout)
        found = self._chat.senders.pins.contradiction(chains)
        return account_calls.device_change(found, chains[-1])

    async def accept_devices(self, change: DeviceChange, *, timeout: float | None = None) -> None:
        """Accept devices that contradict what was seen, after a person has verified their owner.

        Accepts exactly these: if the server sends other ones by now, those are doubtful again.

        Args:
            change: from ``device_change``.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            DeviceChainError: they are this account's own, and the account was not begun anew.
            Refused: NotRegistered, ...
            TimedOut: no answer in time; they are accepted all the same.
            ClientError: the client has ended.
        """
        self._check_started()
        timeout = self._time_limit(timeout)
        who, pin = account_calls.accepted(change)
        self._chat.senders.accept(who, pin)
        await self._device_chain(who, timeout)

    async def approve_device(self, key: str, *, timeout: float | None = None) -> None:
        """Approve a new device of this account, which then finishes by itself (``relay device``).

        Args:
            key: its public key, exactly as displayed by the new device.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            DeviceChainError: the list of devices is invalid, older than what was seen of it, full,
                or already contains the key.
            UsageError: it is not a device key.
            Refused: Changed, if another device changes the list at the same time; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        await self._extend(Kind.ADD, account_calls.public_key(key), timeout)

    async def remove_device(self, key: str, *, timeout: float | None = None) -> None:
        """Remove a device of this account. When this returns, its connections have ended.

        Args:
            key: its public key.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            DeviceChainError: it is not a device, or the last one.
            Refused: Changed, if another device changes the list at the same time; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        await self._extend(Kind.REMOVE, account_calls.public_key(key), timeout)

    async def rename_device(self, key: str, label: str, *, timeout: float | None = None) -> None:
        """Set the label of a device of this account. Nobody else can see it.

        Args:
            key: its public key.
            label: at most 64 bytes.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: KeyRefused, BadRequest, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        label = arguments.short_text("label", label, 64, 64)
        request = requests.NameDevice(account_calls.public_key(key), label)
        await self._ask_account("", request, timeout)

    async def add_recovery_key(self, *, timeout: float | None = None) -> str:
        """Create a recovery key: a device that only exists on paper, in case all others are lost.

        Args:
            timeout: seconds; None: ``answer_timeout_s``.

        Returns:
            Its secret: 52 characters, to be written down and kept away from the devices.

        Raises:
            DeviceChainError, Refused, TimedOut, ClientError: as ``approve_device``.
        """
        paper = DeviceKey.generate()
        await self.add_device(paper, timeout=timeout)
        label = requests.NameDevice(paper.public, "recovery key")
        await self._ask_account("", label, timeout)
        return paper.paper()

    async def add_device(self, key: DeviceKey, *, timeout: float | None = None) -> None:
        """Add a key that this program holds as a device of this account: both keys sign here.

        Args:
            key: of the new device.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            DeviceChainError, Refused, TimedOut, ClientError: as ``approve_device``.
        """
        paper = account_calls.checked_key(key)
        last = await self._device_chain(self.name, timeout)
        request = account_calls.paper_link(last, self.device_key, paper)
        await self._ask_account("", request, timeout)
        self._chat.senders.own.extended(request.link)

    async def invite(
        self,
        *,
        days: float = INVITATION_DAYS,
        operator: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Create an invitation, which can be used to register one name. For operators.

        Args:
            days: how long it is valid.
            operator: whether the new account becomes an operator, too.
            timeout: seconds; None: ``answer_timeout_s``.

        Returns:
            52 characters, to be passed on in private. The server knows only their hash.

        Raises:
            Refused: NotAllowed, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        text, token_hash, expires_ms = account_calls.new_token(days, self._server_time_ms())
        request = requests.Invite(token_hash, expires_ms, arguments.flag("operator", operator))
        await self._ask_account("", request, timeout)
        return text

    async def invitations(self, *, timeout: float | None = None) -> list[OpenInvitation]:
        """Return the invitations that can still be used, by time of expiry. For operators.

        Invitations for reserved names are not included: see ``user``.

        Args:
            timeout: seconds, for each of several requests; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        found = await self._in_parts(lists.open_invitations(), timeout)
        return account_calls.as_invitations(found)

    async def revoke_invitation(self, invitation: str, *, timeout: float | None = None) -> None:
        """Revoke an unused invitation. For operators.

        The invitation for a reserved name ends when another is created: ``change_user(name,
        "add")``.

        Args:
            invitation: its 52 characters, or its ``id`` from ``invitations``.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed; InvitationNeeded: it does not exist, or was used, with the name of
                the user.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        await self._ask_account("", account_calls.take_back(invitation), timeout)

    async def user(self, name: str, *, timeout: float | None = None) -> User:
        """Return what the server knows about an account. For operators.

        Args:
            name: of the account.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        read = partial(account_calls.as_user, who)
        return cast(User, await self._ask_account(who, requests.Show(), timeout, read))

    async def users(self, *, timeout: float | None = None) -> list[str]:
        """Return the names of all existing and former accounts. For operators.

        Args:
            timeout: seconds, for each of several requests; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        return await self._in_parts(lists.account_names(), timeout)

    async def change_user(
        self,
        name: str,
        change: Change,
        *,
        days: float = INVITATION_DAYS,
        timeout: float | None = None,
    ) -> str | None:
        """Change an account. For operators. When this returns, the sessions that it ends have
        ended.

        Args:
            name: of the account.
            change: "add" or "add-operator": reserve a free name for the holder of the invitation;
                "reset": remove all devices, and let the invitation begin new ones; "disable",
                "enable"; "remove": permanently; "promote" to an operator, "demote".
            days: how long the invitation is valid.
            timeout: seconds; None: ``answer_timeout_s``.

        Returns:
            The invitation, after "add", "add-operator" and "reset".

        Raises:
            ValueError: there is no such change.
            Refused: NotAllowed, NotRegistered, NameTaken, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        who = account_calls.checked_name(name)
        request, token = account_calls.change(change, days, self._server_time_ms())
        await self._ask_account(who, request, timeout)
        return token

    # --- inside ----------------------------------------------------------------------------------
    async def _extend(self, kind: Kind, subject: bytes, timeout_s: float | None) -> None:
        last = await self._device_chain(self.name, timeout_s)
        request = account_calls.link(last, kind, subject, self.device_key)
        await self._ask_account("", request, timeout_s)
        self._chat.senders.own.extended(request.link)

    async def _ask_account(
        self, name: str, request: requests.Request, timeout_s: float | None, read: Read = bytes
    ) -> Any:  # noqa: ANN401  # what ``read`` returns
        return await self._ask(
            lambda chat, token: chat.ask_account(name, request, token, read), timeout_s
        )

    async def _device_chain(self, name: str, timeout_s: float | None) -> Chain:
        chains, packed = await self._links(name, timeout_s)
        self._chat.hold_chain(packed, chains)
        return chains[-1]

    async def _links(self, name: str, timeout_s: float | None) -> tuple[list[Chain], list[bytes]]:
        packed = await self._in_parts(lists.links(name), timeout_s)
        server = self.server_id
        assert server is not None
        reading = ChainReading(packed, name, server_id_bytes(server))
        while not reading.advance():
            await self._pump.let_others_run()
        return reading.chains, packed

    async def _in_parts(self, questions: Questions[Result], timeout_s: float | None) -> Result:
        """Make several requests, one after the other; ``timeout_s`` applies to each."""
        try:
            question = questions.send(None)
            while True:
                try:
                    answer = await self._ask(question, timeout_s)
                except Refused as refused:
                    question = questions.throw(refused)
                else:
                    question = questions.send(answer)
        except StopIteration as end:
            return cast("Result", end.value)

    async def _ask(self, question: Question, timeout_s: float | None) -> Any:  # noqa: ANN401
        self._check_started()
        timeout_s = self._time_limit(timeout_s)
        answer = self._awaited()
        question(self._chat, answer)
        return await self._asked(answer, timeout_s, "the request")
