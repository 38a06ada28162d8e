"""The commands in environments that lack what a login shell has."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from relay import bounded_files
from relay.cli.process import streams
from tests.support import refused_calls
from tests.support.cluster import COMMAND_S, DEADLINE_S, ROOT, Relay, relay_command, run_relay
from tests.support.programs import run_program
from tests.support.tails import Tail

NO_PASSWD = """
import os, pwd
def missing(*_):
    raise KeyError("getpwuid(): uid not found: 12345")
pwd.getpwuid = pwd.getpwnam = missing
"""
WITHOUT_A_HOME = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "RELAY_KNOWN_SERVERS")


@pytest.fixture
def homeless(tmp_path: Path) -> dict[str, str]:
    """The environment of a user id without an entry, as in containers."""
    place = tmp_path / "python"
    place.mkdir()
    (place / "sitecustomize.py").write_text(NO_PASSWD)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in WITHOUT_A_HOME and not name.startswith("XDG_")
    }
    return inherited | {"PYTHONPATH": os.pathsep.join((str(place), str(ROOT)))}


def run(
    env: dict[str, str], *args: str | Path, text: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in exactly this environment."""
    return subprocess.run(
        relay_command(*args),
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        env=env,
        cwd=cwd or ROOT,
        start_new_session=True,
    )


