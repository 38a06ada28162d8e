"""Generates docs/metrics.md, the Grafana dashboard and the alert rules from the table of metrics.

::

    python -m relay.monitoring metrics > docs/metrics.md
    python -m relay.monitoring dashboard > deploy/grafana-dashboard.json
    python -m relay.monitoring alerts > deploy/prometheus-alerts.yaml
"""
