"""Relay: a self-hosted, encrypted chat and event relay."""

__version__ = "0.1.0"
