"""``relay backup``: copies of a relay's data that can be verified and restored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from relay.chunking import chunks
from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import config_option, data_option, document_option, typed_directory
from relay.cli.console.printing import print_error_line, print_json, print_whole
from relay.cli.process.exits import CommandError, Exit, report
from relay.cli.process.interrupts import EndsRaised
from relay.cli.server_commands.ctl_client import Server, data_directory, locate
from relay.cli.server_commands.damaged_logs import HELP_FOR_LOGS, reasons_by_log
from relay.errors import StartError
from relay.terminal.view import day_and_clock

if TYPE_CHECKING:
    from relay.server.backups.manifest import Manifest
    from relay.store.file.integrity import DamagedLog

_backup = click.argument("directory", metavar="BACKUP", callback=typed_directory)


@click.group(cls=CommandGroup)
@click.pass_context
def backup(ctx: click.Context) -> None:
    """Backups of a relay's data: all rooms and accounts as of one moment, its key, its settings.

    A backup is a directory. Anybody who has it can read every message and impersonate the relay.
    """
    ctx.with_resource(EndsRaised())


@backup.command()
@_backup
@data_option
@config_option
@document_option
def create(directory: Path, data: str | None, config: Path | None, as_json: bool) -> int:
    """Create BACKUP, a new directory, whether or not the relay is running.

    It contains everything that was acknowledged before. Commits are held for some milliseconds.
    What is damaged in the data is damaged in the backup, too: it is named, with exit code 1.
    """
    found = data_directory(data, config)
    return make(found, directory, lambda: locate(None, data, config), as_json=as_json)


@backup.command()
@_backup
@document_option
def verify(directory: Path, as_json: bool) -> int:
    """Read all of BACKUP, and check that every file and message is unchanged.

    Its accounts, invitations and rooms are checked as by "relay data check". Exit code 1 if it was
    changed, or if something in it was damaged before it was made.
    """
    from relay.server.backups import restore as restoring
    from relay.server.system.resource_limits import need_command_files

    need_command_files()
    found = restoring.verify(directory)
    what = "unchanged" if found.damaged else "good"
    return _tell(what, directory, found.manifest, found.damaged, as_json)


@backup.command()
@_backup
@data_option
@config_option
@document_option
def restore(directory: Path, data: str | None, config: Path | None, as_json: bool) -> int:
    """Verify BACKUP and restore it to a data directory, which must be empty or new.

    Then start the relay as usual. Clients resume; those that have messages missing from the backup
    are told of a gap. Exit code 1 with a restored directory if something in it is damaged.
    """
    from relay.server.backups import restore as restoring
    from relay.server.system.resource_limits import need_command_files

    need_command_files()
    found = data_directory(data, config)
    restored = restoring.restore(directory, found)
    what = f"restored to {found} from"
    return _tell(what, directory, restored.manifest, restored.damaged, as_json)


def make(data: Path, to: Path, running: Any, *, as_json: bool) -> int:  # noqa: ANN401
    """Create a backup, report it, and return the exit code.

    ``running`` returns the relay that uses the data, if any.

    Raises:
        StartError, CommandError: it cannot be created.
    """
    from relay.server.backups.create import create as create_backup
    from relay.server.system.resource_limits import need_command_files
    from relay.store.file.directory import DataDirectory

    need_command_files()
    progress = _progress if sys.stderr.isatty() and not as_json else lambda *_: None
    directory = DataDirectory.existing(data)
    try:
        lock = directory.lock()
    except StartError:
        made = create_backup(data, to, RunningRelay(running()), progress)
    else:
        with lock:
            if unclean := directory.unclean_partitions():
                raise CommandError(
                    f"{data}: the partitions {unclean} were not closed cleanly: start the relay "
                    "once, and make the backup while it runs or after it has stopped"
                )
            made = create_backup(data, to, None, progress)
    more = {"held_ms": made.held_ms, "attempts": made.attempts}
    return _tell("made", to, made.manifest, made.damaged, as_json, **more)


WORKERS_PER_QUESTION: Final = 64
"""Each is named in the request: more would not fit (``line_server.QUESTION_BYTES_MAX``)."""


class RunningRelay:
    """The running relay, reached through its control socket."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def pause(self) -> list[object]:
        """See ``create.Running``."""
        held: list[object] = self._server.ask("pause-commits")["held"]
        return held

    def resume(self, held: Sequence[object]) -> bool:
        """See ``create.Running``."""
        parts = [list(part) for part in chunks(held, count_max=WORKERS_PER_QUESTION)]
        # All are asked, whatever the first ones answer: their pauses must end.
        answers = [self._server.ask("go-on", held=part)["held"] for part in parts]
        return bool(answers) and all(answers)


def _progress(done: int, of: int) -> None:
    end = "\n" if done == of else ""
    click.echo(  # noqa: TID251  # a number that moves, of our own
        f"\r{done} of {of} partitions{end}", nl=False, err=True
    )


def _tell(
    what: str,
    path: Path,
    found: Manifest,
    damaged: list[DamagedLog],
    as_json: bool,
    **more: float,
) -> int:
    """Print the result and what is damaged in the backup; return the exit code."""
    made = day_and_clock(found.made_ms)
    if as_json:
        document = {
            "backup": str(path), "made_ms": found.made_ms, "relay": found.relay,
            "logs": found.logs, "entries": found.entries, "digest": found.digest,
            "bytes": sum(file.bytes for file in found.files.values()),
            "damaged": reasons_by_log(damaged), **more,
        }  # fmt: skip
        print_json(document)
    else:
        print_whole(
            f"{what} {path}: {found.entries} entries in {found.logs} logs, as of {made}, digest "
            f"{found.digest}"
        )
        if more.get("held_ms"):
            print_error_line(f"commits were held for {more['held_ms']} ms")
    for one in damaged:
        report(f"{one.log} is damaged: {one.reason}")
    if damaged:
        report(f"{len({one.log for one in damaged})} {HELP_FOR_LOGS}")
    return Exit.FAILED if damaged else Exit.OK
