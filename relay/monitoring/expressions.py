"""Prometheus expressions over metrics of the table: an unknown name is an error."""

from __future__ import annotations

from typing import Final

from relay.server.control.exposition import OWN
from relay.server.metrics import AGENT, SUPERVISOR, WORKER, Kind

TABLE: Final = {metric.name: metric for metric in (*SUPERVISOR, *WORKER, *AGENT) if metric.exposed}
_OWN_NAMES: Final = {name for name, _ in OWN}


def gauge(name: str) -> str:
    """Return the expression for a gauge of the table, or for a value of the control process."""
    if name in _OWN_NAMES:
        return name
    metric = TABLE[name]
    assert metric.kind is Kind.GAUGE, name
    return metric.exposed_name


def total(name: str) -> str:
    """Return the sample name of a counter."""
    if name in _OWN_NAMES:
        return name
    assert TABLE[name].kind is Kind.COUNTER, name
    return f"{TABLE[name].exposed_name}_total"


def rate(name: str, window: str = "$__rate_interval") -> str:
    """Return the expression for a counter's increase per second."""
    return f"rate({total(name)}[{window}])"


def quantile(name: str, share: float, window: str = "$__rate_interval") -> str:
    """Return the expression for a quantile of a histogram, over all workers."""
    metric = TABLE[name]
    assert metric.kind is Kind.HISTOGRAM, name
    return (
        f"histogram_quantile({share}, sum by (le) (rate({metric.exposed_name}_bucket[{window}])))"
    )
