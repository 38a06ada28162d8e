"""How the cost grows, with fitted curves: ``python -m benchmarks.growth``."""
