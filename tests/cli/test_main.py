"""The ``relay`` command as a whole: help, version, exit codes, imports."""

from __future__ import annotations

import asyncio
import io
import signal
import sys

import click
import pytest

from relay import __version__, codec
from relay.cli.main import COMMANDS
from relay.cli.process.exits import CommandError, Exit, guarded
from relay.client.errors import ConnectFailed, ServerKeyMismatch, UnknownServerKey
from relay.errors import StartError, UsageError
from tests.support.cluster import run_relay
from tests.support.programs import run_program


def test_version() -> None:
    """In the usual form."""
    done = run_relay("--version")
    build = "interpreted" if str(codec.__file__).endswith(".py") else "compiled"
    assert (done.returncode, done.stdout) == (0, f"relay {__version__} ({build})\n")


def test_no_command_shows_the_help() -> None:
    """On standard error: nothing was done."""
    done = run_relay()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == run_relay("--help").stdout


def test_help_lists_the_commands() -> None:
    shown = run_relay("--help").stdout
    assert [name for name in COMMANDS if f"  {name} " not in shown] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_help(name: str) -> None:
    done = run_relay(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: relay {name} ")


def test_help_is_quick_because_it_imports_little() -> None:
    """Neither cryptography nor the client nor the server."""
    code = (
        "import sys; from relay.cli.main import main; main(['--help']);"
        "sys.exit([m for m in sys.modules if m.startswith(('cryptography', 'relay.client',"
        " 'relay.server', 'prompt_toolkit', 'asyncio', 'apsw', 'msgspec'))] or None)"
    )
    done = run_program(code)
    assert done.returncode == 0, done.stderr


def test_no_collection_looks_at_what_a_command_has_imported() -> None:
    """Not at the end of the process either; what the command itself leaves behind is collected."""
    code = """
import gc, sys
import click
from relay.cli.main import relay
assert gc.get_freeze_count() == 0
command = relay.get_command(click.Context(relay), "send")
modules = [module for name, module in sys.modules.items() if name.startswith("relay.")]
looked_at = {id(found) for found in gc.get_objects()}
assert len(modules) > 100 and not any(id(vars(module)) in looked_at for module in modules)
assert gc.isenabled()
"""
    done = run_program(code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["chat", "send", "tail"])
def test_clients_need_nothing_of_linux(command: str) -> None:
    """They can be imported where uvloop, apsw, setproctitle and our server cannot."""
    code = (
        "import sys\n"
        "for name in ('uvloop', 'apsw', 'setproctitle', 'fcntl', 'termios', 'relay.server'):\n"
        "    sys.modules[name] = None\n"
        "from relay.cli.main import main\n"
        f"sys.exit(main([{command!r}, '--help']))"
    )
    if command == "chat":  # prompt_toolkit itself needs them here; its Windows half does not
        code = code.replace(", 'fcntl', 'termios'", "")
    done = run_program(code)
    assert done.returncode == 0, done.stderr


BEGINNING = """
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupted())
"""
END = "atexit.register(signal.raise_signal, signal.SIGINT)"


@pytest.mark.parametrize("when", [BEGINNING, END], ids=["begins", "ends"])
def test_an_interrupt_while_it(when: str) -> None:
    """The signal ends it, without a traceback of modules being imported or torn down."""
    code = f"import atexit, signal, sys\nfrom relay.cli.__main__ import main\n{when}\n"
    done = run_program(f"{code}\nsys.argv[1:] = ['--version']\nsys.exit(main())")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_server_that_cannot_run_here_breaks_nothing_else() -> None:
    """A missing module of the server is a one-line error; help still lists everything."""
    code = (
        "import sys; sys.modules['relay.cli.server_commands.serve'] = None\n"
        "from relay.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "sys.exit(main(['serve']))"
    )
    done = run_program(code)
    assert done.returncode == 1
    assert done.stderr.startswith("relay: 'relay serve' cannot run here: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["chat"],
        ["chat", "http://example.org"],
        ["chat", "relay://127.0.0.1:99999"],
        ["chat", "relay://abc@127.0.0.1"],
        ["chat", "127.0.0.1", "--name", "x"],
        ["chat", "127.0.0.1", "--name", "server"],
        ["chat", "127.0.0.1", "no room"],
        ["chat", "127.0.0.1", "--fingerprint", "abc"],
        ["send", "127.0.0.1"],
        ["send", "127.0.0.1", "Ünicode", "x"],
        ["tail", "127.0.0.1", "lobby", "--since", "-1"],
        ["tail", "127.0.0.1", "lobby", "--since", "1", "-n", "1"],
        ["ctl", "user"],
        ["ctl", "top", "--interval", "nan"],
        ["send", "127.0.0.1", "lobby", "x", "--timeout", "nan"],
        ["invite", "127.0.0.1", "--days", "nan"],
        ["ctl", "user", "add", "bob", "--days", "nan"],
        ["invite", "127.0.0.1", "--days", "0"],
        ["ctl", "user", "add", "bob", "--days", "0"],
        ["send", "-", "lobby", "x"],
        ["backup", "create", "-"],
        ["ctl", "backup", "-"],
        ["data", "export", "--backup", "-"],
    ],
)
def test_wrong_use(arguments: list[str]) -> None:
    """Exit code 2, a clear error, no traceback, nothing on standard output."""
    done = run_relay(*arguments)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("relay: ")]
    assert len(lines) == 1
    assert "\\u{" not in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["chat", "tail"])
