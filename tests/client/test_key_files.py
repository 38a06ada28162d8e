"""Key files: complete, private, never overwritten; stored pins are kept."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relay.chat.accounts.chain import Pin
from relay.client.devices.credentials import KeyChoice
from relay.client.devices.device_key import (
    DeviceKey,
    PassphraseNeeded,
    public_from_text,
    public_text,
)
from relay.client.devices.key_files import KeyFiles
from relay.client.errors import NoDeviceKey
from relay.client.file_lock import locked
from relay.client.trust.known_servers import KnownServers
from relay.errors import UsageError
from tests.support.programs import run_program

SERVER = "a" * 52
PIN = Pin(b"r" * 32, 3, b"h" * 32)


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    return KeyFiles(tmp_path / "keys")


def test_a_key_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "some" / "key"
    key = DeviceKey.generate()
    key.name = "bot"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = DeviceKey.load(path)
    assert (again.public, again.name, again.path) == (key.public, "bot", path)
    assert [one.name for one in path.parent.iterdir()] == ["key"], "no partial file is left"
    assert again.sign(b"m") == key.sign(b"m")


def test_no_file_can_be_made_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is not a directory"):
        DeviceKey.generate().save(tmp_path / "file" / "key")
    with pytest.raises(UsageError, match="Is a directory"):
        DeviceKey.load(tmp_path)


def test_it_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    DeviceKey.generate().save(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        DeviceKey.generate().save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_too_open(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    DeviceKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(UsageError, match="open to others"):
        DeviceKey.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("member", [True, False])
def test_a_key_in_a_secret_of_kubernetes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: bool
) -> None:
    """Mode 0440, of a group without a name that fsGroup puts the process in."""
    path, group = tmp_path / "key", 54322
    DeviceKey.generate().save(path)
    os.chown(path, 0, group)
    path.chmod(0o440)
    monkeypatch.setattr(os, "getgroups", lambda: [group] if member else [])
    with contextlib.nullcontext() if member else pytest.raises(UsageError, match="open to others"):
        DeviceKey.load(path)


def test_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.wire.sealed_seed.COST", 1 << 10)
    path = tmp_path / "key"
    key = DeviceKey.generate()
    key.save(path, "open sesame")
    assert key.paper() not in path.read_text()
    with pytest.raises(PassphraseNeeded):
        DeviceKey.load(path)
    with pytest.raises(UsageError, match="passphrase is wrong"):
        DeviceKey.load(path, "sesame")
    assert DeviceKey.load(path, "open sesame").public == key.public


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", b"[]", b"null", b"7", b"{}", b"\xff", b'{"format": 7}',
        b'{"format": "relay device key, version 2"}',
        json.dumps({"format": "relay device key, version 1", "seed": "00"}).encode(),
        json.dumps({"format": "relay device key, version 1", "seed": "zz" * 32}).encode(),
        json.dumps({"format": "relay device key, version 1", "seed": 7}).encode(),
        b'{"format": "relay device key, version 1", "scrypt_cost": Infinity}',
        b"[" * 4000,
    ],
)  # fmt: skip
def test_what_is_no_key_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=str(path)):
        DeviceKey.load(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="relay register"):
        DeviceKey.load(tmp_path / "none")
    with pytest.raises(UsageError, match=str(tmp_path)):
        DeviceKey.load(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """It may never get a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        DeviceKey.load(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["pins", "alice.chain"])
def test_a_pipe_where_something_is_kept_stays_one(files: KeyFiles, name: str) -> None:
    """It is neither waited for nor replaced."""
    path = files.directory / SERVER / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with contextlib.suppress(UsageError):
        assert files.chain(SERVER, "alice") == []
        files.keep_chain(SERVER, "alice", [b"link"])
        files.pin(SERVER, "bob", Pin(b"r" * 32, 0, b"r" * 32))
    with contextlib.suppress(UsageError):
        files.pins(SERVER)
    assert path.is_fifo()


