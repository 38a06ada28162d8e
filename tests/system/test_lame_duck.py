"""How a relay stops: gracefully on TERM, faster on INT, at once on a second signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from relay import BlockingClient
from tests.support.cluster import Relay, run_relay, wait_until
from tests.support.watching import ON_A_FREE_PORT, Watcher
from tests.system.test_ctl import asked

FOR_EVER_S = 3600
"""Longer than any test waits: a second signal is meant to cut it short."""


def lame(tmp_path: Path, settings: Mapping[str, object]) -> Relay:
    return Relay(tmp_path / "data", settings={**ON_A_FREE_PORT, **settings})


def ended(relay: Relay) -> bool:
    """Return whether its last log line was written, even if its exit status was not collected
    yet.
    """
    return bool(relay.events("stopped"))


def connections(relay: Relay) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = asked(relay, "connections")["items"]
    return items


def test_term_tells_watchers_first_and_serves_on(tmp_path: Path) -> None:
    """Not ready at once; new clients are served meanwhile; a second signal ends it."""
    with lame(tmp_path, {"server.drain_delay_s": FOR_EVER_S}) as relay:
        watcher = Watcher(relay)
        watcher.sees("/readyz", 200)
        os.kill(relay.pid, signal.SIGTERM)
        watcher.sees("/readyz", 503, reasons=["the server is stopping"])
        assert watcher.ask("/livez")[0] == 200
        assert run_relay("send", relay.address, "lobby", text="in time\n").returncode == 0
        os.kill(relay.pid, signal.SIGTERM)
        wait_until(lambda: ended(relay), "the end")


def test_clients_are_sent_away_a_few_at_a_time(tmp_path: Path) -> None:
    """The first at once, the others later, until a second signal."""
    with lame(tmp_path, {"server.drain_spread_s": FOR_EVER_S}) as relay, ExitStack() as clients:
        for n in range(4):
            client = BlockingClient(relay.address, name=f"client{n}")
            clients.callback(client.close, timeout=0)  # the relay may have exited by then
            client.connect()
            client.join("lobby")
        os.kill(relay.pid, signal.SIGTERM)
        wait_until(lambda: len(connections(relay)) == 3, "one is told")
        assert not ended(relay)
        os.kill(relay.pid, signal.SIGINT)
        wait_until(lambda: ended(relay), "the end")


def test_int_is_quicker(tmp_path: Path) -> None:
    """No delay and no spread, but every client is told."""
    gentle = {"server.drain_delay_s": FOR_EVER_S, "server.drain_spread_s": FOR_EVER_S}
    with lame(tmp_path, gentle) as relay:
        os.kill(relay.pid, signal.SIGINT)
        wait_until(lambda: ended(relay), "the end")
        assert {exit_["how"] for exit_ in relay.events("child_exited")} == {"exit code 0"}


def test_a_reload_makes_a_stop_quicker(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f"[server]\ndrain_delay_s = {FOR_EVER_S}\n")
    with Relay(tmp_path / "data", "--config", str(file), settings=ON_A_FREE_PORT) as relay:
        os.kill(relay.pid, signal.SIGTERM)
        Watcher(relay).sees("/readyz", 503, reasons=["the server is stopping"])
        file.write_text("")
        assert run_relay("ctl", "--data", relay.data, "reload").returncode == 0
        wait_until(lambda: ended(relay), "the end")
