"""The search for stalls runs and reports. The figures are not judged here."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from benchmarks.measure import machine
from benchmarks.measure.scale import LONGER, Scale
from benchmarks.servers.relay import MeasuredRelay
from benchmarks.stalls.prober import STALL_S, Prober, Stall, probe
from benchmarks.stalls.search import WORKERS, Findings, Load, find_stalls

MS = 1_000_000
STOPPED_S = 20 * STALL_S
"""Far longer than a busy machine keeps anybody from a CPU."""
SMALL = Load(
    members=20,
    rate=100.0,
    large_rate=20.0,
    logins=10.0,
    readers=1,
    history=1000,
    texts=20.0,
    export_rest_s=0.1,
)


def test_a_short_search(tmp_path: Path, scale: Scale) -> None:
    """Every probe of every worker is answered and counted, and the load goes on beside them."""
    if not scale.quick:
        pytest.skip("a search needs minutes: make bench-stalls")
    for seconds in LONGER:
        findings = find_stalls(tmp_path / f"{seconds}", seconds, SMALL, collections=True)
        if all(findings.done.values()):
            break
    assert [prober.unanswered for prober in findings.probers] == [0] * WORKERS
    assert all(prober.delays.count for prober in findings.probers)
    assert all(findings.done.values()), findings.done
    assert len(findings.lines()) >= 2 + 2 * WORKERS


def test_a_worker_that_stands_still_is_seen(tmp_path: Path) -> None:
    """The probes of that worker wait for it, and it was not for want of a CPU."""
    with MeasuredRelay(tmp_path / "data", workers=2, cores=machine.ALL_CORES) as server:
        probers = [
            Prober(
                server.client_on(worker, f"prober{worker}-"),
                server.log_at_home_on(worker, "probe"),
                server.pid_of(worker),
            )
            for worker in range(2)
        ]

        def stop_for_a_while() -> None:
            with server.stopped(0):
                time.sleep(STOPPED_S)

        stopping = threading.Timer(0.2, stop_for_a_while)
        stopping.start()
        probe(probers, 3 * STOPPED_S, lambda: None)
        stopping.join()
        for prober in probers:
            prober.client.close()
            prober.threads.close()
    seen = [stall for stall in probers[0].stalls if stall.blocked_ns > STALL_S * 1e9]
    assert seen
    assert not all(stall.explained for stall in seen)


@pytest.mark.parametrize(
    ("ran_ms", "waited_ms", "probe_waited_ms", "others_ms", "late_ms", "explained"),
    [
        (20, 0, 0, 0, 0, False),
        (20, 60, 0, 0, 0, True),
        (20, 30, 30, 0, 0, True),
        (20, 0, 0, 60, 0, True),
        (20, 0, 10, 0, 60, True),
        (20, 30, 0, 20, 10, True),
        # It ran itself: who waited besides held nobody up.
        (90, 0, 0, 60, 0, False),
    ],
)
def test_what_explains_a_stall(
    ran_ms: int, waited_ms: int, probe_waited_ms: int, others_ms: int, late_ms: int, explained: bool
) -> None:
    """A stall is the relay's own when it is one without the times of waiting for a CPU."""
    stall = Stall(
        0, 100 * MS, ran_ms * MS, waited_ms * MS, probe_waited_ms * MS, others_ms * MS, late_ms * MS
    )
    assert stall.explained == explained
    findings = Findings(0, 1.0, 0.5, [], {}, [])
    assert ("ITS OWN" in findings.words(0, stall)) != explained
