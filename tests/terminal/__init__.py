"""Tests of relay.terminal."""
