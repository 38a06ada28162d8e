"""relay.client.trust.known_servers."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from relay.client.address import parse_address
from relay.client.trust.known_servers import (
    PATH_VARIABLE,
    KnownServers,
    Pin,
    default_path,
    format_pin,
    match,
    parse,
)
from relay.client.trust.lineage import KeyChange
from relay.client.trust.policy import KeyPolicy
from relay.errors import UsageError
from tests.support.cluster import COMMAND_S, DEADLINE_S, ROOT
from tests.support.programs import run_program
from tests.support.threads import beside

KEY = "a" * 52
OTHER = "b" * 51 + "q"


def test_parse_passes_over_what_is_not_ours() -> None:
    """Comments, empty lines, other key types; a comment after the fingerprint is allowed."""
    text = (
        "# a comment\n\n"
        f"[one.example]:7475 relay-key-v1 {KEY} my server\n"
        "[two.example]:22 ssh-ed25519 AAAA\n"
        f"[::1]:80 relay-key-v1 {OTHER}\n"
    )
    assert parse(text, Path("x")) == [Pin("one.example", 7475, KEY), Pin("::1", 80, OTHER)]


@pytest.mark.parametrize(
    "line",
    [
        "[host]:7475 relay-key-v1",
        "[host]:7475 relay-key-v1 short",
        f"[host]:x relay-key-v1 {KEY}",
        f"host relay-key-v1 {KEY}",
    ],
)
def test_a_damaged_pin_is_an_error(line: str) -> None:
    """The error has file and line: a pin that is silently ignored would cause a new question."""
    with pytest.raises(UsageError, match="known, line 2"):
        parse(f"# first\n{line}\n", Path("known"))


def test_match_is_by_host_and_port() -> None:
    """Case of the host does not matter; the first line wins."""
    pins = [Pin("a", 1, KEY), Pin("a", 2, OTHER), Pin("a", 1, OTHER)]
    assert match(pins, "A", 1) == Pin("a", 1, KEY)
    assert match(pins, "a", 2) == Pin("a", 2, OTHER)
    assert match(pins, "a", 3) is None


@pytest.mark.parametrize(
    "spellings",
    [
        ["[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]"],
        ["127.0.0.1", "127.1", "0x7F.1", "2130706433", "[::ffff:127.0.0.1]", "127.0.0.1."],
        ["relay.example", "Relay.EXAMPLE", "relay.example."],
        ["xn--bcher-kva.example", "XN--BCHER-KVA.example."],
        ["[fe80::1%eth0]", "[FE80:0::0:1%eth0]"],
    ],
)
def test_a_server_is_known_by_each_spelling_of_its_host(
    spellings: list[str], tmp_path: Path
) -> None:
    """Whichever was pinned, also in a file of before, or by hand: no question, and no second pin
    that another key could have.
    """
    hosts = [parse_address(f"relay://{text}").host for text in spellings]
    for number, first in enumerate(hosts):
        known = KnownServers(tmp_path / str(number))
        known.pin(first, 7475, KEY)
        for host in hosts:
            assert known.expected(host, 7475) is not None
            with pytest.raises(UsageError, match="another key"):
                known.pin(host, 7475, OTHER)
        written = tmp_path / f"{number} by hand"
        written.write_text(f"[{spellings[number].strip('[]')}]:7475 relay-key-v1 {KEY}\n")
        assert all(KnownServers(written).expected(host, 7475) for host in hosts)
    assert KnownServers(tmp_path / "0").expected("127.0.0.2", 7475) is None


def test_pin_makes_a_private_file(tmp_path: Path) -> None:
    """0600 in a directory made for it; found again by another instance."""
    path = tmp_path / "new" / "known_servers"
    KnownServers(path).pin("Host", 7475, KEY)
    assert KnownServers(path).find("host", 7475) == Pin("host", 7475, KEY)
    assert path.read_text() == format_pin(Pin("host", 7475, KEY)) + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_pin_keeps_every_other_line(tmp_path: Path) -> None:
    """Also lines that it does not understand, and a missing last newline."""
    path = tmp_path / "known_servers"
    path.write_text("# mine\n[x]:1 future-key zzz")
    KnownServers(path).pin("h", 1, KEY)
    KnownServers(path).pin("h", 1, KEY)
    assert path.read_text() == f"# mine\n[x]:1 future-key zzz\n[h]:1 relay-key-v1 {KEY}\n"


def test_pin_never_replaces_a_key(tmp_path: Path) -> None:
    """Another key for the same address is refused, and the file is not changed."""
    path = tmp_path / "known_servers"
    known = KnownServers(path)
    known.pin("h", 1, KEY)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="another key"):
        known.pin("h", 1, OTHER)
    assert path.read_bytes() == before


def test_unreadable_and_unwritable_are_one_line(tmp_path: Path) -> None:
    """A directory in its place, text that is not UTF-8, a parent that is a file."""
    with pytest.raises(UsageError, match="cannot read"):
        KnownServers(tmp_path).find("h", 1)
    path = tmp_path / "known_servers"
    path.write_bytes(b"\xff\n")
    with pytest.raises(UsageError, match="cannot read"):
        KnownServers(path).find("h", 1)
    path.write_text("")
    with pytest.raises(UsageError, match="cannot"):
        KnownServers(path / "below").pin("h", 1, KEY)


def test_the_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$RELAY_KNOWN_SERVERS wins over the user's directory."""
    monkeypatch.setenv(PATH_VARIABLE, os.fspath(tmp_path / "k"))
    assert default_path() == tmp_path / "k"
    monkeypatch.delenv(PATH_VARIABLE)
    assert default_path().name == "known_servers"


