"""Runs something with a connected client: addresses, server keys, signals, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from relay import __version__
from relay.chat.names import is_guest
from relay.cli import event_loop
from relay.cli.destination import perhaps_no_address
from relay.cli.exits import CommandError, Exit
from relay.cli.last_resort import debugging
from relay.cli.login_options import Person, Who, person_at
from relay.cli.options import Target
from relay.cli.progress_timeout import ProgressTimeout
from relay.cli.server_keys import accept_unknown, changed_key, is_new, remember
from relay.client.address import Address, fingerprint_mistake
from relay.client.aio import Client
from relay.client.backoff import Backoff
from relay.client.closes import GoingAway, LoginUnavailable, Overloaded, ServerFailed
from relay.client.device_key import DeviceKey
from relay.client.errors import (
    ConnectFailed,
    ConnectionLost,
    NoDeviceKey,
    ServerKeyMismatch,
    UnknownServerKey,
)
from relay.client.events import State
from relay.client.key_files import ENDED, KeyFiles
from relay.client.known_servers import KnownServers
from relay.client.lineage import FOLLOWED_TYPE
from relay.client.refusals import (
    InvitationNeeded,
    KeyRefused,
    LooksAlike,
    NameTaken,
    NotRegistered,
    Refused,
    RegistrationClosed,
)
from relay.client.trust import KeyPolicy
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
        progress: limits the waits of one attempt, including the first connection; None: if the
            server cannot be reached at first, that is an error at once.
        client_options: further arguments for the client.

    Raises:
        RelayError: for ``exits.guarded``.
    """
    address = target_address(target)
    known = KnownServers(target.known_servers)
    policy = KeyPolicy(known, keys=KeyFiles())
    new = is_new(address, known)
    given_key: DeviceKey | None = client_options.get("key")
    person = person_at(who, policy.keys, policy.server_id(address), given_key)
    answer: Refused | None = None
    """A request was refused and the session continues, so the refusal is not about the login."""

    async def use_and_remember(client: Client) -> int:
        nonlocal answer
        if new:
            await remember(address, known)
        if person.new and person.register and "register" not in client_options:
            tell_registered(policy.keys, client)
        try:
            return await use(client)
        except Refused as error:
            answer = None if client.state is State.CLOSED else error
            raise

    def make_client() -> Client:
        given = {"register": person.register, **client_options, "key": person.key}
        return Client(
            address,
            name=person.name,
            key_policy=policy,
            agent=f"relay {__version__}",
            **given,
        )

    def kept(person: Person) -> Path:
        return policy.keys.path_of(policy.server_id(address) or "", person.name)

    def ended(person: Person) -> bool:
        at = kept(person)
        return at.with_name(f"{at.name}{ENDED}").exists()

    def attempt() -> int:
        with event_loop.runner() as runner:  # if there can be no loop, no coroutine was made for it
            return runner.run(_session(make_client, use_and_remember, on_term, progress))

    try:
        try:
            return attempt()
        except UnknownServerKey as error:
            accept_unknown(address, error, known, target.accept_new)
        person = person_at(who, policy.keys, policy.server_id(address), given_key)
        return attempt()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED  # before click prints anything about it
    except ConnectFailed as error:
        if not (doubt := perhaps_no_address(address)):
            raise
        raise CommandError(f"{error}{doubt}") from None
    except ServerKeyMismatch as error:
        raise changed_key(address, error, known) from None
    except NoDeviceKey as error:
        explained = _explained(error, person.name, given=who.name is not None, ended=ended(person))
        raise CommandError(f"{explained}{_perhaps_changed(policy, address)}") from None
    except Refused as error:
        if error is answer:
            raise
        had = not person.new and given_key is None and who.key is None
        invited = client_options.get("invitation") is not None
        raise _explained(
            error,
            person.name,
            given=who.name is not None,
            had=kept(person) if had else None,
            ended=ended(person),
            invited=invited,
        ) from None


def _perhaps_changed(policy: KeyPolicy, address: Address) -> str:
    """Return another possible reason for a missing key at a server; usually empty.

    A user who was away when the server's key changed, and has the new address from its operator,
    has keys under an id that nothing links to it.
    """
    fingerprint, servers = address.fingerprint, policy.keys.servers()
    if fingerprint is None or not servers or fingerprint in servers:
        return ""
    old = servers[0] if len(servers) == 1 else "OLD"
    return (
        f"\nIf this is a server that you have used before, and its key has changed (you have keys"
        f" for {', '.join(servers)}),\nadd this line to {policy.known.path} once its operator"
        f" confirms it:\n* {FOLLOWED_TYPE} {old} {fingerprint}"
    )


def _explained(
    error: Refused | NoDeviceKey,
    name: str,
    *,
    given: bool,
    had: Path | None = None,
    ended: bool = False,
    invited: bool = False,
) -> Exception:
    """Return what a person can do about a refused login, or one without a key.

    ``given``: the person chose the name, it is not a default. ``had``: they have a key for it.
    ``ended``: they had one, and it no longer belongs to a device. ``invited``: they passed an
    invitation.
    """
    # What is taken by default is refused each time: how to have it taken no more.
    key = "" if had is None else f"; its key is {had}: no command takes it once it is moved away"
    match error:
        case NoDeviceKey() | NameTaken() if ended:
            return CommandError(
                f"the key of {name!r} at this server is no longer valid (the account was"
                " deleted, or this device removed): choose another name with --name, or add this"
                " device to an account with 'relay device request'"
            )
        case NoDeviceKey():
            whose = f"no device key for the name {name!r}" if given else "you have no device key"
            return CommandError(
                f"{whose} at this server: register {'the' if given else 'a'} name with 'relay"
                " register', add this device with 'relay device request', or name the file of its"
                " key with --key"
            )
        case KeyRefused():
            return CommandError(
                f"this is not a device of {name!r}: it was removed, or has not been approved. Add"
                f" it with 'relay device request', or choose another name with --name{key}"
            )
        case NotRegistered():
            return CommandError(
                f"the account {name!r} no longer exists at this server: an operator has reset"
                " it, or it was removed, by you or by an operator; after a reset, register it"
                f" again with 'relay register' and the invitation that the operator has{key}"
            )
        case NameTaken() if is_guest(name):
            return CommandError(f"another guest is called {name!r} now; choose another with --name")
        case NameTaken() if had is not None:
            return CommandError(
                f"the name {name!r} is no longer yours: the account was removed, by you or by an"
                f" operator, and its name is never given out again; choose another with --name{key}"
            )
        case NameTaken():
            return CommandError(
                f"the name {name!r} belongs to somebody else: choose another with --name; or, if it"
                " is yours, add this device to it with 'relay device request'"
            )
        case LooksAlike():
            return CommandError(
                f"the name {name!r} looks like an existing one; choose another with --name"
            )
        case InvitationNeeded() if invited:
            return CommandError(f"{error}: ask whoever gave it to you for another one")
        case InvitationNeeded():
            return CommandError(
                f"{error}: register with 'relay register --invitation TEXT'; whoever runs the"
                " server, or one of its operators, makes invitations with 'relay invite'"
            )
        case RegistrationClosed():
            return CommandError(
                f"{error}: ask one of them to reserve a name for you ('relay user add NAME'), and"
                " register with it and the invitation to it: 'relay register --name NAME"
                " --invitation TEXT'"
            )
        case _:
            return error


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
