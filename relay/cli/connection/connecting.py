"""Runs something with a connected client: addresses, server keys, signals, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from relay import __version__, event_loops
from relay.cli.arguments.destination import perhaps_no_address
from relay.cli.arguments.options import Target
from relay.cli.connection.login_errors import explained, perhaps_changed_key
from relay.cli.connection.login_options import Who, person_at
from relay.cli.connection.one_shot import ANSWER_S, used
from relay.cli.connection.progress_timeout import ProgressTimeout
from relay.cli.connection.server_keys import accept_unknown, changed_key, is_new, remember
from relay.cli.process import event_loop
from relay.cli.process.exits import CommandError, Exit
from relay.cli.process.last_resort import debugging
from relay.client.address import Address, fingerprint_mistake
from relay.client.aio import Client
from relay.client.backoff import Backoff
from relay.client.closes import GoingAway, LoginUnavailable, Overloaded, ServerFailed
from relay.client.devices.device_key import DeviceKey
from relay.client.devices.key_files import ENDED, KeyFiles
from relay.client.errors import (
    ConnectFailed,
    ConnectionLost,
    NoDeviceKey,
    ServerKeyMismatch,
    UnknownServerKey,
)
from relay.client.events import State
from relay.client.refusals import Refused
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from relay.errors import UsageError
from relay.terminal.screens import stderr_notice

_PASSING = (
    ConnectFailed, ConnectionLost, GoingAway, LoginUnavailable, Overloaded, ServerFailed,
)  # fmt: skip
"""Reasons for which there may be no connection now, but one later."""
_NO_OPTIONS: Mapping[str, Any] = {}


def run_connected(
    target: Target,
    who: Who,
    use: Callable[[Client], Awaitable[int]],
    *,
    on_term: int = Exit.TERMINATED,
    one_shot: bool = True,
    progress: ProgressTimeout | None = None,
    client_options: Mapping[str, Any] = _NO_OPTIONS,
) -> int:
    """Connect as a user, run ``use(client)``, and return its exit code.

    A person is asked about an unknown key between two connections, without the event loop, because
    the answer may take longer than the server waits.

    Args:
        target: which relay.
        who: the user.
        use: what to do.
        on_term: the exit code after SIGTERM.
        one_shot: see ``one_shot``; False: ``use`` takes the events, tells why it waits, and may
            wait as long as it takes.
        progress: limits the waits of one attempt, including the first connection; None: if the
            server cannot be reached at first, that is an error at once.
        client_options: further arguments for the client.

    Raises:
        RelayError: for ``exits.guarded``.
    """
    run = _Run(target, who, client_options, one_shot=one_shot)

    def attempt() -> int:
        # Made first: if there can be no loop, there is no coroutine that was never awaited.
        with event_loops.runner() as runner:
            return runner.run(_session(run.make_client, partial(run.use, use), on_term, progress))

    try:
        try:
            return attempt()
        except UnknownServerKey as error:
            accept_unknown(run.address, error, run.known, target.accept_new)
        run.find_person()
        return attempt()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED  # before click prints anything about it
    except ConnectFailed as error:
        if not (doubt := perhaps_no_address(run.address)):
            raise
        raise CommandError(f"{error}{doubt}") from None
    except ServerKeyMismatch as error:
        raise changed_key(run.address, error, run.known) from None
    except (NoDeviceKey, Refused) as error:
        if (shown := run.explained(error)) is error:
            raise
        raise shown from None


class _Run:
    """Who uses which relay, across the attempts of ``run_connected``."""

    def __init__(
        self, target: Target, who: Who, client_options: Mapping[str, Any], *, one_shot: bool
    ) -> None:
        self.address = target_address(target)
        self.known = KnownServers(target.known_servers)
        self._policy = KeyPolicy(self.known, keys=KeyFiles())
        self._new = is_new(self.address, self.known)
        self._who = who
        self._client_options = client_options
        self._one_shot = one_shot
        self._given_key: DeviceKey | None = client_options.get("key")
        self._answer: Refused | None = None
        """A request was refused and the session continues, so the refusal is not about the login.
        """
        self.find_person()

    def find_person(self) -> None:
        """Find the name and key to log in with: again once the server's key is known."""
        self._person = person_at(
            self._who, self._policy.keys, self._policy.server_id(self.address), self._given_key
        )

    def make_client(self) -> Client:
        """Return a client that is not connected yet."""
        person = self._person
        given = {"register": person.register, **self._client_options, "key": person.key}
        return Client(
            self.address,
            name=person.name,
            key_policy=self._policy,
            agent=f"relay {__version__}",
            answer_timeout_s=ANSWER_S if self._one_shot else None,
            **given,
        )

    async def use(self, use: Callable[[Client], Awaitable[int]], client: Client) -> int:
        """Remember the server and report a registration; then ``use`` the client."""
        if self._new:
            await remember(self.address, self.known)
        person = self._person
        if person.new and person.register and "register" not in self._client_options:
            tell_registered(self._policy.keys, client)
        try:
            return await (used(client, use) if self._one_shot else use(client))
        except Refused as error:
            self._answer = None if client.state is State.CLOSED else error
            raise

    def explained(self, error: NoDeviceKey | Refused) -> Exception:
        """Return what a person can do about a login that failed; other refusals unchanged."""
        if error is self._answer:
            return error
        keys, person = self._policy.keys, self._person
        kept = keys.path_of(self._policy.server_id(self.address) or "", person.name)
        ended = kept.with_name(f"{kept.name}{ENDED}").exists()
        given = self._who.name is not None
        if isinstance(error, NoDeviceKey):
            text = explained(error, person.name, given=given, ended=ended)
            return CommandError(f"{text}{perhaps_changed_key(self._policy, self.address)}")
        had = not person.new and self._given_key is None and self._who.key is None
        return explained(
            error,
            person.name,
            given=given,
            had=kept if had else None,
            ended=ended,
            invited=self._client_options.get("invitation") is not None,
        )


