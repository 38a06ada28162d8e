"""What blocks a worker's loop: ``python -m benchmarks.stalls``."""
