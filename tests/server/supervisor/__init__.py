"""Tests of the supervisor, most with real processes."""
