"""Removes what logs must not keep, in the background."""