def test_what_needs_no_home_works_without_one(
    relay: Relay, room: str, homeless: dict[str, str], tmp_path: Path
) -> None:
    """Names are generated, and with directories given, none of the user's is needed."""
    place = f"127.0.0.1:{relay.port}"
    known = ("--known-servers", tmp_path / "known")
    for command in (
        ("send", relay.address, room, "one"),
        ("send", place, room, "two", *known, "--accept-new"),
        ("chat", relay.address, room),
        ("chat", place, room, *known),
        ("serve", "--data", tmp_path / "data", "--check-config"),
        ("serve", "--data", tmp_path / "data", "--print-config"),
        ("serve", "--help"),
        ("config", "init", tmp_path / "relay.toml"),
    ):
        done = run(homeless, *command)
        assert done.returncode == 0, (command, done.stderr)
        assert "Traceback" not in done.stderr
    tail = [*relay_command("tail", relay.address, room, "--since", "0")]
    with subprocess.Popen(tail, stdout=subprocess.PIPE, env=homeless, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b"| one\n")
        process.terminate()


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("send", "127.0.0.1:1", "lobby", "x"), "RELAY_KNOWN_SERVERS"),
        (("chat", "127.0.0.1:1"), "RELAY_KNOWN_SERVERS"),
        (("tail", "127.0.0.1:1", "lobby"), "RELAY_KNOWN_SERVERS"),
        (("serve", "--check-config"), "--data"),
    ],
)
@pytest.mark.parametrize("home", [None, ""])
def test_what_needs_a_home_names_what_to_give(
    homeless: dict[str, str],
    tmp_path: Path,
    command: tuple[str, ...],
    remedy: str,
    home: str | None,
) -> None:
    """A one-line error; no directory called ``~``, and none in the root directory."""
    env = homeless if home is None else homeless | {"HOME": home}
    done = run(env, *command, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"relay: there is no home directory: set HOME, or {_(remedy)}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["python"]


def _(remedy: str) -> str:
    return "give --data, or store.data" if remedy == "--data" else f"name a file with {remedy}"


@pytest.mark.parametrize(
    ("args", "env"),
    [
        (("--known-servers", ""), {}),
        (("--known-servers", " "), {}),
        (("--known-servers", "~nobody-of-this-name/k"), {}),
        ((), {"XDG_CONFIG_HOME": "relative"}),
        ((), {"XDG_CONFIG_HOME": "~/.config"}),
        ((), {"RELAY_KNOWN_SERVERS": "~nobody-of-this-name/k"}),
        ((), {"RELAY_KEY": "~nobody-of-this-name/k"}),
    ],
)
def test_no_path_is_invented(args: tuple[str, ...], env: dict[str, str], tmp_path: Path) -> None:
    """Neither from an empty option, nor from a tilde, nor from a relative XDG directory."""
    inherited = {name: value for name, value in os.environ.items() if name != "RELAY_KNOWN_SERVERS"}
    inherited |= {"PYTHONPATH": str(ROOT)}
    done = run(inherited | env, "send", "127.0.0.1:1", "lobby", "x", *args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("relay: ")
    assert list(tmp_path.iterdir()) == []


@refused_calls.CAN_BE_REFUSED
def test_a_refused_call_while_it_starts_is_one_line() -> None:
    """Python's own modules make some as they are loaded, and the commands need those modules."""
    code = (
        f"{refused_calls.refusing(errno.EPERM, 'uname')}"
        "import sys\nfrom relay.cli.__main__ import main\n"
        "sys.argv = ['relay', '--version']\nsys.exit(main())"
    )
    done = run_program(code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "relay: cannot start: Operation not permitted: a filter of system calls refuses something"
        " that Relay needs (SystemCallFilter of a systemd unit, seccomp of a container);"
        " set RELAY_DEBUG=1 to see where\n"
    )


@pytest.mark.parametrize(
    "error", ["OSError(24, 'x')", "ImportError('a\\nb\\x1b[2J')", "MemoryError()", "RuntimeError()"]
)
@pytest.mark.parametrize("where", ["click", "relay.cli.process.exits", "os.open"])
def test_whatever_prevents_a_start_is_one_line(
    error: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that cannot be loaded, or standard streams that cannot be opened."""
    code = f"""
import os, sys
from relay.cli.__main__ import main
def fails(*arguments):
    if arguments[0] in ({where!r}, os.devnull):
        raise {error}
class Finder:
    def find_spec(self, name, path=None, target=None):
        fails(name)
sys.meta_path.insert(0, Finder())
if {where == "os.open"}:
    sys.stdin, os.open = None, fails
sys.argv = ["relay", "--version"]
sys.exit(main())
"""
    done = run_program(code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"relay: cannot start: {error.partition('(')[0]}")
    assert done.stderr.endswith("; set RELAY_DEBUG=1 to see where\n")
    assert (done.stderr.count("\n"), "\x1b" in done.stderr) == (1, False)
    monkeypatch.setenv("RELAY_DEBUG", "1")
    debugged = run_program(code).stderr.splitlines()
    assert debugged[0] == "Traceback (most recent call last):"
    assert debugged[-1].startswith(f"relay: cannot start: {error.partition('(')[0]}")


def test_too_few_descriptors_for_an_event_loop_are_one_line() -> None:
    """Neither an incomplete loop nor a coroutine that never ran is told of."""
    code = (
        "import resource, sys\nfrom relay.cli.main import main\n"
        "from relay.cli.client_commands import send\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))\n"
        f"address = 'relay://{'a' * 52}@127.0.0.1:1'\n"
        "sys.exit(main(['send', address, 'lobby', 'x', '--name', '~anna']))"
    )
    done = run_program(code)
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"relay: .*Too many open files\n", done.stderr), done.stderr


def test_a_tilde_is_the_home_directory(relay: Relay, tmp_path: Path) -> None:
    """In options and in the environment, where no shell has expanded it."""
    place = f"127.0.0.1:{relay.port}"
    home = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = run(home, "send", place, "tilde", "x", "--known-servers=~/a", "--accept-new")
    assert done.returncode == 0, done.stderr
    env = home | {"RELAY_KNOWN_SERVERS": "~/b"}
    assert run(env, "send", place, "tilde", "x", "--accept-new").returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize("mask", [0o777, 0o277, 0o022, 0o077])
def test_a_umask_takes_nothing_from_its_user(relay: Relay, tmp_path: Path, mask: int) -> None:
    """Neither the key nor the pin, nor the directories in which they are; it keeps others out."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    env |= {"RELAY_KEYS": str(tmp_path / "keys")}
    env.pop("RELAY_KNOWN_SERVERS", None)
    command = relay_command("register", f"127.0.0.1:{relay.port}", "--accept-new")
    done = subprocess.run(
        [*command, "--name", f"mask{mask}"],
        env=env, umask=mask, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".key", ""}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    made = {parent for path in files for parent in path.parents if tmp_path in parent.parents}
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


@pytest.mark.parametrize("name", ["RELAY_KNOWN_SERVERS", "XDG_CONFIG_HOME"])
def test_an_empty_variable_is_none(relay: Relay, tmp_path: Path, name: str) -> None:
    """The file is at its default path."""
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    env.pop("XDG_CONFIG_HOME", None)
    env.pop("RELAY_KNOWN_SERVERS", None)
    place = f"127.0.0.1:{relay.port}"
    done = run(env | {name: ""}, "send", place, "empty", "x", "--accept-new")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".config" / "relay" / "known_servers").exists()


def nonblocking_pipe() -> tuple[int, int]:
    """A small pipe of which both ends are non-blocking, as some parents leave it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    for fd in (reading, writing):
        os.set_blocking(fd, False)
    return reading, writing


@pytest.mark.parametrize("command", ["send", "chat"])
def test_input_from_a_nonblocking_pipe(relay: Relay, room: str, command: str) -> None:
    """Reading waits: no input is lost, whenever it comes."""
    reading, writing = nonblocking_pipe()
    with subprocess.Popen(
        relay_command(command, relay.address, room),
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(reading)
        with Tail(relay.address, room, "--since", "0") as tail:
            # Its end is the end of the command's input, also of one that has not read all.
            with os.fdopen(writing, "wb", buffering=0) as lines:
                for number in range(3):  # each comes when the previous one was read and stored
                    lines.write(f"line {number}\n".encode())
                    tail.has(number + 1)
            assert process.stderr is not None
            assert b"Resource temporarily" not in process.stderr.read()
            assert process.wait(DEADLINE_S) == 0
            assert tail.bodies == ["line 0", "line 1", "line 2"]


def test_a_line_that_comes_late_from_a_nonblocking_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an invitation or a recovery key written by a program, and the settings for "-"."""
    reading, writing = nonblocking_pipe()

    def late(_: int) -> None:
        os.write(writing, b"late \xff\n")

    monkeypatch.setattr(streams, "wait_until_readable", late)
    with os.fdopen(reading, closefd=False) as given:
        assert streams._patient_input(given).readline() == "late \\xff\n"

    def late_again(fd: int) -> None:
        late(fd)
        os.close(writing)

    monkeypatch.setattr(bounded_files, "_wait_until_readable", late_again)
    assert bounded_files.read_bounded(reading, 100) == b"late \xff\n"


@pytest.mark.parametrize("arguments", ["invite --revoke - --data /", "config check -"])
def test_input_that_is_a_socket_and_no_text(arguments: str) -> None:
    """As with ssh."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff\n")
        ours.shutdown(socket.SHUT_WR)
        done = subprocess.run(
            relay_command(*arguments.split()),
            stdin=theirs.fileno(), capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "internal error" not in done.stderr
    assert "invalid invitation" in done.stderr or "not UTF-8" in done.stderr


def read_slowly(fd: int, chunk: int = 1000) -> bytes:
    """Read everything from a non-blocking pipe, a little at a time."""
    data = b""
    while True:
        select.select([fd], [], [], DEADLINE_S)
        piece = os.read(fd, chunk)
        if not piece:
            return data
        data += piece


def test_output_to_a_nonblocking_pipe(relay: Relay, room: str) -> None:
    """Writing waits for the reader: messages, help and errors are complete."""
    text = "".join(f"{number} {'x' * 500}\n" for number in range(200))
    assert run_relay("send", relay.address, room, text=text).returncode == 0
    reading, writing = nonblocking_pipe()
    with subprocess.Popen(
        relay_command("tail", relay.address, room, "-n", "200"),
        stdout=writing,
        stderr=writing,
    ) as process:
        os.close(writing)
        data = b""
        while data.count(b"\n") < 200:
            select.select([reading], [], [], DEADLINE_S)
            data += os.read(reading, 1000)
        process.terminate()
        data += read_slowly(reading)
        os.close(reading)
    assert [line.split(b"| ")[1] for line in data.splitlines()] == text.encode().splitlines()


@pytest.mark.parametrize(
    ("stream", "arguments", "expected"),
    [
        ("stdout", ["serve", "--print-config", "--data", f"/{'x' * 100_000}"], b"x" * 100_000),
        ("stderr", ["tail", "127.0.0.1", "x" * 100_000], b"x" * 900 + b"..." + b"x" * 900),
    ],
    ids=["stdout", "stderr"],
)
def test_what_is_printed_fits_through_a_nonblocking_pipe(
    stream: str, arguments: list[str], expected: bytes
) -> None:
    """Not only a room's messages: any output that exceeds the free space of the pipe."""
    reading, writing = nonblocking_pipe()
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(1000))
    with subprocess.Popen(
        relay_command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=writing if stream == "stdout" else subprocess.DEVNULL,
        stderr=writing if stream == "stderr" else subprocess.DEVNULL,
    ) as process:
        os.close(writing)
        data = read_slowly(reading)
        os.close(reading)
        assert process.wait(DEADLINE_S) == (0 if stream == "stdout" else 2)
    assert expected in data
    assert b"Traceback" not in data


@pytest.mark.parametrize("arguments", ["--help", "--version", "serve --print-config"])
@pytest.mark.parametrize(
    ("output", "reason"), [("/dev/full", "No space left on device"), ("&-", "Bad file descriptor")]
)
def test_an_output_that_takes_nothing(arguments: str, output: str, reason: str) -> None:
    """A one-line error, and a non-zero exit status; "&-" closes stdout."""
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(relay_command())} {arguments} >{output}"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"relay: standard output: {reason}\n")


