"""Relay alone, as a whole, measured by pytest-benchmark."""
