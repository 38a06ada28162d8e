"""The control process: metrics for Prometheus and health checks, off the data path."""
