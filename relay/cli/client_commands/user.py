"""``relay user``: an operator's actions on accounts, over the network or offline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from relay.chat.accounts import requests
from relay.chat.names import INBOX_PREFIX, normal
from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import LINES, Target, places, target_options
from relay.cli.client_commands.invite import DATA, DAYS, offline
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, put_aside, who_options
from relay.cli.console.confirming import YES, confirm
from relay.cli.console.json_lines import user_object
from relay.cli.console.printing import print_error_line, print_json, print_line, print_whole
from relay.cli.process.exits import CommandError, Exit
from relay.client import account_calls
from relay.client.account_calls import Change, User, checked_name
from relay.client.aio import Client
from relay.limits import INVITATION_DAYS
from relay.terminal.text import harmless_name
from relay.terminal.view import day_and_minute

if TYPE_CHECKING:
    from relay.server.offline.accounts import OfflineAccounts


LOST: Final = {
    "rm": "The account {name} will be removed; nobody gets its name again",
    "reset": "All devices of {name} will be removed from it",
}
"""Irreversible actions, by command; a person is asked first."""
OWN: Final = {
    "demote": "Your account {name} will no longer be an operator's",
    "disable": "Your account {name} will be disabled, and all its sessions end",
}
"""What an operator cannot undo on the own account, at a server: only another operator, or the
administrator of the machine, can. Done to others, the operator stays one."""


@click.group(cls=CommandGroup)
def user() -> None:
    """Accounts, for operators: add, list, show, disable, enable, reset, rm, promote, demote.

    Each command asks a server where you are an operator; or, with --data DIR, works on the data
    directory of a stopped relay.
    """


def _command(name: str, *required: str) -> Callable[[Callable[..., Any]], click.Command]:
    def make(function: Callable[..., Any]) -> click.Command:
        wrapped = places(*required, optional=[], unless="data")(
            DATA(LINES(who_options(program=False)(target_options(function))))
        )
        return user.command(name)(wrapped)

    return make


@_command("list")
def list_(target: Target | None, who: Who, data: Path | None, as_json: bool) -> int:
    """List all accounts: name, state, number of devices."""
    tell = _object if as_json else _line
    if data is not None:
        with offline(data) as accounts:
            for name in accounts.names():
                tell(_shown(accounts, name))
        return Exit.OK
    assert target is not None

    async def use(client: Client) -> int:
        for name in await client.users():
            tell(await client.user(name))
        return Exit.OK

    return run_connected(target, who, use)


@_command("show", "USER")
def show(target: Target | None, who: Who, data: Path | None, as_json: bool, user: str) -> int:
    """Show what is known about an account."""
    tell = _object if as_json else _block
    if data is not None:
        with offline(data) as accounts:
            tell(known(_shown(accounts, checked_name(user))))
        return Exit.OK
    assert target is not None

    async def use(client: Client) -> int:
        tell(known(await client.user(user)))
        return Exit.OK

    return run_connected(target, who, use)


def _changing(name: str, change: Change, help_text: str, *, invites: bool = False) -> None:
    def function(
        target: Target | None,
        who: Who,
        data: Path | None,
        as_json: bool,
        user: str,
        days: float = INVITATION_DAYS,
        operator: bool = False,
        yes: bool = False,
    ) -> int:
        what: Change = "add-operator" if operator else change
        confirm_change(name, user, yes=yes)
        if data is not None:
            request, invitation = account_calls.change(what, days)
            with offline(data) as accounts:
                accounts.ask(INBOX_PREFIX + checked_name(user), request)
            _done(user, name, invitation, as_json)
            return Exit.OK
        assert target is not None
        if name in OWN and not yes:
            own: list[str] = []

            async def ask(client: Client) -> int:
                own.append(client.name)
                return Exit.OK

            code = run_connected(target, who, ask)  # no connection is kept while a person is asked
            if code != Exit.OK:
                return code
            if normal(user) == normal(own[0]):
                confirm(OWN[name].format(name=user), user, yes=yes)

        async def use(client: Client) -> int:
            _done(user, name, await client.change_user(user, what, days=days), as_json)
            if what == "remove" and normal(user) == client.name:
                put_aside(who, client)
            return Exit.OK

        return run_connected(target, who, use)

    function.__doc__ = help_text
    made: Callable[..., Any] = function
    if invites:
        made = DAYS(made)
    if name in LOST or name in OWN:
        made = YES(made)
    if change == "add":
        made = click.option("--operator", is_flag=True, help="The account is an operator's.")(made)
    _command(name, "USER")(made)


_changing(
    "add", "add", "Reserve a free name for somebody; print the invitation to it.", invites=True
)
_changing("disable", "disable", "End all sessions of an account, and allow none.")
_changing("enable", "enable", "Allow logins again.")
_changing(
    "reset",
    "reset",
    "Remove all devices of an account, and print an invitation that starts it again, for "
    "somebody who lost"
    " them all. Everybody who knows the account is warned.",
    invites=True,
)
_changing("rm", "remove", "Remove an account permanently. Its name is never assigned again.")
_changing("promote", "promote", "Make an account an operator's.")
_changing("demote", "demote", "Make an operator's account an ordinary one.")

DONE: Final = {
    "add": "is reserved for whoever has this invitation:",
    "reset": "has no devices now; this invitation starts it again:",
    "disable": "is disabled",
    "enable": "is enabled",
    "rm": "is removed",
    "promote": "is an operator",
    "demote": "is not an operator",
}


def _shown(accounts: OfflineAccounts, name: str) -> User:
    return account_calls.as_user(name, accounts.ask(INBOX_PREFIX + name, requests.Show()))


def known(user: User) -> User:
    """Return an existing or former account. Raises CommandError for any other."""
    if user.state == "none":
        raise CommandError(f"there is no account {harmless_name(user.name)!r}")
    return user


def confirm_change(what: str, name: str, *, yes: bool) -> None:
    """Have a person confirm what cannot be undone. Raises UsageError, CommandError."""
    if what in LOST:
        confirm(LOST[what].format(name=name), name, yes=yes)


def _done(name: str, what: str, invitation: str | None, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "done": what, "invitation": invitation})
        return
    print_error_line(f"{name} {DONE[what]}")
    if invitation is not None:
        print_whole(invitation)


def _object(found: User) -> None:
    print_json(user_object(found))


def _line(found: User) -> None:
    role = " operator" if found.operator else ""
    count = len(found.devices)
    devices = f"{count} device{'' if count == 1 else 's'}"
    print_line(f"{harmless_name(found.name)} {found.state}{role}, {devices}")


def _block(found: User) -> None:
    _line(found)
    for device in found.devices:
        print_whole(f"  device {device.key}")
    if found.expires_ms:
        over = found.expires_ms <= time.time() * 1000
        until = f"{'has expired' if over else 'expires'} {day_and_minute(found.expires_ms)}"
        print_line(f"  the invitation to it {until}")
