"""``relay.testing.RelayServer``: starts, stops, restarts, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from relay import BlockingClient, Client, Message
from relay.testing import RelayNotStarted, RelayServer
from tests.support.cluster import ROOT, until, wait_until
from tests.support.programs import run_program

NO_SPARE = {"server.spare_worker": False}
"""It would be one process more some seconds after the start."""


def scratch_of(server: RelayServer) -> Path:
    return server.data.parent


def processes_of(server: RelayServer) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in server.pids_titled()]


def test_it_serves_inside_and_is_gone_afterwards() -> None:
    with RelayServer(workers=2, settings=NO_SPARE) as server:
        assert server.running
        assert len(server.worker_pids()) == 2
        with BlockingClient(server.address, name="alice") as alice:
            assert alice.send("lobby", "hello").seq == 2
        processes = processes_of(server)
        assert len(processes) == 5  # supervisor, control, key agent, two workers
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    assert not scratch_of(server).exists()
    assert not server.running


async def test_it_starts_and_stops_while_the_loop_runs() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    async with RelayServer() as server, Client(server.address, name="alice") as alice:
        started = turns
        await alice.send("lobby", "hello")
    counting.cancel()
    assert 0 < started < turns
    assert not scratch_of(server).exists()


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    server = RelayServer()
    starting = asyncio.create_task(server.__aenter__())
    await until(lambda: server.running, "the process")
    processes = processes_of(server)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    assert not scratch_of(server).exists()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_another_start_has_the_same_address_and_the_same_messages(end: str) -> None:
    with RelayServer() as server:
        address = server.address
        with BlockingClient(address, name="alice") as alice:
            alice.send("lobby", "before")
        assert getattr(server, end)() == (0 if end == "stop" else None)
        server.start()
        assert server.address == address
        with BlockingClient(address, name="bob") as bob:
            bob.join("lobby", since=0)
            message = next(event for event in bob.events() if isinstance(event, Message))
            assert message.text == "before"


def test_its_settings_come_from_the_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the developer's environment for another relay do not affect it."""
    monkeypatch.setenv("RELAY_SERVER__BIND", "nowhere")
    monkeypatch.setenv("RELAY_CONFIG", "/nonexistent")
    monkeypatch.setenv("WEB_CONCURRENCY", "7")
    with RelayServer(settings={"log.level": "warning", "server.keepalive_s": 0.5}) as server:
        assert server.log == []
        assert len(server.worker_pids()) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"server.key_bits": 17}, "RELAY_SERVER__KEY_BITS"),
        ({"server.keepalives": 3}, "did you mean RELAY_SERVER__KEEPALIVE_S?"),
    ],
)
def test_what_stands_in_the_way_is_in_the_error(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(RelayNotStarted, match="status 2") as raised, RelayServer(settings=settings):
        pass
    assert reason in str(raised.value)


def test_mistakes_of_the_caller() -> None:
    with pytest.raises(ValueError, match="keepalive_s"):
        RelayServer(settings={"keepalive_s": 1})
    server = RelayServer()
    with pytest.raises(RelayNotStarted, match="before it is started"):
        _ = server.address
    with server, pytest.raises(RelayNotStarted, match="started already"):
        server.start()
    with pytest.raises(RelayNotStarted, match="closed"):
        server.start()


FORKING = """
import os, sys
from relay.testing import RelayServer
with RelayServer() as server:
    child = os.fork()
    if not child:
        if sys.argv[1] == "leaves":
            sys.exit()
        os.execlp("true", "true") if sys.argv[1] == "becomes another" else server.stop()
        server.kill()
        server.close()
        os._exit(int(server.running))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.running and server.data.exists() and server.worker_pids()
    assert server.stop() == 0
    server.start()
"""


@pytest.mark.parametrize("child", ["leaves", "stops it", "becomes another"])
def test_a_forked_child_ends_nothing(child: str) -> None:
    """However it ends, the relay and its directory belong to the parent."""
    done = run_program(FORKING, child)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_end_of_the_program_without_with_leaves_nothing() -> None:
    """An exception between start and stop, as in an interactive session."""
    program = (
        "from relay.testing import RelayServer\n"
        "server = RelayServer()\n"
        "server.start()\n"
        "print(server.pid, server.data.parent, flush=True)\n"
        "raise SystemExit(3)\n"
    )
    done = run_program(program)
    assert done.returncode == 3, done.stderr
    pid, scratch = done.stdout.split()
    assert not psutil.pid_exists(int(pid))
    assert not Path(scratch).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_of_the_program_leaves_nothing(number: signal.Signals) -> None:
    """No process of it runs any more; a fork of the program that goes on keeps nothing alive.

    The end of the thread that started the relay is not the end of the program.
    """
    program = (
        "import os, signal, threading\n"
        "from relay.testing import RelayServer\n"
        f"server = RelayServer(workers=2, settings={NO_SPARE})\n"
        "starting = threading.Thread(target=server.start)\n"
        "starting.start()\n"
        "starting.join()\n"
        "fork = os.fork() or signal.pause()\n"
        "print(fork, server.data.parent, *server.pids_titled(), flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        fork, scratch, *pids = process.stdout.readline().split()
        processes = [psutil.Process(int(pid)) for pid in pids]
        try:
            assert len(processes) == 5  # supervisor, control, key agent, two workers
            process.send_signal(number)
            assert process.wait() == -number
            assert psutil.wait_procs(processes, timeout=60)[1] == []
            wait_until(lambda: not Path(scratch).exists(), "the end of its files")
        finally:
            for one in (psutil.Process(int(fork)), *processes):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def test_a_process_counts_until_the_relay_has_noticed_its_end() -> None:
    """Only then is it gone for whoever asks the relay; and workers have their numbers' order."""
    with RelayServer(workers=2, settings=NO_SPARE) as server:
        first, second = server.worker_pids()
        (agent,) = server.pids_titled("relay: key agent")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for pid in (first, agent):
                process = psutil.Process(pid)
                process.kill()
                wait_until(
                    lambda ended=process: ended.status() == psutil.STATUS_ZOMBIE,  # type: ignore[misc]
                    "its end",
                )
            assert server.worker_pids() == [first, second]
            assert server.pids_titled("relay: key agent") == [agent]
        finally:
            os.kill(server.pid, signal.SIGCONT)
        wait_until(
            lambda: len(now := server.worker_pids()) == 2 and first not in now, "another worker"
        )
        assert server.worker_pids()[1] == second
        wait_until(lambda: agent not in server.pids_titled("relay: key agent"), "its end noticed")


def test_a_package_named_relay_where_the_tests_run_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with RelayServer() as server:
        assert server.running


def test_a_server_that_died_is_not_running_and_is_stopped_all_the_same() -> None:
    with RelayServer() as server:
        processes = processes_of(server)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running, "the end")
        assert server.stop() == -signal.SIGKILL
        assert psutil.wait_procs(processes, timeout=60)[1] == []
