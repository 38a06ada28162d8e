"""Backups of a running relay: consistent over all partitions, and restorable."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import BlockingClient, NoSuchRoom
from relay.chat.partition import partition_of
from relay.cli.process.exits import CommandError
from relay.cli.server_commands.backup import RunningRelay
from relay.cli.server_commands.ctl_client import Server, locate
from relay.client.events import Gap, Message, Unfollowed
from relay.errors import StartError
from relay.server.backups.create import FILE_BYTES_MAX, create
from relay.server.backups.restore import restore
from relay.settings import WORKERS_MAX
from relay.store.contents import LogContents
from tests.support.cluster import Relay, run_relay, wait_until
from tests.support.logs import read_logs
from tests.support.namespaces import NAMESPACES
from tests.support.programs import run_program
from tests.support.threads import beside

FIRST, SECOND = "lobby", "kitchen"
BACKUPS = 4


def test_the_rooms_are_of_two_workers() -> None:
    assert partition_of(FIRST) % 2 != partition_of(SECOND) % 2


def backup(*args: str | Path) -> dict[str, Any]:
    ended = run_relay("backup", *args, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def logs_of(directory: Path, upto: dict[str, int] | None = None) -> dict[str, LogContents]:
    """Return the logs in the files of a backup, or of a stopped relay."""
    found: dict[str, LogContents] = {}
    for path in sorted((directory / "logs").glob("*.sqlite")):
        for log in read_logs(
            path, None if upto is None else lambda name: (upto or {}).get(name, 0)
        ):
            found[log.name] = log
    return found


class Writer:
    """Sends each number to one room and, after its acknowledgement, to the other room."""

    def __init__(self, address: str) -> None:
        self.acknowledged = 0
        self._address = address
        self._done = threading.Event()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with beside(self._run, stop=self._done):
            wait_until(lambda: self.acknowledged > 10, "acknowledged messages")
            yield

    def _run(self) -> None:
        with BlockingClient(self._address, name="writer") as client:
            number = 0
            while not self._done.is_set():
                number += 1
                client.send(FIRST, str(number))
                client.send(SECOND, str(number))
                self.acknowledged = number


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_backup_is_of_one_moment_in_all_partitions(tmp_path: Path, durability: str) -> None:
    data = tmp_path / "data"
    made: list[tuple[int, Path]] = []
    with Relay(data, workers=2, settings={"store.durability": durability}) as relay:
        writer = Writer(relay.address)
        with writer.writing():
            for number in range(BACKUPS):
                before, to = writer.acknowledged, tmp_path / f"backup{number}"
                backup("create", to, "--data", data)
                made.append((before, to))
        assert relay.stop() == 0
        assert not relay.events("partition_unavailable")
    for before, to in made:
        found = logs_of(to)
        # It has every message acknowledged before it began, and no message without its
        # predecessors.
        assert found[SECOND].head >= before
        assert 0 <= found[FIRST].head - found[SECOND].head <= 1
        heads = {name: log.head for name, log in found.items()}
        assert logs_of(data, heads) == found
        assert backup("verify", to)["entries"] == sum(log.entries for log in found.values())


def test_clients_resume_at_a_relay_that_was_restored(tmp_path: Path) -> None:
    data, to = tmp_path / "data", tmp_path / "backup"
    with (
        Relay(data, workers=2) as relay,
        BlockingClient(relay.address, name="alice") as alice,
        BlockingClient(relay.address, name="bob") as bob,
    ):
        alice.send(FIRST, "kept")
        bob.join(FIRST, since=0)
        events = bob.events()
        assert next(e for e in events if isinstance(e, Message)).body == b"kept"
        ended = run_relay("ctl", "--data", data, "backup", to)
        assert ended.returncode == 0, ended.stderr
        assert "commits were held" in ended.stderr
        alice.send(SECOND, "in a room that is lost")
        bob.join(SECOND)
        alice.send(FIRST, "lost")
        assert next(e for e in events if isinstance(e, Message)).body == b"lost"
        relay.stop()
        data.rename(tmp_path / "gone")
        restored = backup("restore", to, "--data", data)
        assert (restored["logs"], restored["entries"]) == (3, 4)  # the room and two accounts
        relay.start()
        assert alice.send(FIRST, "after").seq == 3  # the lost sequence number, in a new epoch
        gone = "NO_SUCH_ROOM: that room no longer exists; join again for another one of its name"
        kinds = Gap | Message | Unfollowed
        told = [next(e for e in events if isinstance(e, kinds)) for _ in range(3)]
        [out] = [one for one in told if isinstance(one, Unfollowed)]  # at any place among them
        assert (out.room, out.detail) == (SECOND, gone), "nobody has deleted it"
        gap, after = [one for one in told if one is not out]
        assert isinstance(gap, Gap)
        assert isinstance(after, Message)
        assert (after.seq, after.body) == (3, b"after")
        with pytest.raises(NoSuchRoom, match="no longer exists"):
            bob.send(SECOND, "for those who were in it")


def test_of_a_relay_that_does_not_run(tmp_path: Path) -> None:
    data, to, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        alice.send(FIRST, "one")
    made = backup("create", to, "--data", data)
    assert (made["entries"], made["held_ms"]) == (3, 0)
    refused = run_relay("serve", "--data", to)
    assert refused.returncode == 1
    assert f"{to} is a backup: make a data directory of it" in refused.stderr
    for option in ("--backup", "--data"):
        exported = run_relay("data", "export", option, to)
        assert json.loads(exported.stdout)["body"] == "one", exported.stderr
    again.mkdir()
    again.chmod(0o755)
    backup("restore", to, "--data", again)
    assert logs_of(again) == logs_of(data)
    assert (again / "server.key").read_bytes() == (data / "server.key").read_bytes()
    for path in (to, again):
        found = [one.stat().st_mode for one in (path, *path.rglob("*"))]
        modes = {(stat.S_ISDIR(mode), oct(stat.S_IMODE(mode))) for mode in found}
        assert modes == {(False, "0o600"), (True, "0o700")}, (
            "the backup contains the key and all messages"
        )


def test_a_pause_of_the_commits_ends_by_itself(tmp_path: Path) -> None:
    """The backup process may have died: commits resume, and no backup relies on the expired
    pause.
    """
    with Relay(tmp_path / "data", workers=2) as relay:
        server: Server = locate(None, str(relay.data), None)
        with BlockingClient(relay.address, name="alice") as alice:
            alice.send(FIRST, "one")
            held = server.ask("pause-commits")["held"]
            assert len(held) == 2
            alice.send(FIRST, "two")
            alice.send(SECOND, "two")
            assert RunningRelay(server).resume(held) is False
            alice.send(FIRST, "three")


def test_a_pause_of_as_many_workers_as_there_can_be(tmp_path: Path) -> None:
    """The request to resume lists every worker."""
    with Relay(tmp_path / "data") as relay:
        server: Server = locate(None, str(relay.data), None)
        held = [[number, 2**32, "f" * 16] for number in range(WORKERS_MAX)]
        assert RunningRelay(server).resume(held) is False
        for wrong in (5, [5], [["x", 1, ""]], [[float("inf"), 1, ""]]):
            with pytest.raises(CommandError, match="held: expected what was answered"):
                server.ask("go-on", held=wrong)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a relay and a backup of it. Tests do not change either."""
    directory = tmp_path_factory.mktemp("secret")
    data = directory / "data"
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        alice.send(FIRST, "a secret that is stored as it is")
        backup("create", directory / "backup", "--data", data)
    return directory


