"""A relay under torture, and a checker of what its clients saw (docs/reliability.md)."""
