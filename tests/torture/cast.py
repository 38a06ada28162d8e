"""The clients of a run as processes: start, kill, stop, and follow their histories."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.support.cluster import ROOT
from tests.support.loaded import Forked, loader
from tests.torture.checker import Place
from tests.torture.records import (
    Acked,
    Began,
    Connection,
    Follower,
    Hole,
    Placed,
    Process,
    Resumed,
    Seen,
    Sent,
    Totals,
)

if TYPE_CHECKING:
    from tests.torture.effort import Effort


class Part(NamedTuple):
    """A client of a run."""

    name: str
    program: str
    """``sender`` or ``reader``."""
    logs: tuple[str, ...]
    option: str
    """The options of its program."""


class Player:
    """One client, over any number of processes, and its history as far as it has been read."""

    def __init__(self, part: Part, history: Path, seed: int, address: str) -> None:
        self.part = part
        self.history = history
        self._seed = seed
        self._address = address
        self._process: Forked | None = None
        self._follower = Follower(history)
        self._unfinished = False
        self.stopped = False
        """True while SIGSTOP holds it."""
        self.online = False
        self.ended = False
        """True once it has ended by itself after TERM."""
        self.places: dict[str, Place] = {}
        """A reader's cursors."""
        self.unacknowledged = 0

    @property
    def running(self) -> bool:
        """True while there is a process."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start a process, or the next one, on the same history."""
        assert not self.running
        with Path(os.devnull).open("rb") as nothing:
            self._process = loader("players").start(
                f"tests.torture.{self.part.program}",
                [
                    self._address,
                    self.part.name,
                    os.fspath(self.history),
                    ",".join(self.part.logs),
                    str(self._seed),
                    self.part.option,
                ],
                os.environ,
                ROOT,
                (nothing.fileno(), 1, 2),
                session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.stopped = self.online = False

    def stop(self) -> None:
        """SIGSTOP, until ``resume``."""
        self.stopped = True
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
        self.stopped = False

    def finish(self) -> None:
        """TERM: a sender waits for its acknowledgements, a reader ends at once."""
        self.signal(signal.SIGTERM)

    def follow(self, effort: Effort) -> None:
        """Read the records written since the last call."""
        for record in self._follower.new():
            match record:
                case Seen(log=log, epoch=epoch, seq=seq):
                    self.places[log] = Place(epoch, seq)
                    effort.delivered += 1
                case Sent():
                    self.unacknowledged += 1
                case Acked():
                    self.unacknowledged -= 1
                    effort.acknowledged += 1
                case Began(log=log, epoch=epoch, seq=seq) | Hole(log=log, end=(epoch, seq)):
                    self.places[log] = Place(epoch, seq)
                case Placed(live=False):
                    effort.catch_ups += 1
                case Resumed():
                    effort.resumes += 1
                case Connection(state=state):
                    self._connection(state, effort)
                case Process(ends=ends):
                    effort.resent += 0 if ends else self.unacknowledged
                    self.ended = ends
                    self.online = False
                    self._unfinished = False
                case Totals(resent=resent):
                    effort.resent += resent
                case _:
                    pass

    def _connection(self, state: str, effort: Effort) -> None:
        self.online = state == "online"
        if not self.online:
            return
        if self._unfinished:
            effort.reconnects += 1
            effort.resumes += self.part.program == "reader"
        self._unfinished = True
