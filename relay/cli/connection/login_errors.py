"""What a person can do about a refused login, or a missing key."""

from __future__ import annotations

from pathlib import Path

from relay.chat.names import is_guest
from relay.cli.process.exits import CommandError
from relay.client.address import Address
from relay.client.errors import NoDeviceKey
from relay.client.refusals import (
    InvitationNeeded,
    KeyRefused,
    LooksAlike,
    NameTaken,
    NotRegistered,
    Refused,
    RegistrationClosed,
)
from relay.client.trust.lineage import FOLLOWED_TYPE
from relay.client.trust.policy import KeyPolicy


def perhaps_changed_key(policy: KeyPolicy, address: Address) -> str:
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


def explained(
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
