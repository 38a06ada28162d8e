"""Relay: a self-hosted, encrypted chat and event relay."""
