"""``relay device``: the devices of the user's own account."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from relay.chat.names import INBOX_PREFIX
from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.names import name_to_claim
from relay.cli.arguments.options import LINES, Target, places, target_options
from relay.cli.arguments.text_argument import TextCommand
from relay.cli.client_commands.register import print_recovery_key
from relay.cli.connection.connecting import known_server_id, run_connected, target_address
from relay.cli.connection.login_options import (
    Who,
    file_of,
    load_key,
    new_key,
    put_aside,
    who_options,
)
from relay.cli.console.hidden_input import ask_hidden
from relay.cli.console.printing import print_json, print_line, print_whole
from relay.cli.process.exits import CommandError, Exit
from relay.client.account_calls import Devices
from relay.client.address import Address
from relay.client.aio import Client
from relay.client.aio.thread import in_thread
from relay.client.closes import DeviceRevoked
from relay.client.devices.device_key import DeviceKey, contains, public_text
from relay.client.devices.key_files import KeyFiles
from relay.client.refusals import UNCLEAR, KeyRefused, NotRegistered, Refused
from relay.errors import UsageError
from relay.terminal.device_notices import change_lines, code_of
from relay.terminal.qr_code import code_lines
from relay.terminal.screens import stderr_notice
from relay.terminal.text import harmless_name

POLL_S: Final = 2.0
KEY_CHARS_MIN: Final = 6
"""For a key given by its beginning: a partly typed label must not match another's key."""
_who = who_options(program=False)


@click.group(cls=CommandGroup)
def device() -> None:
    """The devices of your account, and the key of this one.

    To add a device, run 'relay device request' on the new device, and on an existing one 'relay
    device approve' with the key that the new one shows.
    """


@device.command("list")
@places(optional=["USER"])
@_who
@LINES
@target_options
def list_(target: Target, who: Who, as_json: bool, user: str | None) -> int:
    """List your devices, or those of USER, as proved by their signed chain.

    A star marks this device. Compare the first line with what the other person sees: if the lines
    differ, somebody is intercepting you.
    """

    async def use(client: Client) -> int:
        found, own = await client.devices(user), client.device_key
        own_key = "" if own is None else public_text(own.public)
        if as_json:
            print_json(_object(found, own_key))
        else:
            _print(found, own_key)
        return Exit.OK

    return run_connected(target, who, use)


def _object(found: Devices, own_key: str) -> dict[str, Any]:
    devices = [{**one._asdict(), "this": one.key == own_key} for one in found.devices]
    return {"name": found.name, "account": public_text(found.account), "devices": devices}


def _print(found: Devices, own_key: str) -> None:
    print_whole(f"{harmless_name(found.name)}, account {public_text(found.account)}")
    for one in found.devices:
        mark = "*" if one.key == own_key else " "
        state = "removed" if one.removed else one.label
        print_line(f"{mark} {one.key} {state}".rstrip())


@device.command()
@places("USER", optional=[])
@_who
@click.option(
    "--code", metavar="CODE", help="Accept the list that this code stands for; do not ask."
)
@target_options
def accept(target: Target, who: Who, user: str, code: str | None) -> int:
    """Accept the devices of USER that contradict what you have seen of them before.

    It shows what has changed. Until you accept it, all messages of USER are marked as unverified.
    Ask USER in another way first: the first line of 'relay device list', there and here, must be
    the same.
    """

    async def use(client: Client) -> int:
        change = await client.device_change(user.removeprefix(INBOX_PREFIX))
        if change is None:
            print_whole(f"{harmless_name(user)}: nothing contradicts what you have seen before")
            return Exit.OK
        for line in change_lines(change):
            print_whole(line)
        wanted = code_of(change)
        typed = code
        if typed is None:
            if not sys.stdin.isatty():
                print_whole(f"to accept it: --code {wanted}")
                return Exit.FAILED
            typed = await in_thread(lambda: _ask_code(wanted))  # Ctrl-C does not wait for it
        if typed.strip().lower() != wanted:
            raise CommandError("that is not the code of this list: nothing was accepted")
        await client.accept_devices(change)
        print_line("accepted")
        return Exit.OK

    return run_connected(target, who, use)


