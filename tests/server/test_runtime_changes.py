"""Settings that an operator changes while the server runs."""

from __future__ import annotations

import msgspec
import pytest

from relay.declarations import declarations
from relay.errors import UsageError
from relay.server.settings.changes import RuntimeChanges
from relay.server.settings.live import LiveSettings
from relay.settings import Log, Settings, Store

BEFORE = Settings(store=Store(data="/data"))
OTHER = {float: 17.0, int: 17, bool: False, str: "debug"}
"""A value for each type that differs from any default."""


def changed(path: str) -> Settings:
    section, key = path.split(".")
    old = BEFORE.value_of(path)
    new = OTHER[type(old)]
    assert new != old
    part = msgspec.structs.replace(getattr(BEFORE, section), **{key: new})
    return msgspec.structs.replace(BEFORE, **{section: part})


def changes(live: LiveSettings, wanted: Settings) -> RuntimeChanges:
    return RuntimeChanges(BEFORE, live, lambda: wanted, lambda settings: settings)


@pytest.mark.parametrize("path", [setting.path for setting in declarations() if setting.live])
def test_every_live_setting_is_applied(path: str) -> None:
    live, after = LiveSettings(BEFORE), changed(path)
    assert list(changes(live, after).reload()["changed"]) == [path]
    assert live.current == after


@pytest.mark.parametrize("path", ["server.workers", "server.keepalive_s", "store.data"])
def test_what_needs_a_restart_is_refused(path: str) -> None:
    live = LiveSettings(BEFORE)
    with pytest.raises(UsageError, match=f"{path}: changes only with a restart"):
        changes(live, changed(path)).reload()
    assert live.current == BEFORE


def test_a_reload_ends_another_log_level() -> None:
    live = LiveSettings(BEFORE)
    running = changes(live, BEFORE)
    assert running.set_log_level({"level": "debug"}) == {"level": "debug", "before": "info"}
    assert live.current.log == Log(level="debug")
    assert running.reload() == {"changed": {}}
    assert live.current == BEFORE
    with pytest.raises(UsageError, match="log level: expected debug"):
        running.set_log_level({"level": 3})


def test_a_hasty_stop_leaves_delay_and_spread_out() -> None:
    gentle = msgspec.structs.replace(
        BEFORE, server=msgspec.structs.replace(BEFORE.server, drain_delay_s=5, drain_spread_s=7)
    )
    live = LiveSettings(gentle)
    running = changes(live, gentle)
    assert running.stop_timeout_s == 5 + 7 + BEFORE.server.graceful_timeout_s
    running.expedite_stop()
    assert running.stop_timeout_s == BEFORE.server.graceful_timeout_s
