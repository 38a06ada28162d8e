"""Errors of the store."""

from __future__ import annotations

from relay.errors import RelayError


class StoreError(RelayError):
    """Base class of all errors of the store."""


class StoreFull(StoreError):
    """The disk or the quota is full. Nothing of the group was stored; reading still works."""


class StoreUnavailable(StoreError):
    """The partition cannot be written or read now. Reopening shows whether a commit succeeded."""


class StoreCorrupt(StoreError):
    """The file is damaged: an operator must act."""


class LogDamaged(StoreError):
    """What is stored of one log makes no sense: the others of its file go on without it."""

    def __init__(self, log: str, reason: object) -> None:
        """Note which log it is, and why."""
        super().__init__(f"the log {log} is damaged: {reason}")
        self.log = log


class StoreOfAnotherVersion(StoreError):
    """The file's format is not supported by this Relay, which leaves it alone."""


class NotTheWriter(StoreError):
    """Another process holds this partition's lock (invariant "One writer per partition")."""


class UsedElsewhere(NotTheWriter):
    """The partition is a link to a file that another relay uses under another path."""
