"""Tests of relay.bus."""
