"""Damage is logged once per log, and at a bounded rate for many logs."""

from __future__ import annotations

import pytest

from relay.server.worker.damaged_logs import REPORTED_MAX, REPORTED_S, DamagedLogs
from relay.server.worker.member.damage import DamageReports
from relay.server.worker.member.routes import Routes
from relay.server.worker.process.messaging.own_home import OwnHome
from relay.server.worker.stored import damage_of
from relay.server.worker.wakeup import Wakeup
from relay.store.log import Reader
from relay.wire.codes import ErrorCode


def no_call(_: object) -> None:
    raise AssertionError("nothing is sent")


def no_reader(_: int) -> Reader:
    raise AssertionError("nothing is read")


def test_each_damage_of_a_log_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    own_home = OwnHome(0, 0, Wakeup(no_call))
    routes = Routes(own_home.to_home, lambda _: (0, 0), {})
    reports = DamageReports(routes, no_reader, DamagedLogs(lambda: now))

    def lines(*bad: int, log: str = "lobby") -> int:
        before = len(caplog.records)
        for seq in bad:
            reports.report_log(damage_of(log, {seq, seq + 1}))
        return len(caplog.records) - before

    assert lines(1, 2, 1, 2) == 2
    assert lines(1, log="@alice") == 1
    assert reports.report(0, damage_of("lobby", {1})) == ErrorCode.DAMAGED
    assert lines(*range(1, 2 * REPORTED_MAX)) == REPORTED_MAX - 3
    assert lines(*range(1, 2 * REPORTED_MAX)) == 0
    now = REPORTED_S
    assert lines(2 * REPORTED_MAX, 1) == 2, "new damage is logged"
