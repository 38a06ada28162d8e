"""Removing the oldest entries of a log: how many, and how."""
