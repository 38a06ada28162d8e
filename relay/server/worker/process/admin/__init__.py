"""What the control process asks of a worker for ``relay ctl`` and backups."""