def _ask_code(wanted: str) -> str:
    return str(
        click.prompt(
            f"If these are theirs, type {wanted} to accept them",
            default="",
            show_default=False,
            err=True,
        )
    )


@device.command()
@places(optional=[])
@_who
@target_options
def request(target: Target, who: Who) -> int:
    """Ask to become a device of your account: run this on the new one, and leave it running.

    It shows the new key, as text and as a QR code, and ends when one of your devices has approved
    it.
    """
    name = who.name or name_to_claim()

    def own() -> Path:
        """Return where the key is; elsewhere after the first connection (``KeyFiles.follow``)."""
        kept = KeyFiles().path_of(known_server_id(target), name)
        return who.key or kept

    def waiting() -> Path:
        path = own()
        return path.with_name(f"{path.name}.requested")

    def requested() -> DeviceKey:
        path = waiting()
        key = load_key(path) if path.exists() else new_key(path, name)
        _show(target_address(target), key)
        return key

    # Checked first: a former device may have been removed, and its key never becomes valid again.
    is_request = not own().exists()
    key = requested() if is_request else load_key(own())
    refused: DeviceKey | None = None

    async def use(client: Client) -> int:
        path = own()
        waits = file_of(key, waiting()) if is_request else None
        # Never over another key, which another program may have stored and registered meanwhile.
        if waits is not None and (
            not path.exists() or (refused is not None and contains(path, refused))
        ):
            with contextlib.suppress(FileNotFoundError):  # the same command in another terminal
                waits.replace(path)
        print_whole(
            f"this is now a device of {client.name}; its key is {file_of(key, path) or path}"
        )
        return Exit.OK

    told = False
    while True:
        try:
            return run_connected(
                target,
                who._replace(name=name, key=None, claims=False),
                use,
                client_options={"key": key, "enrol": True, "register": False},
            )
        except CommandError as error:
            if isinstance(error.__context__, NotRegistered) and is_request:
                if (path := file_of(key, waiting())) is not None:
                    path.unlink(missing_ok=True)
                raise CommandError(
                    f"there is no account {name!r} at this server: give its name with --name, or"
                    " create it with 'relay register'"
                ) from None
            if not isinstance(error.__context__, KeyRefused):  # the login was refused
                raise
            if not is_request:
                is_request, refused, key = True, key, requested()
            if not told:
                stderr_notice("waiting for one of your devices to approve it (Ctrl-C: later)")
                told = True
        time.sleep(POLL_S)


def _show(address: Address, key: DeviceKey) -> None:
    text = public_text(key.public)
    hint = f"On a device that you have, run:  relay device approve {address} {text}"
    if sys.stdout.isatty():
        columns, lines = shutil.get_terminal_size()
        below = 2 + len(hint) // columns  # the hint, and the line about waiting
        dumb = os.environ.get("TERM", "") in ("", "dumb") or sys.platform == "win32"
        code = code_lines(
            text.upper(),
            columns=columns,
            lines=lines - below,
            encoding=sys.stdout.encoding,
            coloured=not (dumb or os.environ.get("NO_COLOR")),
        )
        for line in code:
            print(line)  # noqa: T201  # colours of our own
    print_whole(hint)
    sys.stdout.flush()


@device.command()
@places(optional=[])
@_who
@target_options
def passphrase(target: Target, who: Who) -> int:
    """Set, change or remove the passphrase of this device's key file; you are asked for both."""
    if not sys.stdin.isatty():
        raise click.UsageError("the passphrase must be typed at a terminal, and this is not one")
    path = who.key or _own_key(target, who)
    key = load_key(path)
    new = ask_hidden("New passphrase (empty: none)", twice=True, default="")
    key.save(path, new or None, replace=True)
    print_whole(f"{path} has {'a' if new else 'no'} passphrase now")
    return Exit.OK


def _own_key(target: Target, who: Who) -> Path:
    """Return the file of the user's key for a server; the name is chosen as usual."""
    files, server_id = KeyFiles(), known_server_id(target)
    names = [who.name] if who.name else files.names(server_id)
    if not names:
        raise UsageError("you have no key for this server: make one with 'relay register'")
    return files.path_of(server_id, names[0])


