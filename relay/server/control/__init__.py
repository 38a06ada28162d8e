"""The control process: figures for Prometheus, and whether all is well; off the data path."""
