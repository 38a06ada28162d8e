"""The format of what workers tell each other, for workers of two versions that run side by side."""

from __future__ import annotations

from typing import Final

BUS_FORMAT: Final = 4
"""One more whenever a worker of the version before would not understand a message, what one carries
packed, or what is meant by it (``tests/bus/test_format.py`` sees the first two)."""
