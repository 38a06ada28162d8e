"""``relay register``: claims a name at a server, and creates the key of this device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from relay.bounded_files import read_bounded
from relay.cli.arguments.names import name_to_claim
from relay.cli.arguments.options import STANDARD, Target, places, target_options, typed_path
from relay.cli.connection.connecting import ONLY_DEVICE, known_server_id, run_connected
from relay.cli.connection.login_options import Who, file_of, load_key, new_key, who_options
from relay.cli.connection.passphrase import PASSPHRASE_VARIABLE, passphrase_for_new_key
from relay.cli.console.printing import print_line, print_whole
from relay.cli.process.exits import Exit
from relay.client.aio import Client
from relay.client.devices.device_key import DeviceKey
from relay.client.devices.key_files import KeyFiles
from relay.client.refusals import NOT_GRANTED
from relay.errors import RelayError, UsageError


@click.command()
@places(optional=[])
@who_options(program=False)
@click.option(
    "--invitation",
    metavar="TEXT",
    help="The invitation that you were given; - reads it from stdin.",
)
@click.option(
    "--invitation-file",
    callback=typed_path,
    metavar="FILE",
    help="A file with the invitation; - reads it from stdin.",
)
@click.option(
    "--passphrase",
    is_flag=True,
    help="Encrypt the key file; the passphrase is asked for, or is in the file that"
    f" ${PASSPHRASE_VARIABLE} names.",
)
@click.option(
    "--recovery-key",
    is_flag=True,
    help="Print a recovery key as well: a device on paper, for when this one is lost.",
)
@target_options
def register(
    target: Target,
    who: Who,
    invitation: str | None,
    invitation_file: Path | None,
    passphrase: bool,
    recovery_key: bool,
) -> int:
    """Claim a name at the server, with a new key of this device.

    With --key FILE the key is stored in that file, which is created if it does not exist: for a
    program. Otherwise it is your own key, and chat, send and tail find it automatically.
    Registering again with the same key changes nothing, and succeeds.
    """
    token = _token(invitation, invitation_file)
    name = who.name or name_to_claim()
    key, made = _key(target, who, name, passphrase)

    async def use(client: Client) -> int:
        where = "" if client.server_id is None else _path(client, who, key)
        print_whole(f"registered as {client.name}; the key of this device is {where}")
        if recovery_key:
            print_recovery_key(await client.add_recovery_key())
        elif who.claims and who.key is None and len((await client.devices()).devices) == 1:
            print_line(ONLY_DEVICE)
        return Exit.OK

    more: dict[str, object] = {"register": True, "invitation": token}
    if key is not None:
        more["key"] = key
    try:
        return run_connected(target, who._replace(name=name, key=None), use, client_options=more)
    except RelayError as error:
        # Otherwise the file would claim a name that belongs to somebody else.
        if made and isinstance(error.__context__ or error, NOT_GRANTED):
            assert key is not None
            path = file_of(key, who.key or KeyFiles().path_of(known_server_id(target), name))
            if path is not None:
                path.unlink(missing_ok=True)
        raise


INVITATION_FILE_BYTES_MAX: Final = 4096


def print_recovery_key(key: str) -> None:
    """Print a recovery key and its purpose."""
    print_line("Recovery key, to be written on paper and kept where your devices are not:")
    print_whole("")
    print_whole(f"    {key}")
    print_whole("")
    print_line(
        "With 'relay device restore' it makes another device yours when all others are lost."
    )


def _token(text: str | None, file: Path | None) -> str | None:
    if text is not None and file is not None:
        raise click.UsageError("give --invitation or --invitation-file, not both")
    if text == "-" or file == STANDARD:
        return sys.stdin.readline().strip()
    if file is not None:
        try:
            return read_bounded(file, INVITATION_FILE_BYTES_MAX).decode("ascii").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise UsageError(f"cannot read the invitation: {file}: {why}") from None
    return text


def _key(target: Target, who: Who, name: str, passphrase: bool) -> tuple[DeviceKey | None, bool]:
    """Return the key to register with, and whether it was created now.

    None: the user's own, which the library finds or creates.
    """
    path = who.key
    if path is None:
        if not passphrase:
            return None, False
        path = KeyFiles().path_of(known_server_id(target), name)
    if path.exists():
        return load_key(path), False
    return new_key(path, name, passphrase_for_new_key() if passphrase else None), True


def _path(client: Client, who: Who, key: DeviceKey | None) -> Path:
    assert client.server_id is not None
    path = who.key or KeyFiles().path_of(client.server_id, client.name)
    return path if key is None else file_of(key, path) or path
