"""``relay data``: checks, repairs, exports and imports the messages on the disk."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import click

from relay.chat.names import is_handle
from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import (
    LINES,
    STANDARD,
    config_option,
    data_option,
    typed_directory,
    typed_path,
)
from relay.cli.console.json_lines import message_object
from relay.cli.console.printing import dump, print_json, print_line, print_whole
from relay.cli.process.exits import CommandError, Exit, report
from relay.cli.process.interrupts import EndsRaised
from relay.cli.server_commands import foreign_lines
from relay.cli.server_commands.ctl_client import data_directory
from relay.cli.server_commands.damaged_logs import HELP_FOR_LOGS, reasons_by_log
from relay.client.events import Message
from relay.errors import UsageError
from relay.wire.packing import unpack_entry

if TYPE_CHECKING:
    from relay.server.offline.repair import Found

FORMATS: Final = ("json", "irssi", "weechat")


@click.group(cls=CommandGroup)
@click.pass_context
def data(ctx: click.Context) -> None:
    """The messages on the disk.

    All commands except export require that the relay is not running.
    """
    from relay.server.system.resource_limits import need_command_files

    ctx.with_resource(EndsRaised())
    need_command_files()


@data.command()
@data_option
@config_option
@LINES
def check(data: str | None, config: Path | None, as_json: bool) -> int:
    """Read every partition completely, as a start does in case of doubt, and change nothing.

    Accounts, invitations and rooms are checked as well: whether every entry can be read, and
    whether their states, with every signature of a device chain, follow from their entries. Exit
    code 1 if a start would refuse a partition, or if one of these is damaged.
    """
    from relay.server.offline import repair as repairing
    from relay.store.file.directory import gone_text

    bad = wrong = 0
    with repairing.stopped(data_directory(data, config)) as directory:
        for found in repairing.check(directory):
            bad += found.refused is not None
            wrong += len(found.damaged)
            if as_json:
                print_json(_checked(found))
                continue
            if found.refused is not None:
                print_line(f"{found.partition:02} refused: {found.refused}")
                continue
            assert found.examined is not None
            logs, entries, digest = found.examined.contents
            doubt = f"; new epochs: {found.examined.doubt}" if found.examined.doubt else ""
            print_line(
                f"{found.partition:02} good: {entries} entries in {logs} logs, digest "
                f"{digest}{doubt}"
            )
            for one in found.damaged:
                print_line(f"  {one.log} is damaged: {one.reason}")
        if gone := directory.gone_partitions():
            report(gone_text(directory.path, gone))
    if bad:
        report(f"{bad} partitions are refused; relay data repair keeps what can be read of them")
    if wrong:
        report(f"{wrong} {HELP_FOR_LOGS}")
    return Exit.FAILED if bad or wrong else Exit.OK


def _checked(found: Found) -> dict[str, Any]:
    """Return what is known about one partition."""
    fields: dict[str, Any] = {"partition": found.partition, "refused": found.refused}
    if found.examined is not None and found.refused is None:
        logs, entries, digest = found.examined.contents
        fields |= {"logs": logs, "entries": entries, "digest": digest}
        fields |= {"new_epochs": str(found.examined.doubt)} if found.examined.doubt else {}
        fields |= {"damaged": reasons_by_log(found.damaged)} if found.damaged else {}
    return fields


@data.command()
@data_option
@config_option
def repair(data: str | None, config: Path | None) -> int:
    """Replace partitions that a start refuses by what is readable in them.

    Every readable entry keeps its place; for readers the others are gaps, as they are while a relay
    runs. Partitions of which one room's rights or senders cannot be read are replaced, too, if they
    follow from the rest. The old files are kept in the directory "damaged". Other partitions are
    not changed. A backup is better, if there is one.
    """
    from relay.server.offline import repair as repairing

    done = wrong = 0
    with repairing.stopped(data_directory(data, config)) as directory:
        for found in list(repairing.check(directory)):
            if repairing.readmit(directory, found):
                print_line(f"{found.partition:02} was refused, and is whole now")
            if found.to_repair is None:
                for one in found.damaged:
                    report(f"{one.log} is left as it is: {one.reason}")
                wrong += len(found.damaged)
                continue
            done += 1
            made = repairing.repair(directory, found, _json_line)
            how = "it was refused" if found.refused else "it was damaged"
            print_line(f"{made.partition:02} repaired; {how}: {made.reason}")
            for kept in made.logs:
                name = kept.name or "(a log without its beginning)"
                lost = f", {kept.lost} lost" if kept.lost else ""
                aside = f", {kept.aside} readable ones without a place" if kept.aside else ""
                print_line(f"  {name}: {kept.kept} entries kept{lost}{aside}")
                if kept.doubtful:
                    report(
                        f"{kept.name}: it is not known any more who may do what, so it stays "
                        "refused as damaged: restore a backup"
                    )
                elif kept.lost and repairing.is_account(kept.name):
                    report(
                        f"{kept.name}: if its last changes are lost, a device that was removed may "
                        "be back: look at its devices (relay user show)"
                    )
            print_whole(f"  the old files, and what was not kept: {made.kept_in}")
    if wrong:
        report(f"{wrong} {HELP_FOR_LOGS}")
    if not done:
        print_line("nothing to repair")
    return Exit.FAILED if wrong else Exit.OK


@data.command()
@click.option("--room", metavar="ROOM", help="Only this one.  [default: all]")
@click.option("--backup", callback=typed_directory, metavar="BACKUP", help="From a backup instead.")
@data_option
@config_option
def export(room: str | None, backup: Path | None, data: str | None, config: Path | None) -> int:
    """Write messages to stdout as JSON lines, like "relay tail --json"; room by room.

    The relay may be running; messages written meanwhile may then be missing.
    """
    from relay.server.offline.export import export as exported
    from relay.store.file.directory import is_backup, is_data_directory

    if room is not None and not is_handle(room):
        raise UsageError(f"invalid room name {room!r}")
    source = backup or data_directory(data, config)
    if is_data_directory(source) and not is_backup(source):
        _refuse_unclean(source)
    for entry in exported(source, room):
        print_json(message_object(Message(*entry)))
    return Exit.OK


def _refuse_unclean(source: Path) -> None:
    """Refuse partitions left by a crash: reading them would destroy evidence that a start needs."""
    from relay.errors import StartError
    from relay.store.file.directory import DataDirectory

    directory = DataDirectory(source)
    try:
        lock = directory.lock()
    except StartError:
        return  # a relay uses it
    with lock:
        if unclean := directory.unclean_partitions():
            raise CommandError(
                f"{source}: no relay has closed the partitions {unclean} cleanly: start it once; "
                "of what a backup was restored to, export the backup (--backup)"
            )


@data.command("import")
@click.argument("file", metavar="FILE", callback=typed_path)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="json",
    show_default=True,
    help="Its format.",
)
@click.option(
    "--room", metavar="ROOM", help="The room to import into; needed for irssi and weechat."
)
@data_option
@config_option
def import_(file: Path, form: str, room: str | None, data: str | None, config: Path | None) -> int:
    """Import the messages of FILE (-: standard input) into rooms, with their original times.

    Their senders become guests (~alice), because their authorship is not proved here. The same file
    is imported only once, however often it is given.
    """
    from relay.server.offline import export as exporting
    from relay.server.offline import repair as repairing

    if room is not None and not is_handle(room):
        raise UsageError(f"invalid room name {room!r}")
    if form != "json" and room is None:
        raise click.UsageError(f"--format {form} needs --room")
    with (
        _opened(file) as source,
        repairing.stopped(data_directory(data, config)) as directory,
    ):
        digest = hashlib.file_digest(cast("io.BufferedReader", source), "sha256").digest()
        now_ms = exporting.now_ms()
        for _ in _messages(source, file, form, room, now_ms):
            pass  # only validates: all of it is readable, or nothing is stored
        lines = (exporting.Line._make(one) for one in _messages(source, file, form, room, now_ms))
        done = exporting.import_lines(directory, digest, lines)
    again = f"; {done.repeated} were already stored" if done.repeated else ""
    print_line(f"{done.stored} messages stored{again}")
    return Exit.OK


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """Open a file that is read several times: of a pipe, and of standard input, a copy."""
    with ExitStack() as opened:
        try:
            source: IO[bytes] = sys.stdin.buffer
            if file != STANDARD:
                source = opened.enter_context(file.open("rb"))
            if not source.seekable():
                copy = opened.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(source, copy)
                copy.seek(0)
                source = copy
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        yield source


def _messages(
    source: IO[bytes], file: Path, form: str, room: str | None, now_ms: int
) -> Iterator[foreign_lines.Read]:
    readers: dict[str, Callable[[Iterable[str], Any, int], Iterator[foreign_lines.Read]]] = {
        "json": foreign_lines.json_lines,
        "irssi": foreign_lines.irssi,
        "weechat": foreign_lines.weechat,
    }
    source.seek(0)
    decoded = foreign_lines.decoded(source, mixed=form != "json")
    try:
        yield from readers[form](decoded, room, now_ms)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None


def _json_line(packed: bytes) -> str:
    return dump(message_object(Message(*unpack_entry(packed))))
