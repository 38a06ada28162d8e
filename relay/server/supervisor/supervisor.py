"""The supervisor's loop: wait for an event, report it to the plan, carry out its actions."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from relay.errors import RelayError, StartError
from relay.server import logs
from relay.server.boot_report import BootReport
from relay.server.scoreboard import Row
from relay.server.supervisor import process
from relay.server.supervisor.boards import Boards
from relay.server.supervisor.config import SupervisorConfig
from relay.server.supervisor.lost_lines import LostLines
from relay.server.supervisor.owners import Owners
from relay.server.supervisor.plan import (
    Action,
    Finish,
    Leave,
    Send,
    Start,
    StartSpare,
    plan,
    wake_at,
)
from relay.server.supervisor.renewal import Renewal
from relay.server.supervisor.request_line import RequestLine
from relay.server.supervisor.roles import SUPERVISOR_BOARD, Launch, Role
from relay.server.supervisor.shared_code import SharedCode
from relay.server.supervisor.signals import STOP, STOPS, SignalQueue, name_of
from relay.server.supervisor.spare import SpareKeeper
from relay.server.supervisor.state import Child, Phase, State
from relay.server.supervisor.succession import Succession
from relay.server.supervisor.upgrade import Upgrade
from relay.server.system.resource_limits import fork_refusal
from relay.server.system.start_signals import RESIZE, UPGRADE, WITHOUT_EFFECT

LATE_S: Final = 1.0
"""If the supervisor notices the time this late, it was stopped itself, or the machine was."""
SERVING: Final = "serving"
STOP_MARGIN_S: Final = 10.0
"""For a service manager, beyond the time for clients: other processes end after the workers."""
log = logging.getLogger("relay.supervisor")


class Supervisor:
    """Runs the children of all roles until it is asked to stop."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._boards = Boards(config.roles, config.formats, config.takeover)
        self._own_row = self._boards[SUPERVISOR_BOARD].row(0)
        self._own_row.set("start_time_ns", time.time_ns())
        self._state = State(config.roles, config.heartbeat_timeout_s(), config.age_max_s())
        self._owners = Owners(self._state, self._boards, config)
        self._spares = SpareKeeper(
            self._state,
            config.roles if config.spare else (),
            partial(self._run, prepared=True),
            self._reset_in_child,
        )
        self._loading = SharedCode(config.roles)
        self._renewal = Renewal(config.roles, self._state, self._spares)
        self._succession = Succession(config, self._state, self._boards, self._owners, self._spares)
        self._generation = self._succession.first_generation
        self._texts = self._succession.texts
        """By role: the text sent by its first ready child."""
        self._signals = SignalQueue()
        self._parent_read_fd, self._parent_write_fd = os.pipe2(os.O_CLOEXEC)
        """Nothing is written to it: children see its end when the supervisor is gone."""
        self._line = RequestLine(
            {
                **config.requests,
                "reload": self._reload,
                **self._owners.requests,
                **self._succession.requests,
            }
        )
        self._processes: dict[int, process.Process] = {}
        self._failure: StartError | None = None
        """Why the start failed; None otherwise."""
        self._lost_lines = LostLines(
            lambda: sum(self._row(child).get("log_lines_lost") for child in self._state.children)
        )

    @property
    def successor(self) -> Upgrade | None:
        """The server that has taken over from this one, or None."""
        return self._succession.successor

    def run(self) -> int:
        """Run until everything has ended. Returns the exit code.

        Raises:
            StartError: a child could not start; nothing is left running.
        """
        state = self._state
        now = state.awake_s = time.monotonic()
        while True:
            now = self._read_clock(now)
            try:
                self._succession.look(now, self._greatest_generation)
            except StartError as error:
                self._failure = error
                self._succession.give_up(now)
            for action in plan(state, now):
                if isinstance(action, Finish):
                    self._lost_lines.report(now, at_once=True)
                    self._line.close()
                    if self.successor is None:
                        log.info("stopped")
                    else:
                        log.info("handed_over")
                        self._succession.pass_on_rest(self._signals)
                    if self._failure is not None:
                        raise self._failure
                    return 0
                self._do(action, now)
            self._loading.look()
            self._lost_lines.report(now)
            self._renewal.look(now)
            until = min(
                self._config.manager.alive(now), wake_at(state, now), self._lost_lines.wake_at_s,
                self._succession.wake_at_s, self._renewal.wake_at_s,
            )  # fmt: skip
            self._wait(until)
            now = self._read_clock(max(now, until))
            for number in self._signals.take():
                self._handle_signal(number, now)
            for number in self._succession.take_stops():
                self._handle_signal(number, now, told=True)
            self._line.answer_all()
            state.heartbeat_timeout_s = self._config.heartbeat_timeout_s()
            state.age_max_s = self._config.age_max_s()
            for child in state.children:
                if child.pid and not child.before:
                    self._read_report(child, now)
            for pid, how in process.reap():
                self._on_exit(pid, how, now)
            self._read_heartbeats()

    def _wait(self, until: float) -> None:
        """Sleep until a signal, a child's report, or the time."""
        fds = [self._signals.fd, self._line.fd, *self._succession.descriptors]
        fds += [one.ready_fd for one in self._processes.values() if one.ready_fd >= 0]
        process.wait_readable(fds, max(0.0, until - time.monotonic()))

    def _read_clock(self, expected_s: float) -> float:
        """Return the time, and note if it is much later than expected.

        All decisions use a time that was read here. So an interruption is noticed wherever it
        occurs: between two steps of the loop as well as in its wait.
        """
        now = time.monotonic()
        if now > expected_s + LATE_S:
            self._state.interrupted(now, now - expected_s)
        return now

    def _do(self, action: Action, now: float) -> None:
        if isinstance(action, Start):
            self._start(action.child, now)
        elif isinstance(action, Leave):
            self._owners.leave(action.child, now)
        elif isinstance(action, StartSpare):
            self._spares.start(now)
        elif isinstance(action, Send):
            child = action.child
            child.sent = action.number
            if action.reason != "stop":
                log.warning(
                    "child_killed",
                    extra={**child.fields, "reason": action.reason},
                )
            if action.number == signal.SIGKILL:
                self._row(child).set("ready", 0)
            if child.before:
                self._succession.signal_before(child, action.number)
            else:
                process.send(child.pid, action.number)

    def _start(self, child: Child, now: float) -> None:
        generation = self._generation = self._greatest_generation + 1
        self._prepare_row(child, generation)
        try:
            running = self._spares.use(child, generation, now) or process.fork(
                f"relay: {child.name}",
                lambda boot: self._run(child.role, child.index, generation, boot),
                self._reset_in_child,
            )
        except OSError as error:
            self._on_boot_failure(child, fork_refusal(error), now)
            self._state.exited(child, now, _random())
            return
        self._processes[running.pid] = running
        self._state.started(child, running.pid, generation, now)

    @property
    def _greatest_generation(self) -> int:
        """Return the greatest of this server's processes, and of a next one that has failed."""
        return max(self._generation, self._owners.greatest_generation)

    def _row(self, child: Child) -> Row:
        return self._boards[child.role.name].row(child.index)

    def _prepare_row(self, child: Child, generation: int) -> None:
        """Enter a process in the shared tables before it exists.

        If an earlier process of the slot still runs, it sees from then on that it is replaced.
        """
        board = self._boards[child.role.name]
        board.workers = max(board.workers, child.index + 1)
        if child.role.owns_partitions:
            self._owners.assign(child, generation)
        row = self._row(child)
        row.clear_gauges()
        row.set("generation", generation)
        if child.generation:
            row.add("restarts")

    def _reset_in_child(self) -> None:
        """In a child: close what only the supervisor uses."""
        self._signals.reset_in_child()
        os.close(self._parent_write_fd)
        for other in self._processes.values():
            other.close()
        self._spares.close()
        self._line.close_near_end()
        self._succession.close_in_child()
        self._boards.close_in_child()
        self._config.close_in_child()
        logs.reset_in_child(lambda: None)

    def _run(
        self, role: Role, index: int, generation: int, boot: BootReport, *, prepared: bool = False
    ) -> int:
        """In a child: run its program."""
        row = self._boards[role.name].row(index)
        row.set("pid", os.getpid())
        logs.reset_in_child(lambda: row.add("log_lines_lost"))
        for other in self._config.roles:
            if other is not role:
                for listener in other.listeners():
                    listener.close()
        if not role.asks:
            self._line.close_far_end()
        if not prepared:
            role.prepare()
        return role.run(
            Launch(
                index=index,
                generation=generation,
                boards=self._boards,
                scoreboard=self._boards[role.name],
                line_fd=self._line.far_fd if role.asks else -1,
                parent_fd=self._parent_read_fd,
                boot=boot,
                text=self._texts.get(role.name, ""),
                gate_fd=self._succession.gate(role),
            )
        )

    def _read_report(self, child: Child, now: float) -> None:
        report = self._processes[child.pid].read()
        if report is None or child.phase is not Phase.STARTING:
            return
        word, _, text = report.partition(" ")
        if word == "P":
            self._state.prepared(child)
            return
        if word != "R":
            child.refused = True
            self._on_boot_failure(child, text, now)
            if self._failure is not None and not child.role.indexed:
                # It is the only process of its role, so its name would not help a person.
                self._failure = StartError(text, child.role.boot_failure_code)
            return
        self._texts.setdefault(child.role.name, text)
        self._row(child).set("ready", 1)
        served_before = self._state.serving
        serving_now = self._state.became_ready(child, now)
        if served_before and child.role.owns_partitions:
            self._owners.rebalance()
        if not child.role.owns_partitions:
            event = f"{child.role.name}_ready"
            log.info(event, extra=child.fields)
        if serving_now or (child.role.owns_partitions and self._state.serving):
            self._owners.log_table()
        if serving_now:
            if not self._succession.serving():
                self._config.on_serving(self._texts)
            self._config.manager.ready(SERVING)

    def _on_boot_failure(self, child: Child, reason: str, now: float) -> None:
        """A child cannot boot: at the start the server ends, later it is retried."""
        if self._failure is not None:
            return  # this server ends for another reason
        if self._state.serving or self._state.stopping or self._succession.begun:
            log.error("boot_failed", extra={**child.fields, "reason": reason})
            return
        self._failure = StartError(
            f"{child.name} cannot start: {reason}", child.role.boot_failure_code
        )
        self._succession.give_up(now)

    def _on_exit(self, pid: int, how: process.Exit, now: float) -> None:
        own = (child for child in self._state.children if child.pid == pid and not child.before)
        child = next(own, None)
        another = self._spares.ended(pid, how, now) or self._succession.ended(pid, how, now)
        if another or child is None:  # process 1 of a container also reaps orphans
            return
        self._succession.exited(child, now)
        self._read_report(child, now)
        self._processes.pop(pid).close()
        if child.phase is Phase.STARTING and not (self._state.stopping or child.refused):
            self._on_boot_failure(child, child.too_slow or how.before_ready, now)
        expected = child.sent or child.leave_by_s or self._state.stopping
        fields = {**child.fields, "how": str(how)}  # logged when the tables have it no longer
        # otherwise the next version may have it
        if not (self._state.lent and child.role.owns_partitions):
            self._row(child).clear_gauges()
        if child.surplus:
            self._row(child).set("retired", 1)
        self._state.exited(child, now, _random())
        log.log(logging.INFO if expected else logging.WARNING, "child_exited", extra=fields)
        if child.surplus:
            self._owners.rebalance()  # if its partitions could not all be given away
            self._owners.log_table()
        elif not self._state.stopping and child.start_at_s > now:
            delay = {"child": child.name, "wait_s": round(child.start_at_s - now, 3)}
            log.warning("restart_delayed", extra=delay)

    def _handle_signal(self, number: int, now: float, *, told: bool = False) -> None:
        """Do what a signal asks for. ``told``: the previous version has passed it on."""
        passed = self._succession.passed_on(number)
        if passed and not self._state.lent:
            return
        if number in STOPS and self._succession.may_give_up and not told:
            self._failure = StartError(f"it was told to stop ({name_of(number)})")
            self._succession.give_up(now)
            return
        if number in STOPS:
            log.info("stopping", extra={"signal": name_of(number)})
            self._own_row.set("stopping", 1)
            self._spares.end(now)
            self._succession.end()
            self._config.manager.stopping(self._config.graceful_timeout_s() + STOP_MARGIN_S)
            if number == signal.SIGINT:
                self._config.expedite_stop()
        if passed:
            return
        if number in STOP:
            self._state.stop(now, self._config.graceful_timeout_s())
        elif number == signal.SIGQUIT:
            self._state.stop_quickly(now)
        elif number == signal.SIGHUP:
            with contextlib.suppress(RelayError):  # it has been logged; the server continues
                self._reload({})
        elif number == UPGRADE:
            with contextlib.suppress(RelayError):  # it has been logged
                self._succession.begin(self._generation, now)
        elif number in RESIZE:
            with contextlib.suppress(RelayError):  # it has been logged
                self._owners.step(RESIZE[signal.Signals(number)])
        elif number in WITHOUT_EFFECT:
            reason = "the log is stderr, there is no file to open again"
            log.warning("signal_ignored", extra={"signal": name_of(number), "reason": reason})

    def _reload(self, _: Mapping[str, Any]) -> object:
        """Read the settings again. Raises RelayError: they are refused."""
        manager = self._config.manager
        manager.reloading()
        try:
            applied = self._succession.reload()
        except RelayError:
            self._own_row.add("reloads", label="refused")
            manager.ready("serving; a reload was refused, see the log")
            raise
        manager.ready(SERVING)
        self._own_row.add("reloads", label="applied")
        self._renewal.reloaded(time.monotonic())
        return applied

    def _read_heartbeats(self) -> None:
        for child in self._state.children:
            row = self._row(child)
            child.heartbeat_s = row.get("heartbeat_ns") / 1e9
            if child.before:
                child.yielded = bool(row.get("not_accepting"))


def _random() -> float:
    return random.random()  # noqa: S311 - it spreads restarts, nobody gains by guessing it
