"""What is made from the table of metrics: nothing missing, and nothing that is not there."""

from __future__ import annotations

import json
import os
import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from relay.chat.entries import GapReason
from relay.chat.partition import PARTITIONS
from relay.monitoring.alerts import ALERTS, alerts
from relay.monitoring.dashboard import PANELS, dashboard
from relay.monitoring.expressions import TABLE
from relay.monitoring.page import metrics
from relay.server.control.board_view import SUPERVISOR as SUPERVISOR_BOARD
from relay.server.control.board_view import BoardView
from relay.server.control.disk import DiskUse
from relay.server.control.exposition import ScoreboardCollector
from relay.server.metrics import AGENT, CLOSE_CODES, GAP_REASONS, PROCESS, SUPERVISOR, WORKER
from relay.server.scoreboard import Scoreboard
from relay.wire.codes import CloseCode
from tests.support.cluster import ROOT

BOARDS = {
    "control": Scoreboard(1, PROCESS),
    "agent": Scoreboard(1, AGENT),
    "worker": Scoreboard(2, WORKER),
    SUPERVISOR_BOARD: Scoreboard(1, SUPERVISOR),
}


BOARDS["worker"].row(0).set("pid", os.getpid())


def exposed() -> dict[str, float]:
    """Return the sum of each exposed sample's values, by name."""
    registry = CollectorRegistry(auto_describe=False)
    disk = DiskUse(1, 2, 3)
    registry.register(ScoreboardCollector(BoardView(BOARDS, PARTITIONS), lambda: disk))
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.documentation, family.name
        found[family.name] = found.get(family.name, 0)
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("docs/metrics.md", metrics),
        ("deploy/grafana-dashboard.json", dashboard),
        ("deploy/prometheus-alerts.yaml", alerts),
    ],
)
def test_files_are_up_to_date(path: str, make: object) -> None:
    assert callable(make)
    assert (ROOT / path).read_text(encoding="utf-8") == make()


def test_every_name_in_dashboard_and_alerts_exists() -> None:
    expressions = [alert.expression for alert in ALERTS]
    for panel in json.loads(dashboard())["panels"]:
        expressions += [target["expr"] for target in panel["targets"]]
    names = {name for expr in expressions for name in re.findall(r"relay_\w+", expr)}
    assert names - set(exposed()) == set()


def test_every_metric_has_a_panel() -> None:
    shown = " ".join(expr for panel in PANELS for expr, _ in panel.lines)
    names = {metric.exposed_name for metric in TABLE.values()}
    assert {
        name for name in names if not re.search(rf"\b{name}(_total|_bucket)?\b", shown)
    } == set()


def test_labels_are_those_of_the_protocol() -> None:
    assert tuple(code.name.lower() for code in CloseCode) == CLOSE_CODES
    assert tuple(reason.name.lower() for reason in GapReason) == GAP_REASONS


def test_names_follow_the_convention() -> None:
    """Base units, and the suffixes that Prometheus' own documentation asks for."""
    for name in exposed():
        assert re.fullmatch(r"relay(_[a-z]+)+", name), name
        assert not re.search(r"_(ns|ms|us|kib|mib)(_|$)", name), name


def test_values_in_base_units() -> None:
    row = BOARDS["worker"].row(1)
    row.observer("commit_ns")(2_000_000)
    row.set("bus_lag_ns", 500_000_000)
    found = exposed()
    assert found["relay_commit_seconds_sum"] == pytest.approx(0.002)
    assert found["relay_commit_seconds_count"] == 1
    assert found["relay_bus_lag_seconds"] == pytest.approx(0.5)