# --- several at once -----------------------------------------------------------------------------
PROGRAM = """
import sys
from pathlib import Path
from relay.client.trust.known_servers import KnownServers
known = KnownServers(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    known.pin(f"host-{sys.argv[2]}-{number}", 1, "a" * 52)
"""


def test_first_contacts_at_once_keep_every_pin(tmp_path: Path) -> None:
    """From 120 threads, and from several processes: each reads again under a lock."""
    path = tmp_path / "threads"
    begin = threading.Barrier(120, timeout=DEADLINE_S)

    def pin(number: int) -> None:
        begin.wait()
        KnownServers(path).pin(f"host-{number}", 1, KEY)

    with beside(*(partial(pin, number) for number in range(120))):
        pass
    assert {pin.host for pin in parse(path.read_text(), path)} == {f"host-{n}" for n in range(120)}

    path = tmp_path / "processes"
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, path, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT,
        )
        for number in range(4)
    ]  # fmt: skip
    for program in programs:
        assert program.stdout is not None
        program.stdout.readline()
    for program in programs:
        program.communicate("go\n", timeout=COMMAND_S)
        assert program.returncode == 0
    assert len({pin.host for pin in parse(path.read_text(), path)}) == 80


def test_one_server_met_twice_at_once(tmp_path: Path) -> None:
    """One pin; of two different keys the second one is refused, in any order."""
    path = tmp_path / "pins"
    begin = threading.Barrier(40, timeout=DEADLINE_S)
    refused: list[str] = []

    def pin(number: int) -> None:
        begin.wait()
        try:
            KnownServers(path).pin("host", 1, (KEY, OTHER)[number % 2])
        except UsageError as error:
            refused.append(str(error))

    with beside(*(partial(pin, number) for number in range(40))):
        pass
    assert len(parse(path.read_text(), path)) == 1
    assert len(refused) == 20