@pytest.fixture
def made(secret: Path, tmp_path: Path) -> Path:
    """A backup that tests may change."""
    return shutil.copytree(secret / "backup", tmp_path / "backup")


def refused(*args: str | Path) -> str:
    ended = run_relay("backup", *args)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_what_is_no_backup_any_more_is_refused_with_its_file(made: Path, tmp_path: Path) -> None:
    file = made / "logs" / f"{partition_of(FIRST):02}.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"a secret", b"a sekret"))
    new = tmp_path / "new"
    expected = f"relay: {file} was changed after the backup: its SHA-256 differs\n"
    assert refused("verify", made) == expected
    assert refused("restore", made, "--data", new) == expected
    assert not new.exists()
    file.unlink()
    assert refused("verify", made) == f"relay: {file} is missing\n"
    file.write_bytes(whole)
    backup("verify", made)
    (made / "backup.json").unlink()
    assert "not a backup, or an unfinished one" in refused("verify", made)


def test_a_partition_that_was_taken_away_is_not_left_out(tmp_path: Path) -> None:
    """The partition file alone, or with its lock file."""
    data, to = tmp_path / "data", tmp_path / "backup"
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        alice.send(FIRST, "one")
    file = data / "logs" / f"{partition_of(FIRST):02}.sqlite"
    for taken, why in (
        (file, f"the partitions [{partition_of(FIRST)}] were not closed cleanly"),
        (file.with_suffix(".lock"), f"{file} is missing"),
    ):
        taken.rename(tmp_path / taken.name)
        assert why in refused("create", to, "--data", data)
        assert not to.exists()


