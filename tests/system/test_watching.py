"""The control process of a real relay: its metrics, and its three health endpoints."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import BlockingClient
from tests.support.cluster import Relay, run_relay, wait_until
from tests.support.watching import ON_A_FREE_PORT, Watcher

SETTINGS = {**ON_A_FREE_PORT, "server.worker_timeout_s": 600}
"""Longer than any test: no worker is killed for silence."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of two workers."""
    data = tmp_path_factory.mktemp("relay") / "data"
    with Relay(data, workers=2, settings=SETTINGS) as running:
        yield running


@pytest.fixture
def relay(shared: Relay) -> Relay:
    """The shared relay, recovered from what the previous test has done to it."""
    watcher = Watcher(shared)
    watcher.sees("/readyz", 200, warnings=[])
    watcher.sees("/lagz", 200)
    return shared


def send(relay: Relay, count: int) -> None:
    lines = "".join(f"line {n}\n" for n in range(count))
    ended = run_relay("send", relay.address, "lobby", text=lines)
    assert ended.returncode == 0, ended.stderr


def test_whatever_form_is_asked_for(relay: Relay) -> None:
    """A format that no library parses is answered in the text format."""
    for form in ("application/openmetrics-text; version=abc", "text/plain;version=1..0", ";=,"):
        status, body = Watcher(relay).get("/metrics", Accept=form)
        assert status == 200
        assert "relay_messages_accepted_total" in body


def test_counters_tell_what_happened_and_survive_a_worker(tmp_path: Path) -> None:
    with Relay(tmp_path / "data", workers=2, settings=SETTINGS) as relay:
        watcher = Watcher(relay)
        send(relay, 10)
        # Each process publishes what it has counted now and then, not at once.
        watcher.counts(10, "relay_messages_accepted_total")
        watcher.counts(1, "relay_handshakes_total", "completed")
        watcher.counts(1, "relay_closes_total", "client")
        watcher.counts(1, "relay_agent_unwraps_total")
        assert 1 <= watcher.total("relay_commit_seconds_count") <= 10
        relay.kill_workers()
        for number in (0, 1):
            watcher.counts(1, "relay_restarts_total", f"worker {number}")
        watcher.sees("/readyz", 200, warnings=[])
        assert watcher.total("relay_messages_accepted_total") == 10
        send(relay, 5)
        watcher.counts(15, "relay_messages_accepted_total")
        assert watcher.total("relay_wal_bytes") > 0


def test_resumes_repeats_and_gaps_are_counted(relay: Relay) -> None:
    watcher = Watcher(relay)
    send(relay, 3)
    with BlockingClient(relay.address, name="reader") as reader:
        reader.join("lobby", last=3)
        before = watcher.total("relay_resumes_total", "complete")
        relay.kill_workers()
        reader.post("lobby", "still here").result()
        wait_until(lambda: watcher.total("relay_resumes_total", "complete") > before, "a resume")
    assert watcher.total("relay_gaps_total") == 0


def test_a_worker_that_hangs_is_no_reason_to_restart_the_server(relay: Relay) -> None:
    """/livez, /readyz and /lagz give three answers."""
    watcher = Watcher(relay)
    watcher.sees("/readyz", 200, ready=True, reasons=[], warnings=[])
    watcher.sees("/lagz", 200)
    (worker,) = relay.pids_titled("relay: worker 1")
    os.kill(worker, signal.SIGSTOP)
    try:  # other tests use this relay as well
        reasons = ["partitions without a running worker: 1, 3, 5, 7, 9, 11, 13, 15"]
        watcher.sees("/readyz", 503, reasons=reasons)
        watcher.sees("/lagz", 503, lagging=["worker 1: loop"])
        assert watcher.ask("/livez") == (200, {"live": True})
    finally:
        os.kill(worker, signal.SIGCONT)
    watcher.sees("/readyz", 200, warnings=[])
    watcher.sees("/lagz", 200)


def test_without_the_key_agent_it_is_not_ready(relay: Relay) -> None:
    watcher = Watcher(relay)
    agent = relay.agent()
    assert agent is not None
    os.kill(agent, signal.SIGSTOP)
    try:
        reasons = ["the key agent is not running: no new client can connect"]
        watcher.sees("/readyz", 503, reasons=reasons)
    finally:
        os.kill(agent, signal.SIGCONT)


def test_clients_need_no_control_process(relay: Relay) -> None:
    """When killed, it is replaced; clients do not notice."""
    watcher = Watcher(relay)
    before = watcher.total("relay_messages_accepted_total")
    with BlockingClient(relay.address, name="someone") as client:
        client.join("hall")
        (control,) = relay.pids_titled("relay: control")
        os.kill(control, signal.SIGSTOP)
        client.post("hall", "one").result()
        os.kill(control, signal.SIGKILL)
        client.post("hall", "two").result()
        watcher.counts(1, "relay_restarts_total", "control")
    watcher.counts(before + 2, "relay_messages_accepted_total")


def test_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    settings = {"control.bind": f"unix:{path}"}
    with Relay(tmp_path / "data", settings=settings) as relay:
        assert path.stat().st_mode & 0o777 == 0o600
        Watcher(relay).sees("/readyz", 200)
        taken = run_relay(
            "serve", "--data", tmp_path / "other", "--bind", "127.0.0.1:0",
            "--control", f"unix:{path}", env={"RELAY_LOG__LEVEL": "error"},
        )  # fmt: skip
        assert taken.returncode == 1
        assert f"control.bind: cannot listen on unix:{path}: another program" in taken.stderr
        relay.kill()
        relay.start()  # the socket file of a killed process does not prevent the start
        Watcher(relay).sees("/readyz", 200)
        path.unlink()
        wait_until(lambda: relay.events("listener_replaced") and path.exists(), "another one")
        assert path.stat().st_mode & 0o777 == 0o600
        Watcher(relay).sees("/readyz", 200)
        other = tmp_path / "other file"
        other.write_text("somebody else's")
        other.rename(path)
        wait_until(lambda: relay.events("listener_failed"), "that it cannot be had")
        assert relay.stop() == 0
    assert path.read_text() == "somebody else's"


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        ended = run_relay(
            "serve", "--data", tmp_path / "data", "--bind", "127.0.0.1:0", "--control", where,
            env={"RELAY_LOG__LEVEL": "error"},
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"relay: control.bind: cannot listen on {where}: the port is in")
    assert "choose another with --control (off for none)" in ended.stderr
