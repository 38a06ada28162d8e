"""How the load test's programs begin and end, and what the web page shows meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.loadtest.running import TIMEOUT_S, run_swarm, started
from tests.support.cluster import COMMAND_S, DEADLINE_S, ROOT, Relay, wait_until

CROWD = ("--users", "24", "--spawn-rate", "24", "--rooms", "6", "--writers", "0.5")
PROGRAMS = ("run", "smoke", "chaos", "curve")


def run_python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("program", PROGRAMS)
def test_outside_the_environment_it_says_what_to_do(program: str) -> None:
    done = run_python("-S", "-m", f"loadtest.{program}")  # -S: without the installed packages
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "make .venv/.dev" in line
    assert line.endswith(f"{ROOT}/.venv/bin/python -m loadtest.{program}")


def test_help_lists_all_flags_and_starts_no_relay() -> None:
    done = run_python("-m", "loadtest.run", "--help")
    assert done.returncode == 0, done.stderr
    flags = ("--workers", "--scenario", "--think-time", "--json-summary", "--headless", "--users")
    assert [flag for flag in flags if flag not in done.stdout] == []
    assert "relay: relay://" not in done.stdout


@pytest.mark.parametrize(
    ("args", "printed"),
    [
        (("-m", "loadtest.run", "--host", ""), "not an address of a relay: ''"),
        (("-m", "loadtest.run", "--host"), "argument -H/--host: expected one argument"),
        (("-m", "loadtest.run", "--workers", "two"), "invalid int value: 'two'"),
        (("-m", "loadtest.run", "--workers=-1"), "--workers -1"),
        (("-m", "loadtest.chaos", "--seconds", "x"), "argument --seconds"),
        (("-m", "loadtest.curve", "many"), "usage: python -m loadtest.curve"),
        (("-m", "loadtest.smoke", "now"), "takes no arguments"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(args: tuple[str, ...], printed: str) -> None:
    done = run_python(*args)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("loadtest: ")
    assert printed in line


@pytest.mark.parametrize(("host", "printed"), [("", "no host"), ("a b", "not an address")])
def test_locust_by_itself_wants_a_host(host: str, printed: str) -> None:
    """Not 100 users with no request and no error."""
    done = run_python(
        "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "-t", "2s", "--host", host
    )
    assert done.returncode == 2, done.stderr
    assert f"loadtest: {printed}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_that_nobody_trusts_is_a_failure_at_once(tmp_path: Path) -> None:
    with Relay(tmp_path / "data") as relay:
        for seconds in (3, 15, 60):  # on a slow machine not everybody connects in a few seconds
            run = run_swarm(
                f"127.0.0.1:{relay.port}", tmp_path, "--users", "3", "--spawn-rate", "3",
                "--run-time", f"{seconds}s",
            )  # fmt: skip
            if run.summary["requests"] >= 3:
                break
    assert run.status == 1, run.output
    assert run.summary["failures"] == run.summary["requests"] == 3
    assert "UnknownServerKey" in run.output
    assert "connects failed" not in run.summary["counts"]  # nobody tries again


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_a_signal_it_sums_up(tmp_path: Path, number: signal.Signals) -> None:
    """As at the end of its time: every user leaves after its last checks. Once, under a master."""
    with (
        Relay(tmp_path / "data", workers=2) as relay,
        started(
            "run",
            tmp_path,
            "--host",
            relay.address,
            "--headless",
            "--run-time",
            "10m",
            "--processes",
            "2",
            *CROWD,
        ) as running,
    ):
        wait_until(
            lambda: sum(map(len, relay.peers_by_worker().values())) == 24, "the users", TIMEOUT_S
        )
        running.process.send_signal(number)
        run = running.end()
    assert run.summary["counts"].get("users judged at the end") == 24, run.output
    assert run.summary["violations"] == run.summary["failures"] == 0
    assert run.output.count(" violations, ") == 1
    assert "Traceback" not in run.output
    assert run.status == (0 if run.summary["checked"] else 1), run.output


def test_a_signal_ends_a_curve_and_not_its_first_run_alone(tmp_path: Path) -> None:
    with started("curve", tmp_path, "--workers", "1", "5", "6") as running:
        running.wait_for(lambda running: running.printed("All users spawned"))
        running.process.send_signal(signal.SIGTERM)
        run = running.end()
    assert "checked: " in run.output
    assert run.output.count("Starting Locust") == 1
    assert "Traceback" not in run.output
    assert "deliveries/s" not in run.output  # the table


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE_S) as answer:
        text: str = answer.read().decode()
        return text


def test_the_web_page_shows_deliveries_and_violations(tmp_path: Path) -> None:
    """As rows of their own, as a tab, and as a panel with charts; then TERM, and the verdict."""
    port = free_port()
    with (
        Relay(tmp_path / "data", workers=2, fault="lose-on-one-worker=0.3") as relay,
        started(
            "run", tmp_path, "--host", relay.address, "--autostart", "--web-port", str(port),
            "--scenario", "many-small-rooms", "--rate", "2", "--run-time", "10m", *CROWD,
        ) as running,
    ):  # fmt: skip

        def served() -> str:
            try:
                return fetch(port, "/")
            except OSError:
                assert running.process.poll() is None
                return ""

        def figures() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(fetch(port, "/relay/figures"))
            return found

        wait_until(served, "the web page")
        assert "/relay/panel.js" in served()
        assert "relay-panel" in fetch(port, "/relay/panel.js")
        wait_until(
            lambda: (found := figures())["violations"] and found["points"][-1]["deliveries"],
            "deliveries and violations in the panel",
        )
        broken: dict[str, int] = {}

        def has_rows() -> bool:
            shown = json.loads(fetch(port, "/stats/requests"))
            rows = {(row["method"], row["name"]): row for row in shown["stats"]}
            (promises,) = shown["extended_stats"]
            broken.update({row["name"]: row["broken"] for row in promises["data"]})
            stored = rows.get(("REQUEST", "publish→stored"))
            delivered = rows.get(("DELIVERY", "publish→delivered"))
            missing = rows.get(("VIOLATION", "Missing"))
            return bool(
                stored
                and delivered
                and delivered["num_requests"] > stored["num_requests"]
                and delivered["current_rps"] > 0
                and missing
                and missing["num_failures"] > 0
                and broken["Missing"] > 0
            )

        wait_until(has_rows, "rows of deliveries and violations")
        assert {"Doubled", "Damaged", "GapReported", "Contradiction", "Lost"} < broken.keys()
        running.process.terminate()
        run = running.end()
    assert run.status == 1, run.output
    assert run.summary["violations"] > 0
    # What is said of requests is of requests alone.
    assert run.summary["requests"] < run.summary["checked"]


def test_a_start_without_a_host_in_the_web_page_is_a_failure(tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "locust", "-f", "loadtest/locustfile.py", "--web-host", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, *command, "--web-port", str(port)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )

    def served() -> bool:
        with contextlib.suppress(OSError):
            return bool(fetch(port, "/"))
        return False

    try:
        wait_until(served, "the web page")
        form = urllib.parse.urlencode({"user_count": 3, "spawn_rate": 3, "host": ""}).encode()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/swarm", form, timeout=DEADLINE_S
        ) as answer:
            assert json.load(answer)["success"]
        wait_until(
            lambda: any("no host" in error["error"] for error in errors(port)), "the failures"
        )
    finally:
        process.terminate()
        process.wait(60)


def errors(port: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fetch(port, "/stats/requests"))["errors"]
    return found