def test_on_paper() -> None:
    key = DeviceKey.generate()
    text = key.paper()
    assert len(text) == 52
    spaced = " ".join(text[n : n + 4] for n in range(0, 52, 4)).upper()
    assert DeviceKey.from_paper(spaced).public == key.public
    for wrong in ("", "x", text[:-1], text + "aaaa", "0" * 52):
        with pytest.raises(UsageError):
            DeviceKey.from_paper(wrong)


def test_public_keys_as_text() -> None:
    public = DeviceKey.generate().public
    assert public_from_text(public_text(public)) == public
    for wrong in ("", "x", "a" * 52, public_text(public)[:-1]):
        with pytest.raises(UsageError) as told:
            public_from_text(wrong)
        assert len(wrong) < 50 or wrong not in str(told.value), "it may be a recovery key"


def test_one_key_for_each_server_and_name(files: KeyFiles) -> None:
    one = files.create(SERVER, "alice")
    assert files.create(SERVER, "alice").public == one.public, "two programs at once get the same"
    assert files.create(SERVER, "bob").public != one.public
    assert files.create("b" * 52, "alice").public != one.public
    found = files.find(SERVER, "alice")
    assert found is not None
    assert found.public == one.public
    assert files.find(SERVER, "carol") is None
    os.utime(files.path_of(SERVER, "bob"), (0, 0))
    assert files.names(SERVER) == ["alice", "bob"], "the one used last first"
    assert files.names("c" * 52) == []


@pytest.mark.skipif(os.name != "posix", reason="limits are of Unix")
def test_a_pin_that_does_not_fit_is_taken_back(files: KeyFiles) -> None:
    """A size limit stands for a full disk: half a line would end every later login."""
    files.pin(SERVER, "alice", PIN)
    path = files.directory / SERVER / "pins"
    size = path.stat().st_size
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from relay.chat.accounts.chain import Pin\n"
        "from relay.client.devices.key_files import KeyFiles\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 40}, {size + 40}))\n"
        f"KeyFiles(Path(sys.argv[1])).pin('{SERVER}', 'bob', Pin(b'r' * 32, 1, b'h' * 32))\n"
    )
    done = run_program(program, files.directory)
    assert "UsageError: cannot write" in done.stderr
    assert path.stat().st_size == size
    assert files.pins(SERVER) == {"alice": PIN}


def test_pins(files: KeyFiles) -> None:
    assert files.pins(SERVER) == {}
    files.pin(SERVER, "alice", PIN)
    files.pin(SERVER, "bob", PIN)
    files.pin(SERVER, "alice", PIN._replace(number=4))
    assert files.pins(SERVER) == {"alice": PIN._replace(number=4), "bob": PIN}
    path = files.directory / SERVER / "pins"
    path.write_text(path.read_text() + "alice what\n")
    with pytest.raises(UsageError, match="line 4"):
        files.pins(SERVER)


@pytest.mark.parametrize("char", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_only_a_newline_ends_a_line_of_pins(files: KeyFiles, char: str) -> None:
    """A damaged line is an error: it is neither two lines nor the end of what is read."""
    files.pin(SERVER, "alice", PIN)
    files.pin(SERVER, "bobby", PIN)
    path = files.directory / SERVER / "pins"
    path.write_text(path.read_text().replace(" ", char, 1))
    with pytest.raises(UsageError, match="line 1: not of the form"):
        files.pins(SERVER)


@pytest.mark.parametrize("cut", [1, 2, 3, 30, 31, 62, 100, 135])
def test_half_a_line_of_pins_takes_no_other_with_it(files: KeyFiles, cut: int) -> None:
    """A program killed while writing leaves half a line; a login reads the complete ones."""
    files.pin(SERVER, "alice", PIN)
    files.pin(SERVER, "bobby", PIN)
    path = files.directory / SERVER / "pins"
    path.write_bytes(path.read_bytes()[:-cut])
    left = {"alice": PIN, "bobby": PIN} if cut == 1 else {"alice": PIN}
    assert files.pins(SERVER) == left
    files.pin(SERVER, "carol", PIN)
    assert files.pins(SERVER) == left | {"carol": PIN}
    assert path.read_bytes().count(b"\n") == len(left) + 1, "nothing is left of it"


_LINE = f"carol {'ab' * 32} 3 {'cd' * 32}"


@pytest.mark.parametrize(
    "line",
    [
        _LINE.encode().replace(b"carol", b"\xc7"),
        _LINE.encode().replace(b"carol", b""),
        _LINE.encode().replace(b"carol", b"c\tl"),
        _LINE.replace(" 3 ", " 1_0 ").encode(),
        _LINE.replace(" 3 ", " \u0663 ").encode(),
        _LINE.replace(" 3 ", " -3 ").encode(),
        _LINE.replace("abab", "ab\tb").encode(),
        _LINE.encode()[:-1],
    ],
)
def test_a_line_of_pins_is_valid_or_not_whether_it_is_read_or_added_to(
    files: KeyFiles, line: bytes
) -> None:
    """Reading and adding judge the last line alike: what was read is there after adding."""
    files.pin(SERVER, "alice", PIN)
    path = files.directory / SERVER / "pins"
    path.write_bytes(path.read_bytes() + line)
    assert files.pins(SERVER) == {"alice": PIN}
    files.pin(SERVER, "bobby", PIN)
    assert files.pins(SERVER) == {"alice": PIN, "bobby": PIN}
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UsageError, match="line 3: not of the form"):
        files.pins(SERVER)


