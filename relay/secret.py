"""Bytes that are never displayed: in a log, an exception or a repr a secret is its length."""

from __future__ import annotations


class Secret(bytes):
    """A secret.

    It is bytes in every respect except its representation; use ``bytes(secret)`` and
    ``secret.hex()`` to write it down on purpose.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<secret of {len(self)} bytes>"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)