@pytest.mark.parametrize("arguments", ["--help", "config init", "tail {address} {room} -n 1"])
def test_a_reader_that_has_gone_away(relay: Relay, room: str, arguments: str) -> None:
    """It ends by SIGPIPE, as programs do: in a pipeline, and for a shell with pipefail."""
    assert run_relay("send", relay.address, room, "x").returncode == 0
    reading, writing = os.pipe()
    os.close(reading)
    given = arguments.format(address=relay.address, room=room).split()
    done = subprocess.run(
        relay_command(*given),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=COMMAND_S,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_printed_is_out_at_the_end_of_the_line(unbuffered: str) -> None:
    """With PYTHONUNBUFFERED, too, which container images set; and with any encoding."""
    code = (
        "import os, sys; from relay.cli.process.streams import prepare_streams; prepare_streams();"
        "print('\\u00e9', file=sys.stderr); os.write(2, b'after')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONIOENCODING": "ascii"},
        timeout=COMMAND_S,
        check=False,
    )
    assert done.stderr == "\u00e9\nafter".encode()


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_an_error_with_nobody_to_tell(closed: str) -> None:
    """The exit code still shows it."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        relay_command("tail", "not an address", "lobby"),
        stdout=writing if closed == "stdout" else subprocess.DEVNULL,
        stderr=writing if closed == "stderr" else subprocess.DEVNULL,
        timeout=COMMAND_S,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 2
