"""The control process: metrics, health checks and ``relay ctl``, off the data path."""
