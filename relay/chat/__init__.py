"""The domain, without I/O: names, entries, cursors, repeats, partitions; accounts and rooms."""
