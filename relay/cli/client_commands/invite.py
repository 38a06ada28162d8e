"""``relay invite``: invitations, created by an operator over the network or offline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.chat.accounts import invitation, requests
from relay.cli.arguments.options import (
    LINES,
    Target,
    days_option,
    places,
    target_options,
    typed_path,
)
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, who_options
from relay.cli.console.printing import print_error_line, print_json, print_line, print_whole
from relay.cli.console.tables import invitation_lines
from relay.cli.process.exits import Exit
from relay.client.account_calls import (
    OpenInvitation,
    as_invitations,
    new_token,
    take_back,
)
from relay.client.aio import Client

if TYPE_CHECKING:
    from relay.server.offline.accounts import OfflineAccounts

DATA = click.option(
    "--data",
    callback=typed_path,
    metavar="DIR",
    help="Work on the data directory of a stopped relay, instead of asking a server.",
)
DAYS = days_option("How long the invitation is valid.")


def offline(data: Path) -> OfflineAccounts:
    """Return the accounts of a stopped relay. Imported here because it requires Linux."""
    from relay.server.offline.accounts import OfflineAccounts

    return OfflineAccounts(data)


@click.command()
@places(optional=[], unless="data")
@DAYS
@click.option("--operator", is_flag=True, help="The account that uses it becomes an operator.")
@click.option(
    "--revoke",
    metavar="TEXT",
    help="Instead, revoke this invitation: its text, or its ID from --list; - reads it from stdin.",
)
@click.option("--list", "listing", is_flag=True, help="Instead, list those that can still be used.")
@DATA
@LINES
@who_options(program=False)
@target_options
def invite(
    target: Target | None,
    who: Who,
    data: Path | None,
    as_json: bool,
    days: float,
    operator: bool,
    revoke: str | None,
    listing: bool,
) -> int:
    """Print a new invitation, which can be used to register one name, once.

    Only operators may invite. Pass it on in private, for 'relay register --invitation'.
    """

    def tell(invitation: str) -> None:
        if as_json:
            print_json({"invitation": invitation})
        else:
            print_whole(invitation)

    if listing:
        if revoke is not None:
            raise click.UsageError("--list and --revoke cannot be used together")
        return _list(target, who, data, as_json)
    if revoke is not None:
        return _revoke(target, who, data, revoke)
    if data is not None:
        text, token_hash, expires_ms = new_token(days)
        request = requests.Invite(token_hash, expires_ms, operator)
        with offline(data) as accounts:
            accounts.ask(invitation.log_of(token_hash), request)
        tell(text)
        return Exit.OK
    assert target is not None

    async def use(client: Client) -> int:
        tell(await client.invite(days=days, operator=operator))
        return Exit.OK

    return run_connected(target, who, use)


def _list(target: Target | None, who: Who, data: Path | None, as_json: bool) -> int:
    def tell(found: list[OpenInvitation]) -> None:
        items = [one._asdict() for one in found]
        if as_json:
            for item in items:
                print_json(item)
        elif items:
            for line in invitation_lines(items):
                print_line(line)

    if data is not None:
        with offline(data) as accounts:
            tell(as_invitations(accounts.invitations()))
        return Exit.OK
    assert target is not None

    async def use(client: Client) -> int:
        tell(await client.invitations())
        return Exit.OK

    return run_connected(target, who, use)


def _revoke(target: Target | None, who: Who, data: Path | None, typed: str) -> int:
    text = sys.stdin.readline() if typed == "-" else typed
    try:
        request = take_back(text)
    except ValueError as error:
        raise click.UsageError(f"--revoke: the {error}") from None
    if data is not None:
        with offline(data) as accounts:
            accounts.ask(invitation.log_of(request.token_hash), request)
    else:
        assert target is not None

        async def use(client: Client) -> int:
            await client.revoke_invitation(text)
            return Exit.OK

        if code := run_connected(target, who, use):
            return code
    print_error_line("revoked: nobody can use it now")
    return Exit.OK
