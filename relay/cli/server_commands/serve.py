"""``relay serve``: reads the flags and settings, then runs the server."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from relay import configuration
from relay.cli.arguments.options import typed_path
from relay.cli.console.printing import print_line
from relay.cli.server_commands.config import VALID, print_settings
from relay.paths import followed

log = logging.getLogger("relay.supervisor")


def reset_what_is_inherited() -> None:
    """Do it before any file is opened or created."""
    if sys.platform == "linux":
        from relay.server.system import inherited

        inherited.reset()


@click.command()
@click.option(
    "-b",
    "--bind",
    multiple=True,
    metavar="ADDRESS",
    help="Where to listen: HOST:PORT or unix:PATH. Repeatable.",
)
@click.option(
    "-w", "--workers", metavar="N", help="Number of worker processes; auto: one per core."
)
@click.option("--data", metavar="DIR", help="The data directory: messages and the server's key.")
@click.option(
    "--durability",
    metavar="process|power",
    help="What an accepted message survives: a killed process, or also a power failure.",
)
@click.option(
    "--registration",
    metavar="open|invite|closed",
    help="Who may register a name: everybody, people with an invitation, or only those whom an"
    " operator has added.",
)
@click.option("--max-connections", metavar="N", help="Maximum connections per worker.")
@click.option("--graceful-timeout", metavar="SECONDS", help="How long a stop waits for clients.")
@click.option(
    "--worker-timeout", metavar="SECONDS", help="Silence after which a worker is replaced."
)
@click.option("--key-bits", metavar="N", help="Size of a newly generated RSA key.")
@click.option("--runtime", metavar="DIR", help="Directory for internal sockets.")
@click.option(
    "--control",
    metavar="ADDRESS",
    help="Where to serve /metrics and /readyz: HOST:PORT, unix:PATH, auto or off.",
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="auto, json or text.")
@click.option(
    "-c",
    "--config",
    callback=typed_path,
    envvar="RELAY_CONFIG",
    metavar="FILE",
    help="TOML file with settings.",
)
@click.option(
    "--new-identity",
    is_flag=True,
    help="Create a new key for a data directory that has lost its own.",
)
@click.option("--check-config", is_flag=True, help="Validate the configuration and exit.")
@click.option("--print-config", is_flag=True, help="Print every setting and its source, and exit.")
def serve(
    config: Path | None,
    new_identity: bool,
    check_config: bool,
    print_config: bool,
    workers: str | None,
    **flags: str | tuple[str, ...] | None,
) -> int:
    """Run a relay server.

    Settings come from flags, RELAY_SECTION__KEY variables, a file and defaults, in this order.
    """
    given = {
        "server.bind": flags["bind"],
        "server.workers": "0" if workers == "auto" else workers,
        "server.max_connections": flags["max_connections"],
        "server.graceful_timeout_s": flags["graceful_timeout"],
        "server.worker_timeout_s": flags["worker_timeout"],
        "server.key_bits": flags["key_bits"],
        "server.runtime": flags["runtime"],
        "store.data": flags["data"],
        "store.durability": flags["durability"],
        "control.bind": flags["control"],
        "accounts.registration": flags["registration"],
        "log.level": flags["log_level"],
        "log.format": flags["log_format"],
    }
    if not (print_config or check_config):
        reset_what_is_inherited()
    loaded = configuration.load(given, os.environ, config)
    if print_config:
        print_settings(loaded)
        return 0
    if check_config:
        print_line(VALID)
        return 0
    # After the flags are checked: --help and a typo do not need the server.
    from relay.server.startup.start import start

    if config is not None:
        config = config.absolute()  # it is read again at a reload
    return start(
        loaded.settings,
        _announce,
        lambda: configuration.load(given, os.environ, config).settings,
        new_identity=new_identity,
    )


def _announce(addresses: list[str], first_invitation: Path | None, registration: str) -> None:
    """Print the relay's address, how to chat there, and how to register."""
    from relay.server.system.output import Output

    program = _own_program()
    lines = ["Relay is ready at"]
    lines += [f"  {address}" for address in addresses]
    if addresses[0].startswith("unix:"):
        lines += ["Clients connect through a proxy"]
    else:
        lines += ["To chat, run", f"  {program} chat {addresses[0]}"]
    if first_invitation is not None and registration != "open":
        path = shlex.quote(str(first_invitation))
        lines += [
            "No operator is registered yet. To become the operator, first run",
            f"  {program} register {addresses[0]} --invitation-file {path}",
        ]
    text = "\n".join(lines) + "\n"
    # The reader may be gone or slow: a server must neither wait for it nor stop.
    if not Output(1).write(text.encode(errors="backslashreplace")):
        log.warning("announcement_unread", extra={"addresses": addresses})


def _own_program() -> str:
    """Return the command that runs this program."""
    path = Path(sys.argv[0])
    if path.name != "relay":
        return f"{sys.executable} -m relay.cli"
    found = shutil.which("relay")
    try:
        if found is not None and followed(Path(found)) == followed(path):
            return "relay"
    except OSError:
        pass  # the current directory, which the path is relative to, was removed
    return str(path)