def test_a_last_line_that_is_longer_than_any_is_not_cut(files: KeyFiles) -> None:
    """It is no incomplete line: cutting a part would damage the line that follows."""
    files.pin(SERVER, "alice", PIN)
    path = files.directory / SERVER / "pins"
    path.write_bytes(path.read_bytes() + b"x" * 600)
    for _ in range(2):
        with pytest.raises(UsageError, match="line 2: not of the form"):
            files.pins(SERVER)
        files.pin(SERVER, "bobby", PIN)
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], *text[2:], ""]))
    assert files.pins(SERVER) == {"alice": PIN, "bobby": PIN}


@pytest.mark.skipif(os.name != "posix", reason="links are of Unix")
def test_pins_never_become_more_than_can_be_read(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.client.devices.key_files.PINS_BYTES_MAX", 1000)
    names = [f"name-{n}" for n in range(7)]
    for name in names:
        files.pin(SERVER, name, PIN)
    with pytest.raises(UsageError, match="it is full"):
        files.pin(SERVER, "another", PIN)
    assert files.pins(SERVER) == dict.fromkeys(names, PIN)


@pytest.mark.skipif(os.name != "posix", reason="only under a lock")
def test_pins_that_do_not_count_any_more_are_removed(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At half of the bound; lines that this version does not understand are kept."""
    monkeypatch.setattr("relay.client.devices.key_files.PINS_BYTES_MAX", 2000)
    path = files.directory / SERVER / "pins"
    later = PIN._replace(root=b"r" * 48, head=b"h" * 48)
    for pin in (later, PIN, PIN._replace(number=4)):
        files.pin(SERVER, "alice", pin)
    files.pins(SERVER)
    assert path.read_text().count("\n") == 3
    for number in range(5, 9):
        files.pin(SERVER, "alice", PIN._replace(number=number))
    files.pin(SERVER, "bob", PIN)
    expected = {"alice": PIN._replace(number=8), "bob": PIN}
    for _ in range(2):
        assert files.pins(SERVER) == expected
        assert path.read_text().count("\n") == 3
        assert later.root.hex() in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="only under a lock")
def test_no_pin_is_lost_to_a_file_that_was_replaced(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the lock of the old file, and another program compacted it."""
    files.pin(SERVER, "alice", PIN)
    path = files.directory / SERVER / "pins"
    replaced: list[Path] = []

    def replace_first(descriptor: int, *, shared: bool, timeout_s: float) -> object:
        if not replaced:
            replaced.append(path.rename(path.with_name("old")))
            path.write_bytes(replaced[0].read_bytes())
        return locked(descriptor, shared=shared, timeout_s=timeout_s)

    monkeypatch.setattr("relay.client.devices.key_files.locked", replace_first)
    files.pin(SERVER, "bob", PIN)
    assert files.pins(SERVER) == {"alice": PIN, "bob": PIN}


def test_a_linked_file_is_replaced_where_it_is(files: KeyFiles, tmp_path: Path) -> None:
    """Otherwise the unencrypted key would stay, and the user's link would be lost."""
    real, link = tmp_path / "real.key", tmp_path / "bot.key"
    DeviceKey.generate().save(real)
    link.symlink_to(real)
    DeviceKey.load(link).save(link, "secret", replace=True)
    assert link.is_symlink()
    assert '"seed"' not in real.read_text()
    files.keep_chain(SERVER, "alice", [b"one"])
    chain = files.directory / SERVER / "alice.chain"
    chain.replace(real)
    chain.symlink_to(real)
    files.keep_chain(SERVER, "alice", [b"one", b"two"])
    assert chain.is_symlink()
    assert files.chain(SERVER, "alice") == [b"one", b"two"]


def test_ones_own_chain(files: KeyFiles) -> None:
    assert files.chain(SERVER, "alice") == []
    files.keep_chain(SERVER, "alice", [b"one", b"two"])
    assert files.chain(SERVER, "alice") == [b"one", b"two"]


# --- which key, and whether a name is claimed ---------------------------------------------------
@pytest.fixture
def _nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELAY_REGISTER")


@pytest.mark.usefixtures("_nothing_is_claimed")
def test_a_program_claims_no_name_by_itself(files: KeyFiles) -> None:
    missing = KeyChoice("alice", None, None, None, files).at(SERVER).missing
    assert isinstance(missing, NoDeviceKey)
    assert "relay register" in str(missing)
    assert files.names(SERVER) == [], "and no key was made"
    made = files.create(SERVER, "alice")
    found = KeyChoice("alice", None, None, None, files).at(SERVER)
    assert found.key is not None
    assert (found.key.public, found.may_register) == (made.public, False)


@pytest.mark.usefixtures("_nothing_is_claimed")
@pytest.mark.parametrize("how", ["register", "invitation", "environment"])
def test_on_purpose_it_does(files: KeyFiles, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "environment":
        monkeypatch.setenv("RELAY_REGISTER", "1")
    token = "a" * 52 if how == "invitation" else None
    choice = KeyChoice("alice", None, True if how == "register" else None, token, files)
    found = choice.at(SERVER)
    assert found.register_first
    assert files.names(SERVER) == ["alice"], "on disk before its public key is sent"


@pytest.mark.parametrize("own", [False, True])
def test_a_key_that_nobody_has_accepted_is_removed(
    files: KeyFiles, tmp_path: Path, own: bool
) -> None:
    """Unless another program reads it meanwhile, or it was there before."""
    path = tmp_path / "bot.key" if own else files.path_of(SERVER, "bot")
    key = path if own else None
    first = KeyChoice("bot", key, True, None, files)
    first.at(SERVER)
    first.unused()
    assert not path.exists()
    first.at(SERVER)
    os.utime(path, (1, 1))  # clocks of file systems are coarse
    second = KeyChoice("bot", key, True, None, files)
    second.at(SERVER)
    for choice in (first, second):
        choice.unused()
    assert path.exists()


def test_a_key_is_removed_while_another_program_reads_it(files: KeyFiles) -> None:
    """The reader registers no key whose file was removed."""
    first = KeyChoice("bot", None, True, None, files)
    first.at(SERVER)

    class Late(KeyFiles):
        def load(self, path: Path) -> DeviceKey:
            key = super().load(path)
            first.unused()
            return key

    found = KeyChoice("bot", None, True, None, Late(files.directory)).at(SERVER)
    kept = files.find(SERVER, "bot")
    assert found.key is not None
    assert kept is not None
    assert kept.public == found.key.public


@pytest.mark.skipif(os.name != "posix", reason="only under a lock")
def test_a_key_is_taken_while_its_maker_waits_for_the_lock(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state before the lock was taken may be outdated."""
    first = KeyChoice("bot", None, True, None, files)
    first.at(SERVER)
    path = files.path_of(SERVER, "bot")
    found: list[bytes] = []

    def second_first(descriptor: int, *, shared: bool, timeout_s: float) -> object:
        monkeypatch.undo()
        key = KeyChoice("bot", None, True, None, KeyFiles(files.directory)).at(SERVER).key
        assert key is not None
        found.append(key.public)
        return locked(descriptor, shared=shared, timeout_s=timeout_s)

    monkeypatch.setattr("relay.client.devices.credentials.locked", second_first)
    first.unused()
    assert [files.load(path).public] == found


@pytest.mark.usefixtures("_nothing_is_claimed")
def test_a_key_file_of_the_programs_own(files: KeyFiles, tmp_path: Path) -> None:
    path = tmp_path / "bot.key"
    with pytest.raises(UsageError, match="relay register"):
        KeyChoice("bot", path, None, None, files).at(SERVER)
    made = KeyChoice("bot", path, True, None, files).at(SERVER)
    again = KeyChoice("bot", str(path), None, None, files).at(SERVER)
    assert made.key is not None
    assert again.key is not None
    assert again.key.public == made.key.public
    assert not again.may_register


@pytest.mark.usefixtures("_nothing_is_claimed")
def test_a_tilde_is_the_home_directory(
    files: KeyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No directory named ``~`` is created for programs either; an empty path is an error."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path))
    made = KeyChoice("bot", "~/bot.key", True, None, files).at(SERVER).key
    assert made is not None
    assert DeviceKey.load(tmp_path / "bot.key").public == made.public
    assert DeviceKey.load("~/bot.key").public == made.public
    DeviceKey.generate().save("~/other.key")
    KnownServers("~/pins").pin("host", 1, "a" * 52)
    KeyFiles("~/keys").create("a" * 52, "bot")
    for name in ("other.key", "pins", "keys"):
        assert (tmp_path / name).exists()
    assert not list(Path().iterdir())
    with pytest.raises(UsageError, match="name too long"):
        KeyChoice("bot", "x" * 70_000, True, None, files).at(SERVER)
    uses: list[Callable[[str], object]] = [
        DeviceKey.load, DeviceKey.generate().save, KnownServers, KeyFiles,
        lambda path: KeyChoice("bot", path, True, None, files),
    ]  # fmt: skip
    for use in uses:
        for path in ("", "~nobody-has-this-name/x", "a\0b", "\ud800"):
            with pytest.raises(
                UsageError, match=r"expected a path|no such home directory|not UTF-8"
            ):
                use(path)


@pytest.mark.usefixtures("_nothing_is_claimed")
@pytest.mark.parametrize("in_file", [False, True])
def test_what_was_seen_is_kept_with_a_key_that_was_opened_from_a_file(
    files: KeyFiles, tmp_path: Path, in_file: bool
) -> None:
    """As with --key and with a passphrase, where the command opens the file itself."""
    key = DeviceKey.generate()
    if in_file:
        key.save(tmp_path / "bot.key", "a passphrase")
    pin = Pin(bytes(32), 0, bytes(32))
    choice = KeyChoice("bot", key, False, None, files)
    assert choice.needs_files == in_file
    choice.at(SERVER)
    choice.keep(SERVER, {"alice": pin}, [b"link"])
    found = KeyChoice("bot", key, False, None, files).at(SERVER)
    assert found.pins == ({"alice": pin} if in_file else {})
    assert found.chain == ([b"link"] if in_file else None)


@pytest.mark.usefixtures("_nothing_is_claimed")
def test_programs_that_make_a_file_at_once_have_one_key(files: KeyFiles, tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def make(_: int) -> bytes:
        choice = KeyChoice("bot", tmp_path / "bot.key", True, None, files)
        together.wait()
        key = choice.at(SERVER).key
        assert key is not None
        return key.public

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(8)))) == 1


def test_a_guest_has_none(files: KeyFiles) -> None:
    assert KeyChoice("~bob", None, True, None, files).at(SERVER).key is None
    with pytest.raises(UsageError, match="invitation"):
        KeyChoice("bob", None, None, "too short", files)
    with pytest.raises(TypeError, match="key must be"):
        KeyChoice("bob", 7, None, None, files)  # type: ignore[arg-type]