# --- what the user arranged stays ----------------------------------------------------------------
def test_links_owner_and_mode_stay(tmp_path: Path) -> None:
    """A link to a file, to one that does not exist yet, a second name, a mode, an owner."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("# mine\n")
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 12345, 54321)
    link.symlink_to(real)
    hard = tmp_path / "hard"
    hard.hardlink_to(real)
    before = real.stat()
    KnownServers(link).pin("host", 1, KEY)
    after = real.stat()
    assert link.is_symlink()
    assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid, after.st_nlink) == (
        before.st_ino, before.st_mode, before.st_uid, before.st_gid, before.st_nlink,
    )  # fmt: skip
    assert KnownServers(hard).find("host", 1)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "later")
    KnownServers(dangling).pin("host", 1, KEY)
    assert dangling.is_symlink()
    assert KnownServers(tmp_path / "later").find("host", 1)


def test_the_null_device_remembers_nothing() -> None:
    """Beyond the object itself: a command asks once, connects, and forgets."""
    before = Path(os.devnull).stat()
    known = KnownServers(Path(os.devnull))
    assert known.find("host", 1) is None
    known.pin("host", 1, KEY)
    assert known.find("host", 1) == Pin("host", 1, KEY)
    assert KnownServers(Path(os.devnull)).find("host", 1) is None
    after = Path(os.devnull).stat()
    assert (after.st_mode, after.st_ino, after.st_rdev) == (
        before.st_mode, before.st_ino, before.st_rdev,
    )  # fmt: skip


def special(kind: str, tmp_path: Path) -> Path:
    """A path that is not a regular file."""
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(os.fspath(path))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link to a pipe":
        path.symlink_to(special("pipe", tmp_path))
    else:
        return Path(kind)
    return path


@pytest.mark.parametrize(
    "kind",
    ["pipe", "socket", "loop", "directory", "link to a pipe", "/dev/zero", "/dev/full",
     "/dev/tty"],
)  # fmt: skip
def test_other_special_files_are_refused(kind: str, tmp_path: Path) -> None:
    """With a one-line error, at once, and not changed."""
    path = special(kind, tmp_path)
    before = path.lstat().st_mode
    known = KnownServers(path)
    with pytest.raises(UsageError, match="cannot read") as reading:
        known.find("host", 1)
    with pytest.raises(UsageError, match="cannot write") as writing:
        known.pin("host", 1, KEY)
    assert "\n" not in f"{reading.value}{writing.value}"
    assert path.lstat().st_mode == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mounted_single_file(tmp_path: Path) -> None:
    """It cannot be replaced: it is written in place."""
    real, mounted = tmp_path / "real", tmp_path / "mounted"
    real.write_text("")
    mounted.write_text("")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c",
         'mount --bind "$1" "$2" && "$3" -c "$4" "$2" x < /dev/null', "sh",
         real, mounted, sys.executable, PROGRAM],
        capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd=ROOT,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this machine does not let us mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert len(parse(real.read_text(), real)) == 20


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    """A limit of the file's size stands for a full disk: all of the line or nothing."""
    path = tmp_path / "pins"
    path.write_text("# mine\n")
    program = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))\n" + PROGRAM
    )
    done = run_program(program, path, "x", stdin="\n")
    assert "cannot write the pinned server keys" in done.stderr
    assert path.read_text() == "# mine\n"


@pytest.mark.parametrize("null", [False, True])
def test_a_file_that_is_full_can_still_be_read(
    tmp_path: Path, null: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever one server proves about its keys: the file has the pins of all others, too."""
    monkeypatch.setattr("relay.client.trust.known_servers.FILE_BYTES_MAX", 1000)
    known = KnownServers(Path(os.devnull) if null else tmp_path / "pins")
    known.pin("other.example", 7475, KEY)
    keys = [51 * character + "q" for character in "cdefghijklmnop"]
    for old, new in pairwise(keys):
        KeyPolicy(known).keep([KeyChange(old, new, followed=False)])
    assert "is full" in caplog.text
    assert known.find("other.example", 7475)
    assert 0 < len(known.lineage().following) < len(keys) - 1
    with pytest.raises(UsageError, match="is full"):
        known.pin("third.example", 7475, KEY)
    assert not known.find("third.example", 7475)


def test_no_home_directory_is_one_line_and_only_when_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fingerprint in the address needs no file."""
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    KeyPolicy().expected(parse_address(f"relay://{KEY}@host:1"))
    with pytest.raises(UsageError, match="no home directory"):
        KeyPolicy().expected(parse_address("relay://host:1"))
