"""The format of bus messages, for workers of two versions that run side by side."""

from __future__ import annotations

from typing import Final

BUS_FORMAT: Final = 7
"""Incremented whenever a worker of the previous version would not understand a message, its packed
content, or its meaning (``tests/bus/test_format.py`` detects the first two)."""
