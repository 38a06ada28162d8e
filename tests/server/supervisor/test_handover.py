"""Handover between two versions: without free descriptors, and with invalid messages."""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec import structs as struct

from relay.errors import StartError
from relay.server.supervisor.handover import (
    FORMAT,
    SHARED,
    VARIABLE,
    Handover,
    hand_over,
    receive_messages,
    take_over,
)
from relay.server.supervisor.plan import Leave, plan
from relay.server.supervisor.process import Exit
from relay.server.supervisor.roles import Step
from relay.server.supervisor.rolling import Lending
from relay.server.supervisor.state import State
from relay.server.supervisor.takeover import Takeover
from relay.server.supervisor.upgrade import LEADS_S, Program, Upgrade
from tests.server.supervisor.test_plan import state_of
from tests.support.cluster import DEADLINE_S

DESCRIPTORS = 5
"""Descriptors that a next version takes from the supervisor: two pairs, and a copy of stderr."""


def _hand_over(generation: int, fingerprint: str) -> Handover:
    return Handover(
        format=FORMAT,
        data_format=1,
        generation=generation,
        fingerprint=fingerprint,
        fixed={},
        listeners=[],
        listeners_kept=False,
        control=None,
        control_kept=False,
        runtime="",
        runtime_lock=-1,
        passphrase=-1,
        parent_line=-1,
        stderr=os.dup(2),
    )


def _open() -> set[int]:
    # and the descriptor of the listing itself, closed by now
    listed = list(Path("/proc/self/fd").iterdir())
    return {int(path.name) for path in listed if path.is_symlink()}


