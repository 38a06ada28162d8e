"""Fault injection for a relay, and a checker of what its clients saw (docs/reliability.md)."""
