"""Two revisions, alternating: ``python -m benchmarks.paired BASE``."""
