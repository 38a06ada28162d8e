"""The domain's vocabulary, without I/O: names, entries, cursors, gaps, partitions."""
