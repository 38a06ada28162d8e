"""Liveness, readiness and lag: three requests with separate answers.

- ``/livez``: this process answers, so the supervisor is alive (no process outlives it). A program
  that restarts the server when this fails restarts the right thing.
- ``/readyz``: rooms can be written and read, and the server is not stopping. Load balancers send
  clients elsewhere meanwhile; a restart would not help. What is over before clients notice it is
  only a warning: a balancer would disconnect all clients of this machine.
- ``/lagz``: what is waiting, and for how long. For people, and for alerts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from relay.server.context import WORKER
from relay.server.control.board_view import FRESH_NS, BoardView
from relay.server.control.disk import DiskUse

UNNOTICED_NS: Final = 3_000_000_000
"""How long a process may be away before the server is not ready. A worker that dies is replaced in
less, and on a busy machine one may not run for a second; requests wait for five (``AWAY_S_MAX``)
before they are refused."""
LAG_MAX_NS: Final = 1_000_000_000
"""Noticeable for a person: beyond it /lagz answers 503."""


BRIEFLY: Final = f"for less than {UNNOTICED_NS // 1_000_000_000} s"
AGENT_KEY: Final = -1


class Answer(NamedTuple):
    """The answer to one of the three: the status, and a document that lists the problems."""

    ok: bool
    document: dict[str, Any]


def live() -> Answer:
    """Answer /livez."""
    return Answer(True, {"live": True})


class Readiness:
    """Answers /readyz. Knows for how long a process has been away."""

    def __init__(self, view: BoardView) -> None:
        """Create; nothing has been seen to run yet, so what is away counts at once."""
        self._view = view
        self._partitions: Sequence[int] = range(view.partitions)
        self._seen_ns: dict[int, int] = {}
        """When each partition was last seen with a running worker, and AGENT_KEY the agent."""
        self._looked_ns = 0

    def look(self, now_ns: int) -> None:
        """Note what runs. Must be called several times a second."""
        slept_ns = now_ns - self._looked_ns
        if slept_ns > FRESH_NS:
            # This process did not run either, so it does not know for how long others did not.
            # "now" itself stands for what is seen to run now.
            moved = {key: seen + slept_ns for key, seen in self._seen_ns.items()}
            self._seen_ns = {key: min(seen, now_ns - 1) for key, seen in moved.items()}
        self._looked_ns = now_ns
        served = self._partitions
        if homeless := self._view.homeless(now_ns):
            served = [partition for partition in served if partition not in homeless]
        self._seen_ns.update(dict.fromkeys(served, now_ns))
        if self._view.agent.lives(now_ns):
            self._seen_ns[AGENT_KEY] = now_ns

    def answer(self, now_ns: int) -> Answer:
        """Answer, with a reason for each thing that keeps it from being ready."""
        self.look(now_ns)
        reasons = ["the server is stopping"] if self._view.stopping else []
        warnings: list[str] = []
        away = [n for n in range(self._view.partitions) if self._seen_ns.get(n) != now_ns]
        lasting = [n for n in away if self._lasts(n, now_ns)]
        if lasting:
            reasons.append(f"partitions without a running worker: {_listed(lasting)}")
        if brief := [n for n in away if n not in lasting]:
            warnings.append(f"partitions without a running worker, {BRIEFLY}: {_listed(brief)}")
        if self._lasts(AGENT_KEY, now_ns):
            reasons.append("the key agent is not running: no new client can connect")
        elif self._seen_ns[AGENT_KEY] != now_ns:
            warnings.append(f"the key agent is not running, {BRIEFLY}")
        some = _partitions_in_trouble(self._view, reasons)
        warnings += some + _refused(self._view)
        document = {"ready": not reasons, "reasons": reasons, "warnings": warnings}
        return Answer(not reasons, document)

    def _lasts(self, key: int, now_ns: int) -> bool:
        seen_ns = self._seen_ns.get(key)
        return seen_ns is None or now_ns - seen_ns > UNNOTICED_NS


def _partitions_in_trouble(view: BoardView, reasons: list[str]) -> list[str]:
    """Return what is wrong with some partitions; what is wrong with all is added to ``reasons``.

    As long as others serve it is no reason: no other machine has their content, and removing this
    one would remove the other partitions, too.
    """
    some = []
    for name, what in (
        (
            "partitions_unavailable",
            "cannot be opened or written now: see relay ctl status, or the log",
        ),
        ("partitions_short_of_disk", "are on a disk that is nearly full"),
    ):
        count = _count(view, name)
        if count >= view.partitions:
            reasons.append(f"all partitions {what}")
        elif count:
            some.append(f"{count} of {view.partitions} partitions {what}")
    return some


def lag(view: BoardView, disk: DiskUse, now_ns: int) -> Answer:
    """Answer /lagz."""
    workers: dict[str, Any] = {}
    late = []
    for seen in view.of(WORKER):
        delays = {
            "bus": seen.row.get("bus_lag_ns"),
            "commit": seen.row.get("commit_lag_ns"),
            "loop": seen.silence_ns(now_ns) if seen.pid else 0,
        }
        late += [f"worker {seen.number}: {what}" for what, ns in delays.items() if ns > LAG_MAX_NS]
        workers[str(seen.number)] = {
            **{f"{what}_s": round(ns / 1e9, 3) for what, ns in delays.items()},
            "readers_catching_up": seen.row.get("readers_catching_up"),
            "stalled_bytes": seen.row.get("stalled_bytes"),
        }
    if unavailable := _count(view, "partitions_unavailable"):
        late.append(f"{unavailable} partitions cannot be written")
    if _count(view, "partitions_short_of_disk"):
        late.append("disk: no more than the reserve is free")
    late += _refused(view)
    document = {"lagging": late, "workers": workers, "disk": disk.document()}
    return Answer(not late, document)


def _refused(view: BoardView) -> list[str]:
    count = _count(view, "partitions_refused")
    if not count:
        return []
    where = "relay ctl status, or the log: partition_refused"
    return [f"{count} of {view.partitions} partitions refused, the others serve: see {where}"]


def _count(view: BoardView, name: str) -> int:
    return sum(seen.row.get(name) for seen in view.of(WORKER))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
