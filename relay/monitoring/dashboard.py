"""The Grafana dashboard: a panel per question, with expressions over the table of metrics."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from relay.monitoring.expressions import gauge, quantile, rate


class Panel(NamedTuple):
    """One chart: its title, Grafana's unit, and each line with its name."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    description: str = ""


def _quantiles(name: str) -> tuple[tuple[str, str], ...]:
    return ((quantile(name, 0.5), "p50"), (quantile(name, 0.99), "p99"))


PANELS: Final = (
    Panel(
        "Messages",
        "cps",
        (
            (rate("messages_accepted"), "accepted"),
            (rate("deliveries"), "delivered live"),
            (rate("messages_repeated"), "repeats dropped"),
        ),
        "Accepted messages are committed and acknowledged. A repeat was resent, and stored once.",
    ),
    Panel(
        "Connections",
        "short",
        (
            (gauge("connections"), "open, worker {{worker}}"),
            (gauge("connections_logged_in"), "logged in, worker {{worker}}"),
        ),
    ),
    Panel("Commit", "s", _quantiles("commit_ns"), "The wait of every message in a group commit."),
    Panel(
        "Event loop delay", "s", _quantiles("loop_delay_ns"), "The wait that affects all clients."
    ),
    Panel(
        "Waiting",
        "s",
        (
            (gauge("commit_lag_ns"), "for a commit, worker {{worker}}"),
            (gauge("bus_lag_ns"), "for another worker, worker {{worker}}"),
        ),
    ),
    Panel("Checkpoint", "s", _quantiles("checkpoint_ns")),
    Panel("Handshakes", "cps", ((rate("handshakes"), "{{outcome}}"),)),
    Panel(
        "Completed handshakes",
        "cps",
        ((rate("handshake_kinds"), "{{kind}}"),),
        "With a ticket, the key agent is not needed. fell_back: the ticket was not accepted.",
    ),
    Panel(
        "Key agent",
        "short",
        (
            (gauge("agent_queue"), "waiting"),
            (rate("agent_unwraps"), "done a second"),
            (rate("agent_busy"), "refused a second"),
        ),
    ),
    Panel("Key agent: one handshake", "s", _quantiles("agent_unwrap_ns")),
    Panel("Closed connections", "cps", ((rate("closes"), "{{code}}"),)),
    Panel("Refused by a budget", "cps", ((rate("refused"), "{{budget}}"),)),
    Panel(
        "Resumed clients",
        "cps",
        ((rate("resumes"), "{{outcome}}"), (rate("gaps"), "gap: {{reason}}")),
        "A gap is entries that a reader does not get: 0 except after a restore or a lost disk.",
    ),
    Panel(
        "Slow readers",
        "cps",
        (
            (rate("readers_fell_behind"), "fell behind"),
            (rate("readers_caught_up"), "live"),
            (rate("readers_too_slow"), "closed"),
            (rate("pages_read"), "pages read"),
        ),
    ),
    Panel(
        "Searches",
        "cps",
        (
            (rate("searches"), "{{outcome}}"),
            (rate("messages_indexed"), "entries read for the index"),
            (gauge("search_behind"), "partitions not fully indexed, worker {{worker}}"),
        ),
    ),
    Panel("One search", "s", _quantiles("search_ns")),
    Panel(
        "Readers catching up",
        "short",
        ((gauge("readers_catching_up"), "worker {{worker}}"),),
    ),
    Panel(
        "Bytes held",
        "bytes",
        (
            (gauge("stalled_bytes"), "not read by clients, worker {{worker}}"),
            (gauge("received_bytes"), "received, not processed, worker {{worker}}"),
        ),
    ),
    Panel(
        "Sources and joins",
        "short",
        (
            (gauge("sources"), "sources, worker {{worker}}"),
            (gauge("users"), "accounts, worker {{worker}}"),
            (gauge("joins"), "joins, worker {{worker}}"),
        ),
    ),
    Panel("Bus repairs", "cps", ((rate("bus_repairs"), "read from the store"),)),
    Panel(
        "Processes",
        "short",
        (
            (gauge("ready"), "{{process}} ready"),
            (gauge("not_accepting"), "worker {{worker}} accepts no connections"),
            (rate("restarts"), "{{process}} restarts a second"),
            (gauge("stopping"), "stopping"),
        ),
    ),
    Panel("Processor", "percentunit", ((rate("relay_process_cpu_seconds_total"), "{{process}}"),)),
    Panel("Memory", "bytes", ((gauge("relay_process_resident_bytes"), "{{process}}"),)),
    Panel(
        "Disk",
        "bytes",
        (
            (gauge("relay_store_bytes"), "databases"),
            (gauge("relay_wal_bytes"), "write-ahead logs"),
            (gauge("relay_disk_free_bytes"), "free"),
        ),
    ),
    Panel(
        "Retention",
        "short",
        (
            (rate("retention_removed"), "entries removed"),
            (rate("retention_removed_bytes"), "bytes removed"),
        ),
    ),
    Panel(
        "Partitions in trouble",
        "short",
        (
            (gauge("partitions_unavailable"), "cannot be written, worker {{worker}}"),
            (gauge("partitions_refused"), "damaged and refused, worker {{worker}}"),
            (gauge("partitions_short_of_disk"), "short of disk, worker {{worker}}"),
        ),
    ),
    Panel("Log lines lost", "cps", ((rate("log_lines_lost"), "{{process}}"),)),
    Panel("Reloads", "cps", ((rate("reloads"), "{{outcome}}"),)),
    Panel("Uptime", "s", ((f"time() - {gauge('start_time_ns')}", "since the start"),)),
    Panel("Version", "short", ((gauge("relay_build_info"), "{{version}}, Python {{python}}"),)),
)


def dashboard() -> str:
    """Return the dashboard in Grafana's import format."""
    panels = [_panel(number, panel) for number, panel in enumerate(PANELS)]
    document = {
        "title": "Relay",
        "uid": "relay",
        "tags": ["relay"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "gridPos": {"h": 7, "w": 8, "x": number % 3 * 8, "y": number // 3 * 7},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": source, "expr": expr, "legendFormat": name}
            for n, (expr, name) in enumerate(panel.lines)
        ],
    }
