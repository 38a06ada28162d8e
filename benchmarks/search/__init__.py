"""The duration of searches in a large room during chat."""
