"""Backups of a data directory: create, verify, restore."""
