"""``relay serve`` and the state of its data directory: used, or refused with a one-line error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from relay.chat.accounts.chain import Pin
from relay.client.devices.key_files import KeyFiles
from relay.errors import StartError
from relay.server.keys.key_files import create_key_file
from relay.server.startup.recovery import recover
from relay.settings import Settings
from relay.store.errors import UsedElsewhere
from relay.store.file.directory import DataDirectory
from tests.cli.test_serve import refused
from tests.support.cluster import Relay, wait_until
from tests.support.logs import BOB, append, die, message, open_partition
from tests.support.pair import server_key

BIND = ("--bind", "127.0.0.1:0")


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o701, 0o1777])
@pytest.mark.parametrize("what", ["data", "logs"])
def test_open_to_others(tmp_path: Path, what: str, mode: int) -> None:
    data = tmp_path / "my data"
    DataDirectory(data)
    path = data if what == "data" else data / "logs"
    path.chmod(mode)
    code, line = refused("--data", data, *BIND)
    assert code == 1
    assert f"data directory: {path} is open to others (mode {mode:04o})" in line
    command = line.partition("run: ")[2].partition(" (under")[0]
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as a person pastes it
    assert path.stat().st_mode & 0o777 == 0o700
    DataDirectory(data)


MAKES: Final[Mapping[str, Callable[[], object]]] = {
    "key": lambda: KeyFiles().create("a" * 52, "alice"),
    "pin": lambda: KeyFiles().pin("a" * 52, "alice", Pin(bytes(32), 1, bytes(32))),
    "chain": lambda: KeyFiles().keep_chain("a" * 52, "alice", [b"link"]),
}


@pytest.mark.parametrize("what", MAKES)
def test_whoever_was_a_client_first_can_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A client's keys are below the default data directory, and may be older than the server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("RELAY_KEYS")
    before = os.umask(0o022)  # the usual default
    try:
        MAKES[what]()
    finally:
        os.umask(before)
    DataDirectory(Path(Settings().store.data))


OPEN = """
import os, sys
from pathlib import Path
from relay.server.supervisor.runtime_directory import prepare
from relay.store.file.directory import DataDirectory
from relay.store.errors import UsedElsewhere
os.setgroups([int(group) for group in sys.argv[2:]])
os.setgid(54321)
os.setuid(54321)
{use}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
@pytest.mark.parametrize("member", [True, False])
@pytest.mark.parametrize(
    "use", ["DataDirectory(Path(sys.argv[1]))", "prepare('', Path(sys.argv[1]))"]
)
def test_open_to_a_group_of_which_we_are_the_only_member(use: str, member: bool) -> None:
    """As Kubernetes mounts a volume with fsGroup, after a relay that was killed."""
    with tempfile.TemporaryDirectory() as volume:
        Path(volume).chmod(0o755)
        data = Path(volume) / "data"
        DataDirectory(data)
        (data / "run" / "bus").mkdir(parents=True)
        for path in (data, *data.rglob("*")):
            os.chown(path, 54321, 54322)
            path.chmod(0o2770 if path.is_dir() else 0o660)
        command = [
            sys.executable,
            "-c",
            OPEN.format(use=use),
            str(data),
            *(["54322"] if member else []),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) is member, ended.stderr
        assert member or "is open to others (mode 2770)" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_of_another_owner(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data)
    os.chown(data, 12345, 12345)
    code, line = refused("--data", data, *BIND)
    assert code == 1
    assert f"{data} belongs to uid 12345" in line
    assert f"run: chown -R 0 {data}" in line


def test_messages_without_their_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Relay(data) as relay:
        first = relay.address
    key = data / "server.key"
    key.rename(tmp_path / "server.key")
    code, line = refused("--data", data, *BIND)
    assert code == 1
    assert "its key server.key is missing: restore it from a backup" in line
    assert "--new-identity" in line
    assert not key.exists()
    with Relay(data, "--new-identity") as relay:
        assert relay.address.split("@")[0] != first.split("@")[0]
    code, line = refused("--data", data, *BIND, "--new-identity")
    assert code == 1
    assert f"{key} exists" in line


