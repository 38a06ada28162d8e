"""Tests of relay.cli."""
