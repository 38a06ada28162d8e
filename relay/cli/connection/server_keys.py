"""Messages about a server's key, and the question on first contact."""

from __future__ import annotations

import contextlib
import sys
from enum import Enum
from pathlib import Path
from typing import IO

from relay.cli.process.exits import CommandError, Exit, report
from relay.client.address import Address, is_fingerprint, parse_address
from relay.client.aio.thread import in_thread
from relay.client.errors import ServerKeyMismatch, UnknownServerKey
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.lineage import FOLLOWED_TYPE
from relay.errors import UsageError

CONSOLE_IN = "CONIN$" if sys.platform == "win32" else "/dev/tty"
_CONSOLE_OUT = "CONOUT$" if sys.platform == "win32" else "/dev/tty"


def accept_unknown(
    address: Address, error: UnknownServerKey, known: KnownServers, accept_new: bool
) -> None:
    """Decide about the key of an unknown server; return with it pinned.

    Raises:
        CommandError: it is not trusted (exit code 2).
        UsageError: the pin cannot be written.
    """
    where = f"{address.host}, port {address.port}"
    if accept_new:
        known.pin(address.host, address.port, error.fingerprint)
        report(f"trusting the new server at {where}: {error.fingerprint} ({known.path})")
        return
    question = (
        f"The server at {where} is not known yet.\n"
        f"The fingerprint of its key is\n\n    {error.fingerprint}\n\n"
        "Compare it with the one that the operator gave you.\n"
        "If it differs, someone is intercepting you.\n"
        "Trust this key from now on? (yes/no/fingerprint) [no] "
    )
    verdict = _ask_at_terminal(question, error.fingerprint)
    if verdict is None:
        raise CommandError(
            f"the server at {where} is not known, and there is no terminal to ask at.\n"
            f"Its key's fingerprint is {error.fingerprint}\n"
            "If it is the right one, put it into the address"
            f" ({address._replace(fingerprint=error.fingerprint)}),\n"
            "or use --fingerprint, or --accept-new to trust whatever key comes first",
            Exit.USAGE,
        )
    if verdict is not Verdict.YES:
        differs = (
            "The fingerprint that you gave is not this key's: someone may be intercepting you.\n"
        )
        raise CommandError(
            (differs if verdict is Verdict.DIFFERS else "")
            + f"the key of the server at {where} was not accepted",
            Exit.USAGE,
        )
    known.pin(address.host, address.port, error.fingerprint)
    report(f"remembered in {known.path}")


class Verdict(Enum):
    """The meaning of an answer to the question."""

    YES = 1
    NO = 2
    DIFFERS = 3
    """A fingerprint, but of another key."""


def verdict_of(answer: str, fingerprint: str) -> Verdict | None:
    """Return the meaning of a typed line; None: unclear, ask again.

    The fingerprint may be typed in capitals, or be part of a pasted address.
    """
    answer = answer.strip()
    if answer.lower() in ("y", "yes"):
        return Verdict.YES
    if answer.lower() in ("", "n", "no"):
        return Verdict.NO
    try:
        given = parse_address(answer).fingerprint
    except UsageError:
        given = None
    if given is None and is_fingerprint(answer.lower()):
        given = answer.lower()
    if given is None:
        return None
    return Verdict.YES if given == fingerprint else Verdict.DIFFERS


def _ask_at_terminal(question: str, fingerprint: str) -> Verdict | None:
    """Ask at the terminal itself, never at a pipe. None: there is no terminal with a person."""
    if not (sys.stdin.isatty() or sys.stderr.isatty()):
        return None  # a script, even if it was started from a terminal
    try:
        with (
            open_console(_CONSOLE_OUT, "w") as shown,
            open_console(CONSOLE_IN, "r") as typed,
        ):
            while True:
                shown.write(question)
                shown.flush()
                line = typed.readline()
                if not line:  # Ctrl-D: the cursor is after the question
                    shown.write("\n")
                verdict = verdict_of(line, fingerprint) if line else Verdict.NO
                if verdict is not None:
                    return verdict
                question = "Please type 'yes', 'no' or the fingerprint: "
    except OSError:
        return None


def open_console(name: str, mode: str) -> IO[str]:
    """Open the controlling terminal."""
    return Path(name).open(mode, encoding="utf-8", errors="replace")


def is_new(address: Address, known: KnownServers) -> bool:
    """Return True if the fingerprint in an address is to be remembered once the server proves it.

    Raises:
        CommandError: another one is remembered for this host and port (exit code 3).
    """
    if address.fingerprint is None:
        return False
    try:
        pin = known.find(address.host, address.port)
        lineage = known.lineage()
    except UsageError:
        return False  # nothing can be remembered; the address contains all that is needed
    if pin is None:
        return True
    # One of the two may be a key that the other has announced, or has followed.
    if lineage.expected(pin.fingerprint).id == lineage.expected(address.fingerprint).id:
        return False
    raise CommandError(
        f"the address has another fingerprint than the one that is remembered for {address.host},"
        f" port {address.port}. Nothing was sent.\n"
        f"in the address: {address.fingerprint}\n"
        f"remembered:     {pin.fingerprint}  ({known.path}, line {pin.line})\n"
        "Either the operator replaced the key, or one of the two is not the operator's.\n"
        f"If the operator confirms the address, remove line {pin.line} of that file.",
        Exit.SERVER_KEY_CHANGED,
    )


async def remember(address: Address, known: KnownServers) -> None:
    """Remember the fingerprint in an address, which the server has proved, if possible."""
    fingerprint = address.fingerprint
    assert fingerprint is not None
    # A file that cannot be written is no reason to fail: the address is sufficient.
    with contextlib.suppress(UsageError):
        # It may wait for another program's lock, and for the disk.
        await in_thread(lambda: known.pin(address.host, address.port, fingerprint))


def _line(known: KnownServers, address: Address) -> int:
    """Return the number of the line that pins a server; 0 if there is none."""
    try:
        pin = known.find(address.host, address.port)
    except UsageError:
        return 0
    return 0 if pin is None else pin.line


def changed_key(address: Address, error: ServerKeyMismatch, known: KnownServers) -> CommandError:
    """Return the explanation for a key that differs from the expected one (exit code 3)."""
    where = f"{address.host}, port {address.port}"
    if address.fingerprint is not None:
        source, remedy = "the address", "ask the operator for the current address"
    else:
        line = _line(known, address)
        source = f"{known.path}, line {line}"
        remedy = (
            "if the operator confirms that the new key follows the old one, add this line to that"
            f" file:\n* {FOLLOWED_TYPE} {error.expected} {error.fingerprint}\n"
            f"If it is a different server now, remove line {line} instead"
        )
    return CommandError(
        f"THE KEY OF THE SERVER AT {where} HAS CHANGED. Nothing was sent.\n"
        "Either the operator replaced the key, or someone is intercepting the connection.\n"
        f"expected: {error.expected}  ({source})\n"
        f"offered:  {error.fingerprint}\n"
        f"Do not connect; {remedy}.",
        Exit.SERVER_KEY_CHANGED,
    )
