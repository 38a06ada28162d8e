"""Files generated from the table of metrics: complete, and without unknown names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from relay.chat.entries import GapReason
from relay.chat.partition import PARTITIONS
from relay.monitoring.alerts import ALERTS, Alert, alerts
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


WORST: Final = {
    "RelayDown": ('up{job="relay"}', "1 0x9"),
    "RelayProcessNotReady": ('relay_ready{process="worker 0"}', "1 0x9"),
    "RelayRestarts": ('relay_restarts_total{process="worker 0"}', "0+1x9"),
    "RelayPartitionsUnavailable": ('relay_partitions_unavailable{worker="0"}', "0 1x9"),
    "RelayPartitionsRefused": ('relay_partitions_refused{worker="0"}', "0 1x9"),
    "RelayDiskReserveReached": ('relay_partitions_short_of_disk{worker="0"}', "0 16x9"),
    "RelayDiskFills": ("relay_disk_free_bytes", "1000000000-1000000x90"),
    "RelayWriteAheadLogGrows": ("relay_wal_bytes", "8000000 2000000000x20"),
    "RelayCommitsWait": ('relay_commit_lag_seconds{worker="1"}', "0 2x9"),
    "RelayBusLags": ('relay_bus_lag_seconds{worker="1"}', "0 2x9"),
    "RelayLoopDelayed": (
        'relay_loop_delay_seconds_bucket{le="+Inf"}', "0+600x20",
        'relay_loop_delay_seconds_bucket{le="0.5"}', "0+1x20",
    ),
    "RelayGaps": ('relay_gaps_total{reason="epoch"}', "0 0 1x9"),
    "RelayKeyAgentBusy": ("relay_agent_busy_total", "0+5x20"),
    "RelayBudgetReached": ('relay_refused_total{budget="send_bytes"}', "0+600x30"),
    "RelayLogLinesLost": ('relay_log_lines_lost_total{process="worker 0"}', "0 0 7x9"),
}  # fmt: skip
"""What fires each alert: its series, with a value for each minute."""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_when_it_should_and_not_before(alert: Alert, tmp_path: Path) -> None:
    """As Prometheus itself evaluates the rules."""
    series, values, *more = WORST[alert.name]
    labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
    minutes = len(expanded(values)) - 1
    told = {
        "exp_labels": {**labels_of(alert, labels), "severity": alert.severity},
        "exp_annotations": {
            "summary": re.sub(r"{{ \$labels\.(\w+) }}", lambda m: labels[m[1]], alert.summary),
            "action": alert.action,
        },
    }
    case = {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": its}
            for name, its in ((series, values), *([more] if more else []))
        ],
        "alert_rule_test": [
            {"eval_time": "0m", "alertname": alert.name, "exp_alerts": []},
            {"eval_time": f"{minutes}m", "alertname": alert.name, "exp_alerts": [told]},
        ],
    }
    file = tmp_path / "test.yaml"
    rules = str(ROOT / "deploy" / "prometheus-alerts.yaml")
    file.write_text(json.dumps({"rule_files": [rules], "tests": [case]}))  # JSON, which is YAML
    ended = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def expanded(values: str) -> list[str]:
    """Return the values of promtool's notation: ``1 0x2`` is 1 0 0 0."""
    found = []
    for part in values.split():
        _, times, count = part.partition("x")
        found += [part] * (int(count) + 1 if times else 1)
    return found


def labels_of(alert: Alert, labels: dict[str, str]) -> dict[str, str]:
    """Return the labels of a series that the alert's expression keeps."""
    if by := re.search(r"by \((\w+)\)", alert.expression):
        return {name: value for name, value in labels.items() if name == by[1] != "le"}
    return {} if re.match(r"(sum|max)\(", alert.expression) else labels


def test_labels_are_those_of_the_protocol() -> None:
    assert tuple(code.name.lower() for code in CloseCode) == CLOSE_CODES
    assert tuple(reason.name.lower() for reason in GapReason) == GAP_REASONS


def test_names_follow_the_convention() -> None:
    """Base units, and the suffixes that Prometheus' documentation recommends."""
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
