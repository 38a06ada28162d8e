"""The supervisor's loop: wait for something to happen, tell the plan, do what it says."""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.errors import StartError
from relay.server.context import AGENT_SOCKET, AgentContext, WorkerContext
from relay.server.scoreboard import Scoreboard
from relay.server.supervisor import process
from relay.server.supervisor.plan import (
    Action,
    Child,
    Finish,
    Phase,
    Role,
    Send,
    Start,
    State,
    plan,
    wake_at,
)
from relay.server.supervisor.signals import STOP, SignalQueue
from relay.settings import Settings

WORKER_FAILED: Final = 3
"""Exit code when a worker cannot boot (gunicorn's)."""
LATE_S: Final = 1.0
"""The supervisor woke up so much too late: it was stopped itself, or the machine was."""
log = logging.getLogger("relay.supervisor")


@dataclass(frozen=True, slots=True)
class Plant:
    """What the supervisor works with: made before it starts, the same for all its life."""

    settings: Settings
    """Resolved."""
    listeners: tuple[socket.socket, ...]
    data: Path
    runtime: Path
    key_path: Path
    boot_id: str
    partitions: int
    worker_main: Callable[[WorkerContext], int]
    agent_main: Callable[[AgentContext], int]
    announce: Callable[[str], None]
    """Called once, with the fingerprint, when every worker serves."""
    close_in_child: Callable[[], None]
    """Closes what children must not hold, such as the lock of the data directory."""