ONLY_DEVICE: Final = (
    "this is your only device: if you lose it you lose the name, unless you have a recovery key;"
    " make one with 'relay device recovery-key'"
)


def tell_registered(files: KeyFiles, client: Client) -> None:
    """Report that the name is claimed, and where its key is."""
    assert client.server_id is not None
    path = files.path_of(client.server_id, client.name)
    stderr_notice(f"registered as {client.name}; the key of this device is {path}")
    stderr_notice(ONLY_DEVICE)


def target_address(target: Target) -> Address:
    """Return the address with the fingerprint that was given separately.

    Raises:
        UsageError: two fingerprints that differ, or a wrong one.
    """
    address = target.address
    if target.fingerprint is None:
        return address
    if mistake := fingerprint_mistake(target.fingerprint):
        raise UsageError(f"--fingerprint: {mistake}")
    if address.fingerprint not in (None, target.fingerprint):
        raise UsageError("--fingerprint and the fingerprint in the address differ")
    return address._replace(fingerprint=target.fingerprint)


def known_server_id(target: Target) -> str:
    """Return the id of a server whose key is known, under which the user's keys are stored.

    Raises:
        CommandError: it is not known yet (exit code 2).
    """
    policy = KeyPolicy(KnownServers(target.known_servers))
    server_id = policy.server_id(target_address(target))
    if server_id is None:
        raise CommandError(
            "the server is not known here yet: give its full address, as in"
            " relay://FINGERPRINT@HOST",
            Exit.USAGE,
        )
    return server_id


async def _session(
    make_client: Callable[[], Client],
    use: Callable[[Client], Awaitable[int]],
    on_term: int,
    progress: ProgressTimeout | None,
) -> int:
    task = asyncio.current_task()
    assert task is not None
    ended_by = 0

    def end(number: int) -> None:
        nonlocal ended_by
        if ended_by:  # nobody waits for pending sends then
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        ended_by = number
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(event_loop.report_unforeseen)
    if not debugging():
        loop.slow_callback_duration = math.inf  # python -X dev would write into the chat
    handled = []
    with contextlib.suppress(NotImplementedError):  # Windows has no such signals
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, end, number)
                handled.append(number)
    try:
        if progress is None:
            async with make_client() as client:
                return await use(client)
        return await _connected_in_time(make_client, use, progress)
    except asyncio.CancelledError:
        if not ended_by:
            raise
        return on_term if ended_by == signal.SIGTERM else Exit.INTERRUPTED
    finally:
        # A loop that is being closed first closes the pipe of its handlers, and then prints errors.
        for number in handled:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)


async def _connected_in_time(
    make_client: Callable[[], Client],
    use: Callable[[Client], Awaitable[int]],
    progress: ProgressTimeout,
) -> int:
    """Connect with as many attempts as needed, and run ``use``, within the limit.

    Raises:
        CommandError: the limit was reached.
    """
    problem: Exception | str = "no answer from the server"
    backoff = Backoff(random.random)
    try:
        async with progress:
            progress.begin()
            loop = asyncio.get_running_loop()
            while True:
                client = make_client()
                try:
                    await client.connect()
                    break
                except _PASSING as error:
                    if isinstance(error, ConnectFailed) and not error.passing:
                        raise
                    if str(error) != str(problem):
                        stderr_notice(f"waiting: {error}{perhaps_no_address(client.address)}")
                    problem = error
                await asyncio.sleep(backoff.next_delay(loop.time()))
            progress.done()
            if isinstance(problem, Exception):
                stderr_notice("connected")
            problem = "the server has not stored everything"
            async with client:
                return await use(client)
    except TimeoutError:
        if not progress.exhausted:
            raise
        raise CommandError(f"gave up after {progress.limit_s:g} s: {problem}") from None
