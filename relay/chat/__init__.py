"""The domain, without I/O: names, logs, entries, cursors, rosters, quotas."""