@pytest.mark.parametrize("left", range(DESCRIPTORS))
def test_without_descriptors_there_is_no_upgrade_and_nothing_else_happens(left: int) -> None:
    upgrade = Upgrade(Program(["/bin/true"], {}, _hand_over))
    gc.collect()  # what other tests have left would be closed at any time
    before, limits = _open(), resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = next(number for number in itertools.count() if number not in before)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, limits[1]))
    try:
        with pytest.raises(StartError, match="it cannot be forked: Too many open files"):
            upgrade.begin(7, "", 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert _open() <= before
    assert (upgrade.document(), upgrade.fd) == ({"upgrading": False, "failed": ""}, -1)


BEFORE = """
import os, socket, sys
line = socket.socket(fileno=int(os.environ["RELAY_HANDOVER"].split(":")[0]))
line.recv(65536)
files = (f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd"))
print(*sorted(os.readlink(one) for one in files if os.path.exists(one)), file=sys.stderr)
"""
"""What a version does that expects no descriptors in messages."""


def test_whoever_does_not_know_of_memory_does_not_get_it() -> None:
    """Not by inheritance either: no process of an earlier version may have the ticket keys."""
    memory = {name: os.memfd_create(f"given {name}") for name in SHARED}
    upgrade = Upgrade(
        Program(
            [sys.executable, "-c", BEFORE],
            {},
            lambda generation, text: struct.replace(_hand_over(generation, text), **memory),
        )
    )
    upgrade.begin(7, "", 0.0, memory["board"])
    pid, status = os.waitpid(upgrade.pid, 0)
    assert upgrade.ended(pid, Exit(os.waitstatus_to_exitcode(status)))
    failed = cast("str", upgrade.document()["failed"])
    assert "socket:" in failed
    assert "given" not in failed
    for fd in memory.values():
        os.close(fd)


def test_memory_comes_with_the_message() -> None:
    """Descriptors that a later version sends in addition are closed."""
    gc.collect()  # what other tests have left would be closed at any time
    before = _open()
    memory = {name: os.memfd_create(f"given {name}") for name in (*SHARED, "later")}
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        sent = struct.replace(_hand_over(7, ""), shared=list(memory))
        data = json.dumps(msgspec.to_builtins(sent)).encode()
        socket.send_fds(near, [data], list(memory.values()))
        for fd in (sent.stderr, *memory.values()):
            os.close(fd)
        taken = take_over(far)
        for name in SHARED:
            fd = getattr(taken, name)
            assert str(Path(f"/proc/self/fd/{fd}").readlink()) == f"/memfd:given {name} (deleted)"
            assert not os.get_inheritable(fd)
            os.close(fd)
        hand_over(near, struct.replace(taken, board=-1, tickets=-1, ticket_keys=near.fileno()))
        again = take_over(far)
        assert (again.board, again.tickets) == (-1, -1)
        os.close(again.ticket_keys)
    assert _open() <= before


def test_memory_that_an_earlier_version_let_this_one_inherit_goes_no_further() -> None:
    """Its message lists the descriptors by number, as every message does."""
    memory = {name: os.memfd_create(name, 0) for name in SHARED}
    assert all(os.get_inheritable(fd) for fd in memory.values())
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        handover = struct.replace(_hand_over(7, ""), **memory)
        near.send(json.dumps(msgspec.to_builtins(handover)).encode())
        taken = Takeover.of({VARIABLE: f"{far.detach()}:{os.getppid()}"})
        assert taken is not None
        assert taken.handover.shared == []
        assert not any(os.get_inheritable(fd) for fd in memory.values())
        taken.close_in_child()
    for fd in (*memory.values(), *map(taken.gate, (Step.GAVE_AWAY, Step.GONE))):
        os.close(fd)


def test_one_that_decides_and_hangs_is_killed() -> None:
    """After its decision it sends heartbeats; without them the server that lent its workers takes
    over again.
    """
    upgrade = Upgrade(Program(["/bin/sleep", "600"], {}, _hand_over))
    upgrade.begin(7, "", 0.0)
    upgrade.lend([(0, 70, 3)], 0.0)
    upgrade.look(LEADS_S - 1.0, awake_s=0.0)
    upgrade.look(LEADS_S + 1.0, awake_s=LEADS_S)
    assert os.waitpid(upgrade.pid, os.WNOHANG) == (0, 0), "this process had been stopped itself"
    upgrade.look(LEADS_S + 1.0, awake_s=0.0)
    pid, status = os.waitpid(upgrade.pid, 0)
    assert upgrade.ended(pid, Exit(os.waitstatus_to_exitcode(status)))
    assert upgrade.document() == {
        "upgrading": False, "failed": f"it did not report for {LEADS_S:.0f} s that it runs",
    }  # fmt: skip
    assert not upgrade.lent


def test_workers_whose_replacement_was_requested_before_are_replaced_if_it_fails() -> None:
    agent, worker = state_of().roles
    state = State((agent, replace(worker, owns_partitions=True)), heartbeat_timeout_s=5.0)
    for number, child in enumerate(state.children):
        state.started(child, 100 + number, 1 + number, 0.0)
        state.became_ready(child, 0.0)
        child.heartbeat_s = 9.0
    state.replace_all()
    upgrade = Upgrade(Program(["/bin/sleep", "600"], {}, _hand_over))
    upgrade.begin(7, "", 0.0)
    Lending(state, cast("Any", None), {}, upgrade).begin(0.0)
    assert plan(state, 9.0) == [], "the next version replaces them"
    os.kill(upgrade.pid, signal.SIGKILL)
    pid, status = os.waitpid(upgrade.pid, 0)
    assert upgrade.ended(pid, Exit(os.waitstatus_to_exitcode(status)))
    state.lent = False  # as ``take_back`` does
    assert plan(state, 9.0) == [Leave(state.owners[0])]


def test_the_next_version_has_signals_sent_to_workers_that_still_run_alone() -> None:
    """The pid of an ended worker may be reused: here a child of another kind has it."""
    child = ["/bin/sleep", "600"]
    worker, other = subprocess.Popen(child), subprocess.Popen(child)
    try:
        state = state_of()
        state.children[0].role = replace(state.roles[0], owns_partitions=True)
        state.started(state.children[0], worker.pid, 1, 0.0)
        upgrade = Upgrade(Program([], {}, _hand_over))
        upgrade._kills = [(other.pid, signal.SIGKILL), (worker.pid, signal.SIGTERM)]
        Lending(state, cast("Any", None), {}, upgrade).look()
        assert worker.wait(DEADLINE_S) == -signal.SIGTERM
        assert other.poll() is None
        assert state.children[0].sent == signal.SIGTERM
    finally:
        for process in (worker, other):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"{", b"7", b"[]", b"null", b"[" * 60_000],
    ids=["bytes", "cut", "number", "list", "null", "deep"],
)
def test_what_is_no_message_is_left_out(data: bytes) -> None:
    """Whatever the program on disk sends, the running server goes on."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.setblocking(False)
        for sent in (data, json.dumps({"ready": "99.0"}).encode(), data):
            far.send(sent)
        assert receive_messages(near) == [{"ready": "99.0"}]
        assert receive_messages(near) == []
        far.close()
        with pytest.raises(EOFError):
            receive_messages(near)


@pytest.mark.parametrize("number", ["x", "-1", "999999", "9" * 30, "9" * 5000])
def test_a_variable_that_names_no_line_ends_the_start_with_a_reason(number: str) -> None:
    with pytest.raises(StartError, match="nothing was handed over"):
        Takeover.of({VARIABLE: f"{number}:{os.getppid()}"})


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}", b"[]", b"7", json.dumps({"format": 1}).encode()]
)
def test_a_line_that_hands_nothing_over_ends_the_start_with_a_reason(data: bytes) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        near.send(data)
        near.shutdown(socket.SHUT_WR)
        with pytest.raises(StartError, match="nothing was handed over"):
            Takeover.of({VARIABLE: f"{far.detach()}:{os.getppid()}"})


def test_a_variable_of_another_process_is_taken_out_and_means_nothing() -> None:
    environ = {VARIABLE: f"0:{os.getpid()}"}
    assert Takeover.of(environ) is None
    assert environ == {}
