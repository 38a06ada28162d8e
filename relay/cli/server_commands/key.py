"""``relay key``: shows and changes a server's key, for its operator, in the data directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import config_option, data_option, document_option
from relay.cli.console.confirming import YES
from relay.cli.console.printing import print_json, print_line, print_whole
from relay.cli.process.exits import CommandError, Exit
from relay.cli.server_commands.ctl_client import Server, directory_of, server_of, settings

if TYPE_CHECKING:
    from relay.server.offline.server_keys import ServerKeys

DAY_S: Final = 86_400.0


@click.group(cls=CommandGroup)
def key() -> None:
    """The server's key: show it, announce another one, switch to it.

    Run these on the relay's machine, as root or as the relay's user. They use its data directory:
    that of --data, or of the settings, as for "relay serve".
    """


@key.command()
@data_option
@config_option
@document_option
def show(data: str | None, config: Path | None, as_json: bool) -> int:
    """Show the fingerprints of the key and the next one, and the server's id."""
    keys, _ = _found(data, config)
    state = keys.look()
    if as_json:
        following = state.next_fingerprint
        document = {
            "key": state.fingerprint, "server_id": state.server_id, "next_key": following,
            "next_made": None if following is None else int(state.next_since),
            "earlier": state.earlier,
        }  # fmt: skip
        print_json(document)
        return Exit.OK
    print_whole(f"key        {state.fingerprint}")
    print_whole(f"server id  {state.server_id}")
    if state.next_fingerprint is not None:
        print_whole(f"next key   {state.next_fingerprint}  (made {_ago(state.next_since)})")
    for fingerprint in state.earlier:
        print_whole(f"earlier    {fingerprint}")
    return Exit.OK


@key.command()
@data_option
@config_option
@click.option("--replace", is_flag=True, help="Make a new one even if there is a next key already.")
def new(data: str | None, config: Path | None, replace: bool) -> int:
    """Create the next key, and announce it to all clients from now on, while the relay runs.

    Clients store the announcement, which the present key proves to them, and accept the change
    without a question. A client that does not connect between "new" and "rotate" will refuse the
    server.
    """
    keys, runtime = _found(data, config)
    fingerprint = keys.make_next(replace=replace)
    print_whole(f"next key   {fingerprint}")
    try:
        runtime.ask("reload")
    except CommandError:
        print_line("it is announced from the next start of the relay on")
    else:
        print_line("it is announced now; when your users have connected, stop the relay, run")
        print_line("'relay key rotate', and start it again")
    return Exit.OK


@key.command()
@data_option
@config_option
@YES
def rotate(data: str | None, config: Path | None, yes: bool) -> int:
    """Switch to the next key. The relay must not run; the server's id and its data stay.

    The old key is kept as server.key.old: remove it once you are sure.
    """
    keys, _ = _found(data, config)
    with keys.locked():
        state = keys.look()
        if state.next_fingerprint is None:
            raise CommandError(
                "there is no next key: make and announce one with 'relay key new'; a key that was "
                "stolen or lost is replaced without an announcement, see docs/operations.md"
            )
        age_s = time.time() - state.next_since
        if age_s < DAY_S and not yes:
            if not sys.stdin.isatty():
                raise CommandError(
                    f"the next key was made {_ago(state.next_since)}: clients that have not "
                    "connected since will refuse the server; wait, or give --yes",
                    Exit.USAGE,
                )
            now = click.confirm(
                f"The next key was made {_ago(state.next_since)}: clients that have not connected "
                "since will refuse the server. Change now?",
                err=True,
            )
            if not now:
                raise CommandError("nothing was changed")
        keys.rotate(state.next_fingerprint)
    print_whole(f"key        {state.next_fingerprint}")
    print_whole(f"server id  {state.server_id}")
    print_line("start the relay; new users get the address with the new fingerprint")
    return Exit.OK


def _found(data: str | None, config: Path | None) -> tuple[ServerKeys, Server]:
    """Return the keys in the data directory, and the relay that may be running on it."""
    from relay.server.offline.server_keys import ServerKeys

    found = settings(data, config)
    server = found.server
    keys = ServerKeys(directory_of(found), server.key_passphrase, server.key_bits)
    return keys, server_of(found)


def _ago(when: float) -> str:
    hours = max(0.0, time.time() - when) / 3600
    return f"{hours / 24:.0f} days ago" if hours >= 48 else f"{hours:.0f} hours ago"
