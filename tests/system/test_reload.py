"""HUP and ``relay ctl reload``: checked as a whole, then applied, also to open connections."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import BlockingClient, Gap, GapReason
from tests.support.cluster import DEADLINE_S, Relay, run_relay, wait_until
from tests.support.watching import ON_A_FREE_PORT, Watcher


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "relay.toml"
    path.write_text("[limits]\nloopback_exempt = false\n[log]\nlevel = 'info'\n")
    return path


@pytest.fixture
def relay(tmp_path: Path, file: Path) -> Iterator[Relay]:
    """A relay of two workers that reads a settings file."""
    with Relay(
        tmp_path / "data", "--config", str(file), workers=2, settings=ON_A_FREE_PORT
    ) as running:
        yield running


def test_limits_reach_connections_that_are_open(relay: Relay, file: Path) -> None:
    watcher = Watcher(relay)
    with BlockingClient(relay.address, name="ann") as ann:
        ann.join("lobby")
        for n in range(5):
            ann.post(f"room-{n}", "a room of its own").result()
        file.write_text("[limits]\nloopback_exempt = false\nrooms_per_minute = 20\n")
        os.kill(relay.pid, signal.SIGHUP)
        wait_until(lambda: relay.events("reloaded"), "the reload")
        assert relay.events("reloaded")[0]["changed"] == {"limits.rooms_per_minute": "60 -> 20"}

        def refused() -> bool:
            refusals.append(0)
            ann.post(f"more-{len(refusals)}", "one too many")
            ann.pump(0.05)
            return watcher.total("relay_refused_total", "rooms") > 0

        refusals: list[int] = []
        wait_until(refused, "a room that is refused")
        file.write_text("[limits]\nloopback_exempt = true\n")
        ended = run_relay("ctl", "--data", relay.data, "reload")
        assert ended.returncode == 0
        assert ended.stdout.splitlines() == [
            "limits.loopback_exempt: false -> true",
            "limits.rooms_per_minute: 20 -> 60",
        ]
        # The client sends the refused message again by itself, and it is stored now.
        ann.flush()
    assert watcher.total("relay_reloads_total", "applied") == 2


def test_retention_reaches_rooms_that_are_there(relay: Relay, file: Path) -> None:
    watcher = Watcher(relay)
    kept = itertools.cycle((3, 4))
    with BlockingClient(relay.address, name="ann") as ann:
        for number in range(20):
            ann.send("lobby", str(number))

        def removed() -> bool:
            # Repeatedly: an entry is kept for a moment after it was written, in any case.
            file.write_text(f"[retention]\nmessages = {next(kept)}\n")
            assert run_relay("ctl", "--data", relay.data, "reload").returncode == 0
            return watcher.total("relay_retention_removed_total") > 0

        wait_until(removed, "what is too much to be removed")
        ann.join("lobby", since=0)
        while not isinstance(event := ann.next_event(DEADLINE_S), Gap):
            pass
        assert event.reason is GapReason.RETENTION


def test_a_bad_file_changes_nothing(relay: Relay, file: Path) -> None:
    file.write_text("[limits]\nrooms_per_minute = 1\nrooms_per_minut = 2\n[log]\nlevel = 'loud'\n")
    os.kill(relay.pid, signal.SIGHUP)
    wait_until(lambda: relay.events("reload_refused"), "the refusal")
    problems = [
        f"{file}:3: limits.rooms_per_minut: no such setting; did you mean limits.rooms_per_minute?",
        f'{file}:5: log.level: expected one of debug, info, warning, error, not "loud"',
    ]
    assert relay.events("reload_refused")[0]["problems"] == problems
    ended = run_relay("ctl", "--data", relay.data, "reload")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [f"relay: {problem}" for problem in problems]
    assert Watcher(relay).total("relay_reloads_total", "refused") == 2
    assert run_relay("send", relay.address, "lobby", text="on\n").returncode == 0


def test_what_needs_a_restart_is_refused_with_the_rest(relay: Relay, file: Path) -> None:
    file.write_text("[server]\nkeepalive_s = 40\n[log]\nlevel = 'error'\n")
    ended = run_relay("ctl", "--data", relay.data, "reload")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        (
            "relay: server.keepalive_s: changes only with a restart; it is 30.0, and 40.0 was "
            "found: restart, or put it back"
        ),
    ]
    assert not relay.events("reloaded")


def test_the_log_level_reaches_every_process(relay: Relay, file: Path) -> None:
    file.write_text("[limits]\nloopback_exempt = false\n[log]\nlevel = 'debug'\n")
    os.kill(relay.pid, signal.SIGHUP)

    def seen() -> bool:
        run_relay("send", relay.address, "lobby", text="hello\n")
        return bool(relay.events("session_closed"))

    wait_until(seen, "a line of a worker at level debug")


def test_a_worker_that_comes_later_has_the_new_settings(relay: Relay, file: Path) -> None:
    file.write_text("[limits]\nloopback_exempt = false\nrooms_per_minute = 1\n")
    assert run_relay("ctl", "--data", relay.data, "reload").returncode == 0
    relay.kill_workers()
    watcher = Watcher(relay)
    with BlockingClient(relay.address, name="ann") as ann:
        ann.join("lobby")
        for n in range(2):
            ann.post(f"room-{n}", "a room of its own")

        def refused() -> bool:
            ann.pump(0.05)
            return watcher.total("relay_refused_total", "rooms") > 0

        wait_until(refused, "a room that is refused")
        ann.close(timeout=0)  # the client would send it again in a minute
