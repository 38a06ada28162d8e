"""Run something with a connected client: addresses, server keys, signals, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from relay import __version__
from relay.cli.exits import CommandError, Exit, debugging, report_internal
from relay.cli.options import Target
from relay.cli.progress_timeout import ProgressTimeout
from relay.cli.server_keys import accept_unknown, changed_key, is_new, remember
from relay.client.address import Address, fingerprint_mistake
from relay.client.aio import Client
from relay.client.backoff import Backoff
from relay.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionLost,
    GoingAway,
    NameTaken,
    Overloaded,
    ServerFailed,
    ServerKeyMismatch,
    UnknownServerKey,
)
from relay.client.known_servers import KnownServers
from relay.client.trust import KeyPolicy
from relay.errors import UsageError
from relay.terminal.screens import stderr_notice

_PASSING = (ConnectFailed, ConnectionLost, GoingAway, Overloaded, ServerFailed)
"""Why there may be no connection now, and one later."""


def run_connected(
    target: Target,
    name: str,
    use: Callable[[Client], Awaitable[int]],
    *,
    on_term: int = Exit.TERMINATED,
    progress: ProgressTimeout | None = None,
) -> int:
    """Connect as ``name``, run ``use(client)``, and return its exit code.

    An unknown key is asked about between two connections, without the event loop: a person may take
    longer than the server waits.

    Args:
        target: which relay.
        name: a legal name.
        use: what to do.
        on_term: the exit code after SIGTERM.
        progress: limits the waits of one attempt, the first connection included; None: a server
            that cannot be reached at first is an error at once.

    Raises:
        RelayError: for ``exits.guarded``.
    """
    address = _address(target)
    known = KnownServers(target.known_servers)
    new = is_new(address, known)

    async def use_and_remember(client: Client) -> int:
        if new:
            await remember(address, known)
        return await use(client)

    def make_client() -> Client:
        agent = f"relay {__version__}"
        return Client(address, name=name, key_policy=KeyPolicy(known), agent=agent)

    def attempt() -> int:
        return asyncio.run(_session(make_client, use_and_remember, on_term, progress))

    try:
        try:
            return attempt()
        except UnknownServerKey as error:
            accept_unknown(address, error, known, target.accept_new)
        return attempt()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED  # before click says anything about it
    except ServerKeyMismatch as error:
        raise changed_key(address, error, known) from None
    except NameTaken:
        raise CommandError(f"the name {name!r} is in use; choose another with --name") from None


def _address(target: Target) -> Address:
    address = target.address
    if target.fingerprint is None:
        return address
    if mistake := fingerprint_mistake(target.fingerprint):
        raise UsageError(f"--fingerprint: {mistake}")
    if address.fingerprint not in (None, target.fingerprint):
        raise UsageError("--fingerprint and the fingerprint in the address differ")
    return address._replace(fingerprint=target.fingerprint)


async def _session(
    make_client: Callable[[], Client],
    use: Callable[[Client], Awaitable[int]],
    on_term: int,
    progress: ProgressTimeout | None,
) -> int:
    task = asyncio.current_task()
    assert task is not None
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unforeseen)
    if not debugging():
        loop.slow_callback_duration = math.inf  # python -X dev would write into the chat
    with contextlib.suppress(NotImplementedError):  # Windows has no such signal
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        if progress is None:
            async with make_client() as client:
                return await use(client)
        return await _connected_in_time(make_client, use, progress)
    except asyncio.CancelledError:
        if not terminated:
            raise
        return on_term


async def _connected_in_time(
    make_client: Callable[[], Client],
    use: Callable[[Client], Awaitable[int]],
    progress: ProgressTimeout,
) -> int:
    """Connect however often it takes, and run ``use``, both within the limit.

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
                    if str(error) != str(problem):
                        stderr_notice(f"waiting: {error}")
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


def _unforeseen(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what a callback or a forgotten task raised: one line, as everything else."""
    report_internal(context.get("exception") or ClientError(context["message"]))
