"""The swarm finds what is wrong with a server, and nothing with a good one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.loadtest.running import run_program, run_swarm, run_until
from tests.support.cluster import ROOT, Relay
from tests.support.watching import ON_A_FREE_PORT, Watcher

CROWD = ("--users", "24", "--spawn-rate", "24", "--rooms", "6", "--writers", "0.5")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_good_server_passes_also_over_a_flaky_network(data: Path, tmp_path: Path) -> None:
    """In two processes under a master: what they measured and checked is added up."""
    with Relay(data, workers=2, settings=ON_A_FREE_PORT) as relay:
        watcher = Watcher(relay)
        run = run_until(
            # Each user has come back, in the mean; enough came live that some of it was timed.
            lambda _: watcher.total("relay_handshakes_total", "completed") >= 24 * 2
            and watcher.total("relay_deliveries_total") >= 500,
            relay.address, tmp_path, *CROWD, "--scenario", "flaky-network", "--rate", "2",
            "--cut-after", "8000", "--processes", "2",
        )  # fmt: skip
    assert run.status == 0, run.output
    counts = run.summary["counts"]
    assert run.summary["violations"] == run.summary["failures"] == 0, run.output
    assert run.summary["checked"] > counts["messages stored"] > 0
    assert counts["connections lost"] > 0
    latencies = run.summary["latencies_us"]
    assert latencies["resume"]["count"] > 0
    assert latencies["publish→stored"]["count"] == counts["messages stored"]
    live = latencies["publish→delivered"]["count"]
    assert 0 < live <= run.summary["checked"] - counts.get("deliveries caught up", 0)


def test_it_finds_messages_that_one_worker_loses(data: Path, tmp_path: Path) -> None:
    """In two processes: what they find when their users leave counts, too."""
    with Relay(data, workers=2, fault="lose-on-one-worker=0.5") as relay:
        for _ in range(5):  # the end of some room must be among what is lost
            run = run_until(
                lambda running: running.printed("VIOLATION Missing"),
                relay.address, tmp_path, *CROWD, "--scenario", "many-small-rooms", "--rate", "2",
                "--processes", "2",
            )  # fmt: skip
            if run.summary["counts"].get("violation Lost"):
                break
    assert run.status != 0, run.output
    counts = run.summary["counts"]
    assert counts["violation Missing"] > 0
    assert counts["violation Lost"] == run.output.count("VIOLATION Lost: lt-") > 0, run.output


def test_it_finds_messages_that_are_stored_twice_after_a_reconnect(
    data: Path, tmp_path: Path
) -> None:
    with Relay(data, workers=2, fault="no-deduplication") as relay:
        run = run_until(
            lambda running: running.printed("VIOLATION Doubled"),
            relay.address, tmp_path, *CROWD, "--scenario", "flaky-network", "--rate", "2",
            "--cut-after", "5000",
        )  # fmt: skip
    assert run.status == 1, run.output
    assert run.summary["counts"]["violation Doubled"] > 0


def test_it_finds_gaps_after_a_reconnect(data: Path, tmp_path: Path) -> None:
    with Relay(data, workers=2, fault="gap-on-resume") as relay:
        run = run_until(
            lambda running: running.printed("VIOLATION GapReported"),
            relay.address, tmp_path, *CROWD, "--scenario", "reconnect-storm", "--rate", "2",
            "--storm-every", "1",
        )  # fmt: skip
    assert run.status == 1, run.output
    assert run.summary["counts"]["violation GapReported"] > 0


@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        (("--payload", "huge"), "--payload huge"),
        (("--rooms", "1", "--rooms-per-user", "2"), "--rooms-per-user"),
        (("--rate", "0"), "--rate"),
    ],
)
def test_a_wrong_parameter_is_one_line(
    tmp_path: Path, flags: tuple[str, ...], printed: str
) -> None:
    run = run_swarm("relay://127.0.0.1:1", tmp_path, *flags, "--run-time", "1s")
    assert run.status == 2, run.output
    assert printed in run.output
    assert "Traceback" not in run.output


def test_a_run_that_checked_nothing_fails(tmp_path: Path) -> None:
    """No server is there: it is a failure at once, and the users keep trying."""
    for seconds in (2, 10, 60):  # on a slow machine little may happen in a few seconds
        run = run_swarm(
            "relay://127.0.0.1:1", tmp_path, "--users", "2", "--run-time", f"{seconds}s"
        )
        if run.summary["counts"].get("connects failed", 0) > 2:
            break
    assert run.status == 1, run.output
    assert run.summary["checked"] == 0
    assert run.summary["counts"]["connects failed"] > run.summary["failures"] == 2


def test_the_ramp_ends_by_itself_with_a_number(data: Path, tmp_path: Path) -> None:
    with Relay(data, workers=2) as relay:
        for step_s in (2, 10):  # on a slow machine little comes in a short step
            run = run_swarm(
                relay.address, tmp_path, "--scenario", "ramp", "--first-users", "6", "--rate", "2",
                "--writers", "1", "--step-time", str(step_s), "--p99-objective", "5000",
                "--run-time", f"{6 * step_s}s",
            )  # fmt: skip
            assert run.summary["violations"] == 0, run.output  # that is no slow machine
            if run.status == 0:
                break
    assert run.status == 0, run.output
    assert run.summary["capacity_users"] >= 6
    assert "CAPACITY:" in run.output
    first = run.summary["steps"][0]
    assert first["users"] == 6
    assert first["deliveries_per_s"] > first["messages_per_s"] > 0


def test_a_chat_day_has_all_that_people_do(data: Path, tmp_path: Path) -> None:
    """Messages to rooms and to one person, edits, reactions and read marks, all of them checked."""
    with Relay(data, workers=2, settings=ON_A_FREE_PORT) as relay:
        watcher = Watcher(relay)
        run = run_until(
            lambda _: watcher.total("relay_messages_accepted_total") > 300,
            relay.address, tmp_path, "--users", "10", "--spawn-rate", "10", "--rooms", "4",
            "--scenario", "chat-day", "--writers", "1", "--think-time", "0.02",
        )  # fmt: skip
    assert run.status == 0, run.output
    assert run.summary["violations"] == run.summary["failures"] == 0, run.output
    counts = run.summary["counts"]
    for what in ("messages", "edits", "reactions", "read marks"):
        assert counts[f"{what} stored"] > 0


def test_the_documented_locustfile_works_as_it_stands(data: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "loadtest.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    locustfile = tmp_path / "my_locustfile.py"
    locustfile.write_text(example)
    with Relay(data, workers=2, settings=ON_A_FREE_PORT) as relay:
        watcher = Watcher(relay)
        run = run_until(
            lambda _: watcher.total("relay_deliveries_total") > 20,
            relay.address, tmp_path, "--users", "8", "--spawn-rate", "8",
            "--locustfile", str(locustfile),
        )  # fmt: skip
    assert run.status == 0, run.output
    assert run.summary["checked"] > 0
    assert run.summary["violations"] == run.summary["failures"] == 0


def test_nothing_is_lost_while_the_server_is_hurt(tmp_path: Path) -> None:
    for seconds in (9, 45, 135):  # on a slow machine little may happen in a few seconds
        run = run_program(
            "chaos", tmp_path, *CROWD, "--workers", "2", "--seconds", str(seconds), "--rate", "2",
            "--scenario", "many-small-rooms",
        )  # fmt: skip
        if run.summary.get("counts", {}).get("connections lost", 0) >= 24:
            break
    assert run.status == 0, run.output
    assert run.output.count("chaos: kill -9") == 2
    assert "chaos: started again" in run.output
    assert run.summary["violations"] == run.summary["failures"] == 0
    assert run.summary["counts"]["connections lost"] >= 24