def test_nothing_listens_there(command: str) -> None:
    """Exit code 1 and a one-line error."""
    done = run_relay(command, "127.0.0.1:1", "lobby")
    assert done.returncode == 1
    assert done.stderr.startswith("relay: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (StartError("x"), 1),
        (StartError("x", exit_code=3), 3),
        (CommandError("x"), 1),
        (CommandError("x", Exit.SERVER_KEY_CHANGED), 3),
        (UnknownServerKey("x", "f"), 2),
        (ServerKeyMismatch("x", "f", "g"), 3),
        (ConnectFailed("x"), 1),
        (PermissionError("x"), 1),
        (click.UsageError("x"), 2),
    ],
)
def test_errors_end_in_exit_codes(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with a one-line error on standard error."""

    def fail() -> None:
        raise error

    assert guarded(fail) == code
    assert capsys.readouterr().err == "relay: x\n"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("uid not found: 1234"),
        RuntimeError("first\nsecond\x1b[2J"),
        asyncio.CancelledError(),
        ExceptionGroup("several", [ValueError("x"), TypeError("y")]),
        RecursionError(),
        MemoryError(),
        UnicodeEncodeError("ascii", "\u20ac", 0, 1, "x" * 10_000),
    ],
)
def test_what_nobody_foresaw_is_one_line_too(
    error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its type, and how to see more; RELAY_DEBUG=1 shows the traceback as well."""

    def fail() -> None:
        raise error

    assert guarded(fail) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"relay: internal error: {type(error).__name__}")
    assert told.endswith("; set RELAY_DEBUG=1 to see where\n")
    assert told.count("\n") == 1
    assert len(told) < 700
    assert "\x1b" not in told
    assert ("ulimit -v" in told) is isinstance(error, MemoryError)
    monkeypatch.setenv("RELAY_DEBUG", "1")
    assert guarded(fail) == 1
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told.splitlines()[0]
    assert "in fail\n" in told
    assert "\nrelay: internal error: " in told


def test_debugging_shows_where_a_foreseen_error_comes_from() -> None:
    """For any command."""
    done = run_relay("tail", "no address", "lobby", env={"RELAY_DEBUG": "1"})
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("relay: not an address")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 130, and no output."""

    def fail() -> None:
        raise error

    assert guarded(fail) == 130
    assert capsys.readouterr().err == ""


def test_the_end_of_the_input_is_no_interrupt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-D at a prompt: a script that goes on after a failure goes on."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def fail() -> None:
        click.prompt("Type it", err=True)

    assert guarded(fail) == 1
    assert "the input ended before an answer" in capsys.readouterr().err


def test_what_an_error_quotes_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """It may contain text of a server."""

    def fail() -> None:
        raise CommandError("refused: \x1b[2J\r")

    guarded(fail)
    assert capsys.readouterr().err == "relay: refused: \\u{1b}[2J\\u{d}\n"


def test_what_an_error_quotes_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """An argument may be as long as the system allows."""

    def fail() -> None:
        raise CommandError("x" * 100_000)

    guarded(fail)
    assert len(capsys.readouterr().err) < 2100
