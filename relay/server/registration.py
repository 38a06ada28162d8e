"""Who may register, as chosen at the first start and recorded in the data directory.

It is recorded so that a later start without the flag, or from behind a proxy, does not open what
was closed. The first invitation is created at the same time: whoever can read the data directory
and redeems it becomes the first operator. It is kept in a separate file, not in the log.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from relay.chat.accounts import invitation
from relay.chat.accounts.decide import Registration
from relay.errors import StartError
from relay.server.keys.key_files import create_key_file, read_key_file

if TYPE_CHECKING:
    from relay.settings import Accounts

RECORD: Final = "accounts.toml"
FIRST_INVITATION: Final = "first-invitation"
KEPT: Final[Literal["kept"]] = "kept"
TOKEN_BYTES: Final = 32
MODES: Final = get_args(Registration)
log = logging.getLogger("relay.supervisor")


@dataclass(frozen=True, slots=True)
class RegistrationRecord:
    """The recorded choice, and the location of the first invitation while it is unused."""

    mode: Registration
    invitation_path: Path

    @property
    def waits_for_operator(self) -> bool:
        """True while the first invitation is unused."""
        return self.invitation_path.exists()


def first_invitation(path: Path) -> bytes:
    """Return the hash of the first invitation; empty once it was used.

    Not for the supervisor: it needs OpenSSL.

    Raises:
        StartError: the file is invalid.
    """
    data = read_key_file(path)
    if data is None:
        return b""
    try:
        return invitation.hash_of(invitation.token_of(data.decode("ascii").strip()))
    except ValueError:
        raise StartError(
            f"{path} is not a valid invitation (any more): remove it, and make an operator with: "
            "relay user add NAME --operator --data DIR"
        ) from None


def ended(path: Path, name: str) -> None:
    """Delete the file of the first invitation if the ended invitation has this log."""
    first = first_invitation(path)
    if first and name == invitation.log_of(first):
        with contextlib.suppress(OSError):
            path.unlink()


def chosen(data: Path) -> Registration:
    """Return the choice recorded in a data directory; "invite" if there is none.

    Raises:
        StartError: it cannot be read.
    """
    content = read_key_file(data / RECORD)
    return "invite" if content is None else _mode(data / RECORD, content)


def _mode(path: Path, content: bytes) -> Registration:
    try:
        found = tomllib.loads(content.decode()).get("registration")
    except ValueError:
        found = None
    if found not in MODES:
        raise StartError(f'{path}: expected registration = "open", "invite" or "closed"')
    return cast("Registration", found)


def prepare(data: Path, settings: Accounts, *, change: bool = True) -> RegistrationRecord:
    """Read the recorded choice, or record it at the first start.

    Args:
        data: the data directory.
        settings: may differ from what is recorded.
        change: record the difference. False: it does not apply yet.

    Raises:
        StartError: it cannot be read or written.
    """
    path, invitation_path = data / RECORD, data / FIRST_INVITATION
    content = read_key_file(path)
    if content is None:
        mode: Registration = "invite" if settings.registration == KEPT else settings.registration
        if not invitation_path.exists():
            token = base64.b32encode(os.urandom(TOKEN_BYTES)).rstrip(b"=").lower()
            create_key_file(invitation_path, token + b"\n")
        create_key_file(path, _text(mode))
        log.info("registration_chosen", extra={"registration": mode})
        return RegistrationRecord(mode, invitation_path)
    found = _mode(path, content)
    wanted = settings.registration
    if wanted != KEPT and wanted != found:
        if change:
            create_key_file(path, _text(wanted), replace=True)
            log.warning("registration_changed", extra={"registration": wanted, "before": found})
        found = wanted
    return RegistrationRecord(found, invitation_path)


def _text(mode: Registration) -> bytes:
    return (
        "# Who may register here: open, invite or closed. Written by relay serve, which changes\n"
        "# it when the setting accounts.registration is another one.\n"
        f'registration = "{mode}"\n'
    ).encode()
