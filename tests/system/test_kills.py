"""kill -9 of each kind of process: no loss, no duplicate, no process left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from relay import Client
from relay.client.options import CLOSE_S
from tests.support.cluster import COMMAND_S, DEADLINE_S, Relay, run_relay, start_client, wait_until
from tests.support.people import Person
from tests.support.tails import Tail


def test_worker_killed_twice_during_send(relay: Relay) -> None:
    """``relay send`` exits with 0; the log has each line once, in order."""
    lines = [f"line {n}" for n in range(1000)]
    with Tail(relay.address, "bulk", "--since", "0") as tail:
        sender = start_client("send", relay.address, "bulk", typed=True)
        assert sender.stdin is not None
        assert sender.stdout is not None
        assert sender.stderr is not None
        for third in range(3):
            chunk = lines[third * 333 : (third + 1) * 333 if third < 2 else None]
            sender.stdin.write("".join(f"{line}\n" for line in chunk[: len(chunk) // 2]))
            sender.stdin.flush()
            tail.has(third * 333 + 1)
            if third < 2:
                sender.stdin.write("".join(f"{line}\n" for line in chunk[len(chunk) // 2 :]))
                sender.stdin.flush()
                relay.kill_worker()
            else:
                sender.stdin.write("".join(f"{line}\n" for line in chunk[len(chunk) // 2 :]))
        sender.stdin.close()
        status = sender.wait(COMMAND_S)
        with sender.stdout, sender.stderr:
            assert status == 0, sender.stderr.read()
        assert tail.has(1000) == lines
    with Tail(relay.address, "bulk", "--since", "0") as again:
        assert again.has(1000) == lines


def test_send_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    """It keeps trying, and does not exit with 0 while lines are not stored."""
    with Relay(tmp_path / "data") as first:
        sender = start_client("send", first.address, "bulk", typed=True)
        assert sender.stdin is not None
        assert sender.stdout is not None
        assert sender.stderr is not None
        sender.stdin.write("before\n")
        sender.stdin.flush()
        with Tail(first.address, "bulk", "--since", "0") as tail:
            tail.has(1)
        address, port = first.address, first.port
    assert "reconnecting: " in sender.stderr.readline()
    sender.stdin.write("".join(f"meanwhile {n}\n" for n in range(1000)))
    sender.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        sender.wait(CLOSE_S + 2)
    with Relay(tmp_path / "data", bind=f"127.0.0.1:{port}"):
        assert sender.wait(60) == 0
        sender.stdout.close()
        sender.stderr.close()
        with Tail(address, "bulk", "--since", "0") as tail:
            assert tail.has(1001) == ["before", *(f"meanwhile {n}" for n in range(1000))]


def test_agent_killed(relay: Relay, tmp_path: Path) -> None:
    """Connected clients go on without the agent; handshakes work again once it is back."""
    with (
        Person(relay.address, "alice", "lobby", tmp_path) as alice,
        Person(relay.address, "bob", "lobby", tmp_path) as bob,
    ):
        alice.is_told("lobby")
        bob.is_told("lobby")
        victim = relay.agent()
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        alice.types("still here")
        bob.sees("still here")
        wait_until(lambda: relay.agent() not in (None, victim), "a new key agent")
        sent = run_relay("send", relay.address, "lobby", "after the agent")
        assert sent.returncode == 0, sent.stderr
        bob.sees("after the agent")
        assert bob.process.poll() is None


def test_supervisor_killed_leaves_nothing(tmp_path: Path) -> None:
    """All processes end, and a restart on the same port and data binds at once."""
    with Relay(tmp_path / "data") as first:
        run_relay("send", first.address, "lobby", "before")
        children = list(first.children())
        assert len(children) >= 2
        port = first.port
        address = first.address
        os.kill(first.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
        assert not alive, alive
        assert len(gone) == len(children)
    with Relay(tmp_path / "data", bind=f"127.0.0.1:{port}") as second:
        assert second.address == address
        with Tail(second.address, "lobby", "--since", "0") as tail:
            assert tail.has(1) == ["before"]


def test_who_asks_a_server_that_is_gone_can_leave(tmp_path: Path) -> None:
    with (
        Relay(tmp_path / "data") as relay,
        Person(relay.address, "alice", "lobby", tmp_path) as alice,
    ):
        alice.is_told("lobby")
        assert relay.stop() == 0
        alice.is_told("GOING_AWAY")
        alice.types("/who")
        assert alice.leave() == 0
    assert [line for line in alice.notices if not line.startswith("-!- ")] == []


def test_who_asks_a_server_that_is_silent_can_interrupt(tmp_path: Path) -> None:
    with (
        Relay(tmp_path / "data") as relay,
        Person(relay.address, "alice", "lobby", tmp_path) as alice,
    ):
        alice.is_told("lobby")
        workers = relay.worker_pids()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            alice.types("/who", "/quit")
            alice.has_read_all()
            alice.process.send_signal(signal.SIGINT)
            # Its connection may be closed just before: then it exits by itself.
            assert alice.process.wait(DEADLINE_S) in (-signal.SIGINT, 0)
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):  # replaced as a worker that hangs
                    os.kill(pid, signal.SIGCONT)
    assert [line for line in alice.notices if not line.startswith("-!- ")] == []


def test_term_tells_every_client_and_ends_cleanly(tmp_path: Path) -> None:
    """TERM: exit status 0, clients are told that the server is shutting down, no process is
    left.
    """
    with (
        Relay(tmp_path / "data") as relay,
        Person(relay.address, "alice", "lobby", tmp_path) as alice,
    ):
        alice.is_told("lobby")
        children = list(relay.children())
        assert relay.stop() == 0
        _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
        assert not alive
        alice.is_told("GOING_AWAY")
        alice.process.terminate()


async def test_a_worker_that_is_refused_memory(relay: Relay) -> None:
    """It exits as if the kernel had killed it: otherwise it would look alive and serve nobody."""
    (victim,) = relay.worker_pids()
    async with Client(relay.address, name="alice", register=True) as alice:
        sent, more = 0, 256 * 1024
        while victim in relay.worker_pids():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                used = psutil.Process(victim).memory_info().vms + more
                resource.prlimit(victim, resource.RLIMIT_AS, (used, used))
            more = 0  # the worker had memory to spare
            sends = [alice.send("lobby", f"{n} {'x' * 30_000}") for n in range(sent, sent + 8)]
            stored = await asyncio.wait_for(asyncio.gather(*sends), 60)
            assert [one.seq for one in stored] == list(range(sent + 2, sent + 10)), (
                "each message is stored once"
            )
            sent += 8
        assert (await asyncio.wait_for(alice.send("lobby", "after"), 60)).seq == sent + 2
    with Tail(relay.address, "lobby", "--since", "0") as tail:
        assert [text.split()[0] for text in tail.has(sent + 1)] == [*map(str, range(sent)), "after"]