@device.command()
@places("DEVICE", optional=[])
@_who
@target_options
def approve(target: Target, who: Who, device: str) -> int:
    """Approve DEVICE, by its key: exactly the key that the new device itself shows."""

    async def use(client: Client) -> int:
        await client.approve_device(device)
        print_line("approved; the new device finishes by itself")
        return Exit.OK

    return run_connected(target, who, use)


@device.command(cls=TextCommand, example="ADDRESS DEVICE -- LABEL", undone="nothing was changed")
@places("DEVICE", "LABEL", optional=[])
@_who
@target_options
def rename(target: Target, who: Who, device: str, label: str) -> int:
    """Give DEVICE the label LABEL. Only you see it."""

    async def use(client: Client) -> int:
        await client.rename_device(await _whole(client, device), label)
        return Exit.OK

    return run_connected(target, who, use)


@device.command()
@places("DEVICE", optional=[])
@_who
@target_options
def remove(target: Target, who: Who, device: str) -> int:
    """Remove DEVICE, by its key or its label. When this returns, its connections have ended."""

    async def use(client: Client) -> int:
        key = await _whole(client, device)
        own = client.device_key
        try:
            await client.remove_device(key)
        except DeviceRevoked:
            if own is None or public_text(own.public) != key:
                raise
            print_line(f"removed: this is no longer a device of {client.name}")
            put_aside(who, client)
        else:
            print_line("removed")
        return Exit.OK

    return run_connected(target, who, use)


@device.command("recovery-key")
@places(optional=[])
@_who
@target_options
def recovery_key(target: Target, who: Who) -> int:
    """Print a recovery key: a device on paper, in case all others are lost."""

    async def use(client: Client) -> int:
        print_recovery_key(await client.add_recovery_key())
        return Exit.OK

    return run_connected(target, who, use)


@device.command()
@places(optional=[])
@_who
@target_options
def restore(target: Target, who: Who) -> int:
    """Make this a device of your account with a recovery key, which you are asked for."""
    if who.name is None:
        raise click.UsageError("give the name of the account with --name")
    kept = KeyFiles().path_of(known_server_id(target), who.name)
    before = who.key or kept
    if before.exists():
        raise UsageError(f"there is a key already: {before}")
    question = "Recovery key"
    typed = ask_hidden(question) if sys.stdin.isatty() else click.prompt(question, err=True)
    paper = DeviceKey.from_paper(str(typed))

    async def use(client: Client) -> int:
        assert client.server_id is not None
        path = who.key or KeyFiles().path_of(client.server_id, client.name)
        own = new_key(path, client.name)
        with removed_if_refused(path):
            await client.add_device(own)
        print_whole(f"this is now a device of {client.name}; its key is {path}")
        return Exit.OK

    options = {"key": paper, "register": False}
    return run_connected(target, who._replace(key=None), use, client_options=options)


@contextlib.contextmanager
def removed_if_refused(path: Path) -> Iterator[None]:
    """Remove the file of a new key if the server refuses the key as a device.

    After any other failure, such as a lost connection or Ctrl-C, it may have been accepted: it
    stays.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Refused) and not isinstance(error, UNCLEAR):
            path.unlink()
        else:
            stderr_notice(f"this may or may not be a device now; its key is kept: {path}")
        raise


async def _whole(client: Client, text: str) -> str:
    """Return the key of the user's device that a key, its beginning, or a label identifies.

    Raises:
        UsageError: the text is empty. That is not a label: a variable of a script may be empty, and
            most devices have no label.
        CommandError: it identifies no device, or several.
    """
    if not text.strip():
        raise UsageError(f"expected a device, not {text!r}")
    devices = [one for one in (await client.devices()).devices if not one.removed]
    begins = text.lower() if len(text) >= KEY_CHARS_MIN else "?"
    found = [one.key for one in devices if one.label == text or one.key.startswith(begins)]
    if len(found) != 1:
        many = "several devices are" if found else "no device is"
        raise CommandError(
            f"{many} called {text!r}; give a label or a key as 'relay device list' shows them, or"
            f" at least {KEY_CHARS_MIN} characters of a key"
        )
    return found[0]
