"""Run something with a connected client: addresses, server keys, signals, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

from relay import __version__
from relay.cli.exits import CommandError, Exit
from relay.cli.options import Target
from relay.cli.server_keys import accept_unknown, changed_key
from relay.client.address import Address, fingerprint_mistake, parse_address
from relay.client.aio import Client
from relay.client.errors import NameTaken, ServerKeyMismatch, UnknownServerKey
from relay.client.known_servers import KnownServers
from relay.client.trust import KeyPolicy
from relay.errors import UsageError


def run_connected(
    target: Target, name: str, use: Callable[[Client], Awaitable[int]], on_term: int
) -> int:
    """Connect as ``name``, run ``use(client)``, and return its exit code.

    An unknown key is asked about between two connections, without the event loop: a person may take
    longer than the server waits.

    Args:
        target: which relay.
        name: a legal name.
        use: what to do.
        on_term: the exit code after SIGTERM.

    Raises:
        RelayError: for ``exits.guarded``.
    """
    address = _address(target)
    known = KnownServers(target.known_servers)

    def attempt() -> int:
        agent = f"relay {__version__}"
        client = Client(address, name=name, key_policy=KeyPolicy(known), agent=agent)
        return asyncio.run(_session(client, use, on_term))

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
    address = parse_address(target.address)
    if target.fingerprint is None:
        return address
    if mistake := fingerprint_mistake(target.fingerprint):
        raise UsageError(f"--fingerprint: {mistake}")
    if address.fingerprint not in (None, target.fingerprint):
        raise UsageError("--fingerprint and the fingerprint in the address differ")
    return address._replace(fingerprint=target.fingerprint)


async def _session(client: Client, use: Callable[[Client], Awaitable[int]], on_term: int) -> int:
    task = asyncio.current_task()
    assert task is not None
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    with contextlib.suppress(NotImplementedError):  # Windows has no such signal
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        async with client:
            return await use(client)
    except asyncio.CancelledError:
        if not terminated:
            raise
        return on_term


TERMINATED = 128 + signal.SIGTERM
"""The exit code of a command that SIGTERM ended before its work was done."""
assert Exit.INTERRUPTED == 128 + signal.SIGINT
