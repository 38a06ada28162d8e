"""How a relay may be started, and what happens when its environment changes while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from relay import Client, Message
from relay.cli.process.exits import Exit
from relay.compiled import build
from relay.server.system.start_signals import IGNORED
from relay.wire.identity import fingerprint, load_private_key
from tests.support.cluster import (
    COMMAND_S,
    DEADLINE_S,
    ROOT,
    Relay,
    relay_command,
    run_relay,
    until,
    wait_until,
)
from tests.support.threads import beside

NUMBERS = "(s.SIGTERM, s.SIGINT, s.SIGQUIT, s.SIGCHLD, s.SIGHUP, s.SIGPIPE, s.SIGUSR1, s.SIGALRM)"
REMOVED_DIRECTORY = (
    "import os, tempfile; d = tempfile.mkdtemp(); os.environ['PYTHONPATH'] = os.getcwd();"
    "os.chdir(d); os.rmdir(d)\n"
)
EVERYTHING = (
    "import os, resource as r, signal as s\n"
    "os.umask(0)\n"
    "[os.set_blocking(n, False) for n in (1, 2)]\n"
    "os.close(0)\n"
    "r.setrlimit(r.RLIMIT_NOFILE, (64, r.getrlimit(r.RLIMIT_NOFILE)[1]))\n"
    f"{REMOVED_DIRECTORY}"
)


@pytest.mark.parametrize(
    "signals",
    [
        f"s.pthread_sigmask(s.SIG_BLOCK, {NUMBERS})",
        f"[s.signal(n, s.SIG_IGN) for n in {NUMBERS}]",
        f"[s.signal(n, s.SIG_DFL) for n in {NUMBERS}]",
    ],
    ids=["blocked", "ignored", "default"],
)
def test_it_does_not_matter_how_it_is_started(tmp_path: Path, signals: str) -> None:
    """However it was started: a dead worker is replaced, stored data is private, TERM exits with
    0.
    """
    with Relay(tmp_path / "data", launcher=EVERYTHING + signals) as relay:
        relay.kill_worker()
        sent = run_relay("send", relay.address, "lobby", text="hello\n")
        assert sent.returncode == 0, sent.stderr
        assert [path for path, mode in relay.modes().items() if mode & 0o077] == []
        assert relay.stop() == 0
        assert not relay.events("open_files_limit_low")


def test_signals_for_a_running_server_wait_until_it_runs(tmp_path: Path) -> None:
    """They arrive while it loads the first module that is not its own, which waits at a pipe, and
    while it reads its settings from a pipe.

    Signals that mean nothing, such as that of a timer which the parent left running, are lost.
    """
    config, log, modules = tmp_path / "relay.toml", tmp_path / "log", tmp_path / "modules"
    modules.mkdir()
    loading = modules / "pipe"
    for path in (config, loading):
        os.mkfifo(path)
    (modules / "click.py").write_text(
        "import sys\n"
        f"open({str(loading)!r}).close()\n"
        f"sys.path.remove({str(modules)!r})\n"
        "del sys.modules['click']\n"
        "import click\n"
    )
    command = relay_command("serve", "--bind", "127.0.0.1:0", "--data", tmp_path / "data")
    command += ["--workers", "1", "--control", "off", "--config", str(config)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(modules)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        _signals_while_it_opens(loading, process, b"")
        new = tmp_path / "new"
        new.write_text("[limits]\nrooms_per_minute = 61\n")
        _signals_while_it_opens(config, process, b"[limits]\nrooms_per_minute = 62\n", new)
        wait_until(
            lambda: process.poll() is not None or serving_workers(psutil.Process(process.pid)),
            "the start",
        )
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
        events = {line["event"]: line for line in map(json.loads, log.read_text().splitlines())}
        assert events["reloaded"]["changed"] == {"limits.rooms_per_minute": "62 -> 61"}
        assert events["signal_ignored"]["signal"] == "SIGUSR1"
        assert events["upgrade_refused"]["reason"] == "the server is starting or stopping"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _signals_while_it_opens(
    pipe: Path, process: subprocess.Popen[bytes], text: bytes, new: Path | None = None
) -> None:
    """Send all signals that end no start while a process waits at a pipe; then write to it.

    Args:
        pipe: the process reads it to its end.
        process: it.
        text: what to write.
        new: replaces the pipe before that.
    """
    found: list[int] = []

    def reads() -> bool:
        with contextlib.suppress(OSError):  # ENXIO: nobody has opened it yet
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found) or process.poll() is not None

    wait_until(reads, "the pipe opened")
    assert process.poll() is None
    with os.fdopen(found[0], "wb") as opened:
        held = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN)
        for number in (*held, *IGNORED):
            if number != signal.SIGTTOU:  # it means one worker less, but there is one
                process.send_signal(number)
        if new is not None:
            new.replace(pipe)
        opened.write(text)


def test_variables_of_python(tmp_path: Path) -> None:
    """Those that change how it runs are reported; none changes the exit status, PYTHONINSPECT
    neither.
    """
    variables = {
        "PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "1", "PYTHONWARNINGS": "", "PYTHONINSPECT": "1",
    }  # fmt: skip
    given = "import os; os.environ.update({!r})".format
    with Relay(tmp_path / "data", launcher=given(variables)) as relay:
        (event,) = relay.events("python_variables")
        assert event["variables"] == ["PYTHONHASHSEED", "PYTHONOPTIMIZE"]
        assert relay.stop() == 0
        assert not any("Traceback" in line for line in relay.log)
    with Relay(tmp_path / "data", launcher=given({"PYTHONHASHSEED": "random"})) as relay:
        assert not relay.events("python_variables")
    wrong = run_relay("send", env={"PYTHONINSPECT": "1"})
    assert wrong.returncode == Exit.USAGE
    assert "Traceback" not in wrong.stderr


def serving_workers(server: psutil.Process) -> int:
    """Return how many workers have a title with a connection count."""
    titles = []
    with contextlib.suppress(psutil.NoSuchProcess):
        titles = [" ".join(child.cmdline()) for child in server.children()]
    return sum("conns)" in title for title in titles)


@contextlib.contextmanager
def unheard_relay(data: Path, launcher: str, output: int) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the supervisor and the address of a relay whose output is not read."""
    command = relay_command("serve", "--bind", "127.0.0.1:0", "--data", data, "--workers", "2")
    command += ["--control", "off", "--registration", "open"]
    become = f"import os, sys\n{launcher}\nos.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", become, *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        server = psutil.Process(process.pid)
        wait_until(lambda: serving_workers(server) == 2, "the start")
        [port] = [c.laddr.port for c in server.net_connections("inet") if c.status == "LISTEN"]
        key = load_private_key((data / "server.key").read_bytes(), os.urandom)
        yield server, f"relay://{fingerprint(key.spki)}@127.0.0.1:{port}"
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("closed", ["0, 1, 2", "2"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """No file, socket or pipe gets the descriptor of a standard stream."""
    launcher = f"[os.close(n) for n in ({closed},)]"
    with unheard_relay(tmp_path / "data", launcher, subprocess.DEVNULL) as (server, address):
        sent = run_relay("send", address, "lobby", text="hello\n")
        assert sent.returncode == 0, sent.stderr
        for one in [server, *server.children()]:
            for number in range(3):
                target = Path(f"/proc/{one.pid}/fd/{number}").readlink()
                assert target == Path(os.devnull), (one, number)


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_nobody_reads_what_it_prints(tmp_path: Path, reader: str) -> None:
    """The address and the log go to a pipe without a reader, or to a full pipe."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_fd, bytes(4096))
    os.set_blocking(write_fd, True)
    if reader == "gone":
        os.close(read_fd)
    with unheard_relay(tmp_path / "data", "", write_fd) as (server, address):
        os.close(write_fd)
        before = server.children()
        for child in before:
            child.kill()
        wait_until(
            lambda: not set(server.children()) & set(before) and serving_workers(server) == 2,
            "all children replaced",
        )
        sent = run_relay("send", address, "lobby", text="hello\n")
        assert sent.returncode == 0, sent.stderr
    if reader != "gone":
        os.close(read_fd)


@contextlib.contextmanager
def _signals_to(relay: Relay, number: signal.Signals) -> Iterator[None]:
    """Send a signal to the supervisor repeatedly until it has ended."""
    supervisor = os.pidfd_open(relay.pid)
    failed = threading.Event()

    def send() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not failed.wait(0.001):
                signal.pidfd_send_signal(supervisor, number)

    try:
        with beside(send):
            try:
                yield
            except BaseException:
                failed.set()
                raise
    finally:
        os.close(supervisor)


def test_signals_without_a_meaning_end_nothing(tmp_path: Path) -> None:
    """``pkill -USR1 relay``, as log rotation does: every process of the relay gets the signal."""
    # A spare worker would start some seconds later.
    settings = {"server.spare_worker": False}
    # Fresh: the interpreter's shutdown is tested as well.
    with Relay(tmp_path / "data", workers=2, settings=settings, fresh=True) as relay:
        processes = [relay.pid, *(child.pid for child in relay.children())]
        # TTOU asks the supervisor for one worker less (test_workers_change).
        meaningless = set(IGNORED) - {signal.SIGTTOU}
        for number in (signal.SIGUSR1, signal.SIGHUP, *meaningless):
            for pid in processes:
                os.kill(pid, number)
        wait_until(lambda: relay.events("signal_ignored"), "it in the log")
        sent = run_relay("send", relay.address, "lobby", text="hello\n")
        assert sent.returncode == 0, sent.stderr
        assert [relay.pid, *(child.pid for child in relay.children())] == processes
        with _signals_to(relay, signal.SIGUSR1):
            assert relay.stop() == 0, "a signal during the shutdown is ignored as well"
        assert not relay.events("child_killed")
        assert {event["how"] for event in relay.events("child_exited")} == {"exit code 0"}


def limit(files: int) -> str:
    return f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({files}, {files}))"


def test_a_low_limit_on_open_files_is_reported_as_a_sum(tmp_path: Path) -> None:
    with Relay(tmp_path / "data", launcher=limit(400)) as relay:
        [warning] = relay.events("open_files_limit_low")
        assert warning["has"] == 400
        needs, possible = warning["needs"], warning["connections_possible"]
        assert isinstance(needs, int)
        assert isinstance(possible, int)
        assert needs > 400 > possible > 1
        assert warning["reserved"] == 400 - possible
        [starting] = relay.events("starting")
        assert starting["max_connections"] == possible
        assert starting["build"] == build()
        more = run_relay("ctl", "--data", relay.data, "workers", "100")
        assert more.returncode == 1
        assert more.stderr.startswith("relay: the limit on open files is 400: a worker needs 5")
        assert len(relay.worker_pids()) == 1
    refused = refuse(limit(193), "--data", tmp_path / "data")
    assert "relay: the limit on open files is 193: a worker needs 3" in refused


def test_a_relative_path_in_a_directory_that_was_removed() -> None:
    line = refuse(REMOVED_DIRECTORY, "--data", "here")
    reason = "the current directory no longer exists; give a full path"
    assert line == f"relay: store.data here: {reason}\n"


def start_refused(launcher: str, *args: str | Path) -> tuple[str, list[dict[str, Any]]]:
    """Run a relay that cannot start; return its stderr without the log, and the log."""
    become = f"{launcher}\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])"
    ended = subprocess.run(
        [sys.executable, "-c", become, *relay_command("serve", "--bind", "127.0.0.1:0", *args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )
    assert ended.returncode == 1, ended.stderr
    lines = ended.stderr.splitlines()
    events = [json.loads(line) for line in lines if line[:1] == "{"]
    return "".join(f"{line}\n" for line in lines if line[:1] != "{"), events


def refuse(launcher: str, *args: str | Path) -> str:
    """Run a relay that cannot start; return its stderr without the log."""
    return start_refused(launcher, *args)[0]


def test_development_mode_finds_nothing(tmp_path: Path) -> None:
    """Warnings are errors: no process leaves a resource open at its end."""
    launcher = "import os; os.environ.update(PYTHONDEVMODE='1', PYTHONWARNINGS='error')"
    with Relay(tmp_path / "data", workers=2, launcher=launcher) as relay:
        sent = run_relay("send", relay.address, "lobby", text="hello\n")
        assert sent.returncode == 0, sent.stderr
        relay.kill_worker()
        os.kill(relay.pid, signal.SIGHUP)
        wait_until(lambda: relay.events("reloaded"), "the reload")
        os.kill(relay.pid, signal.SIGUSR2)
        wait_until(lambda: relay.events("upgraded"), "the next version")
        assert relay.stop() == 0
        lines = relay.log  # of both versions, until they end
    assert any('"handed_over"' in line for line in lines)
    assert any('"stopped"' in line for line in lines)
    for line in lines:
        assert line.startswith("{"), line
        assert "Warning" not in line
        assert "printed_to_stderr" not in line


@pytest.mark.parametrize("cleaned", ["sockets", "directory"])
async def test_a_cleaner_of_temporary_directories(tmp_path: Path, cleaned: str) -> None:
    """Its sockets are removed, then a worker and the agent are killed: every room still works."""
    data = tmp_path / ("long" * 25)
    with Relay(data, workers=2) as relay:
        runtime = (data / "runtime").readlink()
        # The agent's socket, and each worker's sockets for the bus and for relay ctl.
        await until(lambda: len(list(runtime.rglob("*.sock"))) == 6, "all sockets")
        sockets = sorted(runtime.rglob("*.sock"))
        if cleaned == "directory":
            shutil.rmtree(runtime)
        else:
            for path in sockets:
                path.unlink()
        agent = relay.agent()
        assert agent is not None
        await asyncio.to_thread(relay.kill_worker)
        os.kill(agent, signal.SIGKILL)
        async with asyncio.timeout(60):
            await talk_in_every_partition(relay)
        assert runtime.stat().st_mode & 0o777 == 0o700
        # The killed worker may have left one that it had created again.
        await until(lambda: len(list(runtime.rglob("*.sock"))) >= 6, "all sockets to come back")
        assert relay.stop() == 0
    assert not runtime.exists()


async def talk_in_every_partition(relay: Relay) -> None:
    """Clients at both workers receive what one of them sends to rooms of all partitions."""
    rooms = [f"room-{n}" for n in range(40)]
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Client] = []
        while len(clients) < 2 or not all(relay.peers_by_worker().values()):
            client = Client(relay.address, name=f"user-{len(clients)}")
            clients.append(await stack.enter_async_context(client))
        for client in clients:
            await asyncio.gather(*(client.join(room) for room in rooms))
        await asyncio.gather(*(clients[0].send(room, "hello") for room in rooms))
        for client in clients:
            missing = set(rooms)
            while missing:
                event = await anext(aiter(client))
                if isinstance(event, Message):
                    missing.discard(event.room)
