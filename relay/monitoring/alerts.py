"""The alert rules, with advice on what to do."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from relay.monitoring.expressions import gauge, quantile, rate, total


class Alert(NamedTuple):
    """One rule: an alert fires if the condition holds for this time."""

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    action: str


ALERTS: Final = (
    Alert(
        "RelayDown", 'up{job="relay"} == 0', "1m", "page",
        "The relay does not answer.", "Check whether it runs; its log shows why it ended.",
    ),
    Alert(
        "RelayProcessNotReady", f"{gauge('ready')} == 0", "1m", "page",
        "{{ $labels.process }} does not run.", "The log shows why: child_exited, boot_failed.",
    ),
    Alert(
        "RelayRestarts", f"increase({total('restarts')}[10m]) > 3", "0m", "page",
        "{{ $labels.process }} dies repeatedly.", "The log shows how: child_exited.",
    ),
    Alert(
        "RelayPartitionsUnavailable", f"sum({gauge('partitions_unavailable')}) > 0", "1m", "page",
        "Rooms cannot be written.", "relay ctl status shows why.",
    ),
    Alert(
        "RelayPartitionsRefused", f"sum({gauge('partitions_refused')}) > 0", "0m", "page",
        "Partitions are damaged and refused; the others serve.",
        "relay ctl status shows which, and what to do: relay data repair, or a backup.",
    ),
    Alert(
        "RelayDiskReserveReached", f"sum({gauge('partitions_short_of_disk')}) > 0", "0m", "page",
        "Nothing is stored: the disk has reached its reserve.", "Free disk space.",
    ),
    Alert(
        "RelayDiskFills",
        f"predict_linear({gauge('relay_disk_free_bytes')}[2h], 24 * 3600) < 0", "30m", "warn",
        "The disk will be full within a day.", "Free disk space, or use a larger disk.",
    ),
    Alert(
        "RelayWriteAheadLogGrows", f"{gauge('relay_wal_bytes')} > 1e9", "10m", "warn",
        "Checkpoints do not succeed.", "Close other programs that have the files open; see "
        "checkpoint_incomplete in the log.",
    ),
    Alert(
        "RelayCommitsWait", f"max({gauge('commit_lag_ns')}) > 1", "1m", "page",
        "Messages are waiting, but none is committed.", "Check the disk.",
    ),
    Alert(
        "RelayBusLags", f"max({gauge('bus_lag_ns')}) > 1", "1m", "warn",
        "A worker does not keep up with the others.", "Check the CPU usage of each worker.",
    ),
    Alert(
        "RelayLoopDelayed", f"{quantile('loop_delay_ns', 0.99, '5m')} > 0.25", "5m", "warn",
        "The workers' event loops respond late.", "Use more cores and workers, or fewer clients.",
    ),
    Alert(
        "RelayGaps", f"sum by (reason) (increase({total('gaps')}[10m])) > 0", "0m", "warn",
        "Readers miss entries ({{ $labels.reason }}).", "After a restore it is expected; "
        "otherwise find out what changed the data.",
    ),
    Alert(
        "RelayKeyAgentBusy", f"{rate('agent_busy', '5m')} > 0", "5m", "warn",
        "More handshakes arrive than the key agent can process.",
        "Find out where the connections come from.",
    ),
    Alert(
        "RelayBudgetReached", f"sum by (budget) ({rate('refused', '5m')}) > 1", "10m", "warn",
        "The budget {{ $labels.budget }} refuses requests.",
        "The log names the source: budget_reached.",
    ),
    Alert(
        "RelayLogLinesLost", f"increase({total('log_lines_lost')}[10m]) > 0", "0m", "warn",
        "Lines of the log are lost.",
        "The reader of the log is too slow, or the disk is full.",
    ),
)  # fmt: skip


def alerts() -> str:
    """Return the rules as Prometheus reads them."""
    lines = [
        "# Made by `python -m relay.monitoring alerts`; a test compares.",
        "groups:",
        "  - name: relay",
        "    rules:",
    ]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expression)}",
            f"        for: {alert.lasting}",
            f"        labels: {{severity: {alert.severity}}}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          action: {json.dumps(alert.action)}",
        ]
    return "\n".join(lines) + "\n"