def test_a_key_that_vanishes_while_the_server_runs_is_not_replaced(tmp_path: Path) -> None:
    with Relay(tmp_path / "data") as relay:
        key = relay.data / "server.key"
        key.rename(tmp_path / "server.key")
        agent = relay.agent()
        assert agent is not None
        os.kill(agent, signal.SIGKILL)
        wait_until(
            lambda: any("has been removed" in str(e) for e in relay.events("boot_failed")),
            "the new agent logs what is wrong",
        )
        assert not key.exists()


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    """File names on Linux are bytes; SQLite's are UTF-8. Nothing is created before the check."""
    data = tmp_path / os.fsdecode(b"\xff")
    code, line = refused("--data", data, *BIND)
    assert code == 1
    assert "\\u{dcff}: its path is not UTF-8 text" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_path(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, line = refused("--data", value)
    assert code == 2
    file = tmp_path / "relay.toml"
    file.write_text(f"[store]\ndata = '{value}'\n")
    code, line = refused("--config", file)
    assert (code, str(file) in line) == (2, True)
    assert list(tmp_path.iterdir()) == [file]


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.mkdir(mode=0o700)


def device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


@pytest.mark.parametrize("put", [pipe, directory, device, link_to_nothing])
@pytest.mark.parametrize("name", ["format", "lock", "server.key", "logs/03.sqlite"])
def test_what_is_no_file_stays_as_it_is(
    tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    data = tmp_path / "data"
    made = DataDirectory(data)
    path = data / name
    path.unlink(missing_ok=True)
    if name != "server.key":
        create_key_file(data / "server.key", server_key().to_pem())
    try:
        put(path)
    except PermissionError:
        pytest.skip("no devices here")
    if name == "logs/03.sqlite" and put is link_to_nothing:
        pytest.skip("SQLite makes the file that the link names")
    before = path.lstat()
    code, line = refused("--data", made.path, *BIND)
    assert code in (1, 3)
    assert str(path) in line
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not (data / name).with_name("nothing").exists()


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("name", "put"),
    [
        ("03.lock", pipe),
        ("03.lock", directory),
        ("03.lock", device),
        ("03.lock", link_to_nothing),
        ("03.sqlite", link_to_itself),
    ],
)
def test_what_is_in_the_way_of_a_partition_keeps_that_one_alone_from_being_written(
    tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    DataDirectory(tmp_path / "data")
    create_key_file(tmp_path / "data" / "server.key", server_key().to_pem())
    path = tmp_path / "data" / "logs" / name
    try:
        put(path)
    except PermissionError:
        pytest.skip("no devices here")
    before = path.lstat()
    with Relay(tmp_path / "data") as relay:
        wait_until(lambda: relay.events("partition_unavailable"), "it to be told of")
        (told,) = relay.events("partition_unavailable")
        assert told["partition"] == 3
        assert told["reason"].startswith(str(path))
        assert "remove it" in told["reason"] or name == "03.sqlite"
        relay.stop()
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not path.with_name("nothing").exists()


@pytest.mark.parametrize("name", ["", "server.key"])
def test_a_link_that_leads_back_to_itself(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data" / name
    if name:
        DataDirectory(tmp_path / "data")
        create_key_file(tmp_path / "data" / "server.key", server_key().to_pem())
        path.unlink(missing_ok=True)
    path.symlink_to(path.name)
    code, line = refused("--data", tmp_path / "data", *BIND)
    assert code in (1, 3)
    assert str(path) in line
    assert "internal error" not in line
    assert path.is_symlink()


@pytest.mark.parametrize("name", ["ctl.sock", "agent.0.sock", "bus"])
def test_what_is_in_the_way_of_a_socket(tmp_path: Path, name: str) -> None:
    with tempfile.TemporaryDirectory() as runtime:  # shorter than pytest's
        path = Path(runtime, name)
        path.touch() if name == "bus" else path.mkdir()
        code, line = refused("--data", tmp_path / "data", "--runtime", runtime, *BIND)
    assert code == 1
    assert line.startswith(f"server.runtime {runtime}: " if name == "bus" else "server.runtime: ")
    assert f"{path} is not a directory" in line or f"{path}: Is a directory" in line


def test_a_partition_on_another_disk_by_a_link(tmp_path: Path) -> None:
    """SQLite keeps the WAL beside the link's target, and so must all code that reads the WAL."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    partition = open_partition(tmp_path)
    epoch = append(partition, message(1))[0].epoch
    partition.close()
    os.link(tmp_path / "00.sqlite", elsewhere / "00.sqlite")
    (tmp_path / "00.sqlite").unlink()
    (tmp_path / "00.sqlite").symlink_to(elsewhere / "00.sqlite")
    partition = open_partition(tmp_path)
    epoch = append(partition, message(2))[0].epoch
    die(partition)
    assert (elsewhere / "00.sqlite-wal").stat().st_size
    partition = open_partition(tmp_path)
    assert append(partition, message(3))[0].epoch == epoch
    die(partition)
    (elsewhere / "00.sqlite-wal").write_bytes(b"")
    partition = open_partition(tmp_path)
    assert append(partition, message(1, producer=BOB))[0].epoch != epoch
    partition.close()


def test_a_copy_of_a_directory_with_such_a_link_is_not_a_second_writer(tmp_path: Path) -> None:
    """``cp -a`` copies the link: both lead to one file."""
    logs, elsewhere = DataDirectory(tmp_path / "data").path / "logs", tmp_path / "elsewhere"
    partition = open_partition(logs)
    append(partition, message(1))
    partition.close()
    (logs / "00.sqlite").rename(elsewhere)
    (logs / "00.sqlite").symlink_to(elsewhere)
    partition = open_partition(logs)
    append(partition, message(2))
    shutil.copytree(logs.parent, tmp_path / "copy", symlinks=True)
    with pytest.raises(UsedElsewhere, match=r"00\.sqlite is a link to .*, which another"):
        open_partition(tmp_path / "copy" / "logs")
    with pytest.raises(StartError, match="which another relay uses"):
        recover(DataDirectory(tmp_path / "copy"), "boot 1", "process", lambda: None)
    append(partition, message(3))
    partition.close()
    copy = open_partition(tmp_path / "copy" / "logs")
    assert append(copy, message(1, producer=BOB))[0].seq == 4
    copy.close()


WITHOUT = """
import errno, os, sys
from pathlib import Path
from relay.cli.main import main
from relay.server.system import boot_id

def link(*_):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))

os.link = link
boot_id._BOOT_ID = Path(os.environ["BOOT_ID"])
sys.argv[0] = "relay"
sys.exit(main())
"""


def test_a_first_start_without_hard_links_and_without_a_boot_id(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-c", WITHOUT, "serve", "--data", str(data), *BIND]
    new_epochs = []
    for number in range(2):
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "RELAY_LOG__FORMAT": "json",
                "BOOT_ID": "/proc/hidden" if number == 0 else os.devnull,
            },
        ) as server:
            assert server.stdout is not None
            assert server.stderr is not None
            assert server.stdout.readline() == "Relay is ready at\n"
            assert (data / "server.key").stat().st_mode & 0o777 == 0o600
            os.killpg(server.pid, signal.SIGKILL)
            events = [json.loads(line) for line in server.stderr]
            assert [event["event"] for event in events].count("boot_id_unknown") == 1
            new_epochs = [event for event in events if event["event"] == "partition_new_epochs"]
            assert bool(new_epochs) is bool(number)
    assert "whether the machine has stopped" in new_epochs[0]["reason"]