class Supervisor:
    """Runs the key agent and the workers until it is told to stop."""

    def __init__(self, plant: Plant) -> None:
        count = plant.settings.server.workers
        assert count > 0
        self._plant = plant
        self._scoreboard = Scoreboard(count)
        self._agent_board = Scoreboard(1)
        self._state = State(
            workers=[Child(Role.WORKER, index) for index in range(count)],
            worker_timeout_s=plant.settings.server.worker_timeout_s,
        )
        self._signals = SignalQueue()
        self._parent_read_fd, self._parent_write_fd = os.pipe2(os.O_CLOEXEC)
        """Nobody writes: children see its end when the supervisor is gone."""
        self._processes: dict[int, process.Process] = {}
        self._generation = 0
        self._fingerprint = ""
        """Empty until the agent said it."""
        self._failure: StartError | None = None
        """Why the start failed; None as long as it did not."""

    def run(self) -> int:
        """Run until everything has ended. Returns the exit code.

        Raises:
            StartError: the key agent or a worker could not start; nothing is left running.
        """
        state = self._state
        state.awake_s = time.monotonic()
        while True:
            now = time.monotonic()
            for action in plan(state, now):
                if isinstance(action, Finish):
                    log.info("stopped")
                    if self._failure is not None:
                        raise self._failure
                    return 0
                self._do(action, now)
            self._wait(wake_at(state, now))
            now = time.monotonic()
            for number in self._signals.take():
                self._handle_signal(number, now)
            for child in state.children():
                if child.pid:
                    self._listen_to(child, now)
            for pid, how in process.reap():
                self._note_exit(pid, how, now)
            self._read_heartbeats()

    def _wait(self, until: float) -> None:
        """Sleep until a signal, a child's report, or the time."""
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        for running in self._processes.values():
            if running.ready_fd >= 0:
                poll.register(running.ready_fd, select.POLLIN)
        poll.poll(max(0.0, until - time.monotonic()) * 1000 + 1)
        now = time.monotonic()
        if now > until + LATE_S:
            # The children may have been stopped with us: their silence proves nothing.
            self._state.awake_s = now

    def _do(self, action: Action, now: float) -> None:
        if isinstance(action, Start):
            self._start(action.child, now)
        elif isinstance(action, Send):
            child = action.child
            child.sent = action.number
            if action.reason != "stop":
                log.warning(
                    "child_killed",
                    extra={**_fields(child), "reason": action.reason},
                )
            if action.number == signal.SIGKILL and child.role is Role.WORKER:
                self._scoreboard.row(child.index).set("ready", 0)
            os.kill(child.pid, action.number)  # not reaped yet, so the id is still its own

    def _start(self, child: Child, now: float) -> None:
        self._generation += 1
        generation = self._generation
        try:
            if child.role is Role.AGENT:
                running = process.fork("relay: key agent", self._run_agent, self._forget)
            else:
                self._make_home(child, generation)
                running = process.fork(
                    f"relay: worker {child.index}",
                    lambda ready_fd: self._run_worker(child.index, generation, ready_fd),
                    self._forget,
                )
        except OSError as error:
            self._note_failure(child, f"it cannot be forked: {error.strerror}", now)
            self._state.exited(child, now, _chance())
            return
        self._processes[running.pid] = running
        self._state.started(child, running.pid, generation, now)

    def _make_home(self, worker: Child, generation: int) -> None:
        """Give a worker its partitions, before it exists.

        Whoever had them, should it still run, sees from then on that it is not their home.
        """
        for partition in self._partitions_of(worker.index):
            self._scoreboard.assign(partition, worker.index, generation)
        row = self._scoreboard.row(worker.index)
        row.clear_gauges()
        row.set("generation", generation)
        if worker.generation:
            row.add("restarts")

    def _forget(self) -> None:
        """In a child: close what is the supervisor's alone."""
        self._signals.forget()
        os.close(self._parent_write_fd)
        for other in self._processes.values():
            other.close()
        self._plant.close_in_child()

    def _run_worker(self, index: int, generation: int, ready_fd: int) -> int:
        plant = self._plant
        self._scoreboard.row(index).set("pid", os.getpid())
        return plant.worker_main(
            WorkerContext(
                index=index,
                generation=generation,
                settings=plant.settings,
                listeners=plant.listeners,
                scoreboard=self._scoreboard,
                runtime=plant.runtime,
                data=plant.data,
                boot_id=plant.boot_id,
                parent_fd=self._parent_read_fd,
                ready_fd=ready_fd,
            )
        )

    def _run_agent(self, ready_fd: int) -> int:
        plant = self._plant
        for listener in plant.listeners:
            listener.close()
        return plant.agent_main(
            AgentContext(
                settings=plant.settings,
                socket_path=plant.runtime / AGENT_SOCKET,
                key_path=plant.key_path,
                scoreboard=self._agent_board,
                expected_fingerprint=self._fingerprint,
                parent_fd=self._parent_read_fd,
                ready_fd=ready_fd,
            )
        )

    def _listen_to(self, child: Child, now: float) -> None:
        report = self._processes[child.pid].read()
        if report is None or child.phase is not Phase.STARTING:
            return
        word, _, text = report.partition(" ")
        if word == "R":
            if child.role is Role.AGENT:
                self._fingerprint = text
            else:
                self._scoreboard.row(child.index).set("ready", 1)
            begun = self._state.became_ready(child, now)
            if child.role is Role.AGENT:
                log.info("agent_ready", extra=_fields(child))
            elif begun or self._state.serving:
                self._log_table()
            if begun:
                self._plant.announce(self._fingerprint)
        else:
            self._note_failure(child, text, now)

    def _note_failure(self, child: Child, reason: str, now: float) -> None:
        """A child cannot boot: at the start that is the end, later it is tried again."""
        if self._state.serving or self._state.stopping:
            log.error("boot_failed", extra={**_fields(child), "reason": reason})
            return
        if child.role is Role.AGENT:
            self._failure = StartError(reason, 1)
        else:
            self._failure = StartError(f"{child.name} cannot start: {reason}", WORKER_FAILED)
        self._state.stop_quickly(now)

    def _note_exit(self, pid: int, how: process.Exit, now: float) -> None:
        child = next((child for child in self._state.children() if child.pid == pid), None)
        if child is None:
            return  # as process 1 of a container we also reap orphans of others
        self._listen_to(child, now)
        self._processes.pop(pid).close()
        if child.phase is Phase.STARTING and not self._state.stopping:
            self._note_failure(child, f"it ended with {how} before it was ready", now)
        unasked = not child.sent and not self._state.stopping
        level = logging.WARNING if unasked else logging.INFO
        log.log(level, "child_exited", extra={**_fields(child), "how": str(how)})
        if child.role is Role.WORKER:
            self._scoreboard.row(child.index).clear_gauges()
            stale = self._plant.runtime / "bus" / f"{child.index}.{child.generation}.sock"
            stale.unlink(missing_ok=True)
        self._state.exited(child, now, _chance())
        if not self._state.stopping and child.start_at_s > now:
            wait_s = round(child.start_at_s - now, 3)
            log.warning("restart_delayed", extra={"child": child.name, "wait_s": wait_s})

    def _handle_signal(self, number: int, now: float) -> None:
        if number in STOP:
            timeout_s = self._plant.settings.server.graceful_timeout_s
            self._state.stop(now, timeout_s)
            log.info("stopping", extra={"signal": signal.Signals(number).name})
        elif number == signal.SIGQUIT:
            self._state.stop_quickly(now)
            log.info("stopping", extra={"signal": "SIGQUIT"})
        elif number == signal.SIGHUP:
            log.warning("reload_ignored", extra={"reason": "settings are read at the start only"})

    def _read_heartbeats(self) -> None:
        for child in self._state.workers:
            child.heartbeat_s = self._scoreboard.row(child.index).get("heartbeat_ns") / 1e9
        self._state.agent.heartbeat_s = self._agent_board.row(0).get("heartbeat_ns") / 1e9

    def _partitions_of(self, index: int) -> range:
        return range(index, self._plant.partitions, len(self._state.workers))

    def _log_table(self) -> None:
        """One line: the workers, their generations and partitions."""
        log.info(
            "workers",
            extra={
                "workers": [
                    {
                        "worker": child.index,
                        "pid": child.pid,
                        "generation": child.generation,
                        "phase": child.phase.value,
                        "partitions": list(self._partitions_of(child.index)),
                    }
                    for child in self._state.workers
                ]
            },
        )


def _chance() -> float:
    return random.random()  # noqa: S311 - it spreads restarts, nobody gains by guessing it


def _fields(child: Child) -> dict[str, object]:
    fields: dict[str, object] = {"pid": child.pid, "generation": child.generation}
    if child.role is Role.WORKER:
        fields["worker"] = child.index
    else:
        fields["agent"] = True
    return fields
