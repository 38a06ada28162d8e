"""What holds a worker's loop up: ``python -m benchmarks.stalls``."""