def test_nothing_is_overwritten(secret: Path) -> None:
    data, made = secret / "data", secret / "backup"
    before = sorted(path.name for path in made.rglob("*"))
    assert "exists and is not empty" in refused("create", made, "--data", data)
    assert sorted(path.name for path in made.rglob("*")) == before
    assert "is not empty" in refused("restore", made, "--data", data)
    assert logs_of(data) == logs_of(made)
    assert "not the data directory" in refused("create", secret / "b", "--data", secret)
    assert sorted(path.name for path in secret.iterdir()) == ["backup", "data"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["create", "restore"])
def test_a_signal_that_ends_it_leaves_nothing(
    secret: Path, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    """What it has written contains the key; a timer's time limit, a shutdown or a lost terminal
    ends a command like Ctrl-C.
    """
    to = tmp_path / "to" / "made"
    to.parent.mkdir()
    if command == "create":
        arguments = ["create", str(to), "--data", str(secret / "data")]
    else:
        arguments = ["restore", str(secret / "backup"), "--data", str(to)]
    ended = run_program(
        "import os, signal, sys\n"
        "from relay.cli.__main__ import main\n"
        "def look(event, arguments):\n"
        "    path = str(arguments[0]) if event == 'os.mkdir' else ''\n"
        f"    if path.startswith({str(to.parent)!r}) and path.endswith('/logs'):\n"
        "        print(*os.listdir(os.path.dirname(path)), flush=True)\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "sys.addaudithook(look)\n"
        f"sys.argv = ['relay', 'backup', *{arguments!r}]\n"
        "sys.exit(main())\n"
    )
    # A line feed follows the ^C of a terminal.
    assert (ended.returncode, ended.stderr.strip()) == (-number, "")
    assert ended.stdout, "it was writing"
    assert list(to.parent.iterdir()) == []


class Busy:
    """A running relay that commits during the pause of its commits."""

    def __init__(self) -> None:
        self.quiet = iter((False, False, True))

    def pause(self) -> None:
        """Do not pause the commits."""

    def resume(self, _: object) -> bool:
        """Return whether nothing was committed since ``pause``."""
        return next(self.quiet)


def test_what_was_not_of_one_moment_is_taken_again(secret: Path, tmp_path: Path) -> None:
    made = create(secret / "data", tmp_path / "backup", Busy(), lambda *_: None)
    assert made.attempts == 3


def test_what_belongs_to_no_relay_is_not_taken_along(secret: Path, tmp_path: Path) -> None:
    data = shutil.copytree(secret / "data", tmp_path / "data")
    (data / "core").write_bytes(bytes(FILE_BYTES_MAX + 1))
    with pytest.raises(StartError, match="core: too large to belong to a relay"):
        create(data, tmp_path / "backup", None, lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_hostile_backup_is_refused_with_what_is_wrong(made: Path, tmp_path: Path) -> None:
    """Refused: files that no backup contains, and files without a size limit."""
    new, manifest = tmp_path / "new", made / "backup.json"
    good = json.loads(manifest.read_text())

    def restored_with(**changed: object) -> str:
        manifest.write_text(json.dumps(good | changed))
        with pytest.raises(StartError) as error:
            restore(made, new)
        assert not new.exists()
        return str(error.value)

    whole, log = good["files"], f"logs/{partition_of(FIRST):02}.sqlite"
    for name in (
        "../out",
        "/out",
        "a/b",
        "..",
        "",
        "a\0",
        "logs/00.sqlite-wal",
        "lock",
        "runtime",
        "a\nb",
    ):
        outside = {**whole, name: whole["format"]}
        assert f"a file that no backup has: {name!r}" in restored_with(files=outside)
    for name in ("logs/99.sqlite", f"{log}.old"):  # a start would not check its messages
        shutil.copyfile(made / log, made / name)
        renamed = {name if one == log else one: file for one, file in whole.items()}
        assert "a file that no backup has" in restored_with(files=renamed)
    for text in (b'{"more": ' + b"[" * 100_000, b'{"relay": "\xff"}', b""):
        manifest.write_bytes(text)
        with pytest.raises(StartError, match="it is not a backup's description"):
            restore(made, new)
    for wrong in (-1, 10**18, 10**30, "now"):
        assert "it is not a backup's description" in restored_with(made_ms=wrong)
    assert "format 2" in restored_with(format=2)
    os.mkfifo(made / "pipe")
    (made / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        output = restored_with(files={**whole, name: whole["format"]})
        assert output == f"{made / name}: it is not a regular file"
    manifest.unlink()
    os.mkfifo(manifest)
    assert refused("verify", made) == f"relay: {manifest}: it is not a regular file\n"


def test_a_backup_and_a_data_directory_lie_apart(secret: Path, made: Path, tmp_path: Path) -> None:
    data = secret / "data"
    before = sorted(path.name for path in data.rglob("*"))
    (tmp_path / "linked").symlink_to(data / "logs")
    (tmp_path / "by-link").symlink_to(data)
    for to in (data / "backup", data / "logs" / "a" / "b", tmp_path / "linked" / "backup",
               data / ".." / "data" / "backup", tmp_path / "by-link"):  # fmt: skip
        for given in (data, tmp_path / "by-link"):
            expected = f"backup {to}: it would be in the data directory {given}, and be lost"
            assert expected in refused("create", to, "--data", given)
    output = refused("create", made / "another", "--data", data)
    assert f"it would be in the backup {made}: name another directory" in output
    output = refused("restore", made, "--data", made / "logs" / "data")
    assert f"it would be in the backup {made}: name another directory" in output
    assert sorted(path.name for path in data.rglob("*")) == before
    backup("verify", made)
    # a sibling directory is allowed
    backup("create", data.with_name("data-backup"), "--data", data)
    shutil.rmtree(data.with_name("data-backup"))


@NAMESPACES
def test_a_second_mount_of_a_data_directory_is_within_it(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (data / "logs").mkdir(parents=True)
    elsewhere.mkdir()
    for mounted in (data, data / "logs"):
        probe = (
            "import sys; from pathlib import Path; "
            "from relay.server.backups.nesting import is_within; "
            "print(is_within(Path(sys.argv[1]) / 'new', Path(sys.argv[2])))"
        )
        command = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "$2" "$5"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", command, "sh",
             mounted, elsewhere, sys.executable, probe, data],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout == "True\n", done.stderr
