"""Fault injection for a relay, and a checker of what its clients received (docs/reliability.md)."""
