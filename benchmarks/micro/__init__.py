"""Relay's parts, each measured alone by pytest-benchmark."""
