"""Two revisions by turns: ``python -m benchmarks.paired BASE``."""
