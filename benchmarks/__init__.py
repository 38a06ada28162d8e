"""Measurements of Relay by pytest-benchmark: ``make bench-quick`` runs each of them once."""
