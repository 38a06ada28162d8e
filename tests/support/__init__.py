"""Shared by tests: real servers, in-memory pairs, test peers."""
