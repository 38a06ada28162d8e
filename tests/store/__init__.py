"""The SQLite store: real files, real processes."""
