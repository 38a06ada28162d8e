"""docs/metrics.md: every metric, its labels and its meaning."""

from __future__ import annotations

from typing import Final

from relay.monitoring.expressions import TABLE
from relay.server.control.exposition import OWN
from relay.server.metrics import WORKER, Kind, Metric

HEAD: Final = """\
<!-- Made by `python -m relay.monitoring metrics > docs/metrics.md`; a test compares. -->
# Metrics

What `/metrics` of the control process shows (docs/operations.md, "Monitoring").
Counters begin with the server and survive the death of a worker; rooms, names and addresses are
never labels. Units are seconds and bytes.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def metrics() -> str:
    """Return the page of all metrics."""
    own_labels = {"process": ("relay_process_resident_bytes", "relay_process_cpu_seconds_total")}
    rows = []
    for metric in TABLE.values():
        suffix = "_total" if metric.kind is Kind.COUNTER else ""
        labels = f"`{metric.label}`: {', '.join(metric.labels)}" if metric.label else _whose(metric)
        rows.append(
            f"| `{metric.exposed_name}{suffix}` | {metric.kind.value} | {labels} | {metric.help} |"
        )
    for name, text in OWN:
        kind = "counter" if name.endswith("_total") else "gauge"
        labels = "`process`" if name in own_labels["process"] else ""
        labels = "`version`, `python`" if name == "relay_build_info" else labels
        rows.append(f"| `{name}` | {kind} | {labels} | {text} |")
    return HEAD + "\n".join(sorted(rows)) + "\n"


def _whose(metric: Metric) -> str:
    if metric.name in ("ready", "restarts", "log_lines_lost"):
        return "`process`"
    return "`worker`" if metric in WORKER and metric.kind is Kind.GAUGE else ""
