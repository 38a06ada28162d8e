"""Liveness, readiness and lag: three requests with separate answers.

- ``/livez``: this process answers, so the supervisor is alive (no process outlives it). A program
  that restarts the server when this fails restarts the right thing.
- ``/readyz``: rooms can be written and read, and the server is not stopping. Load balancers send
  clients elsewhere meanwhile; a restart would not help.
- ``/lagz``: what is waiting, and for how long. For people, and for alerts.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from relay.server.context import WORKER
from relay.server.control.board_view import BoardView
from relay.server.control.disk import DiskUse

LAG_MAX_NS: Final = 1_000_000_000
"""Noticeable for a person: beyond it /lagz answers 503."""


class Answer(NamedTuple):
    """The answer to one of the three: the status, and a document that lists the problems."""

    ok: bool
    document: dict[str, Any]


def live() -> Answer:
    """Answer /livez."""
    return Answer(True, {"live": True})


def ready(view: BoardView, now_ns: int) -> Answer:
    """Answer /readyz, with a reason for each thing that keeps it from being ready.

    Partitions that are refused or cannot be written do not count as long as others serve: no other
    machine has their content, and removing this one would remove the other partitions, too.
    """
    reasons: list[str] = []
    if view.stopping:
        reasons.append("the server is stopping")
    if homeless := view.homeless(now_ns):
        reasons.append(f"partitions without a running worker: {_listed(homeless)}")
    if not view.agent.lives(now_ns):
        reasons.append("the key agent is not running: no new client can connect")
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
    document = {"ready": not reasons, "reasons": reasons, "warnings": some + _refused(view)}
    return Answer(not reasons, document)


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
