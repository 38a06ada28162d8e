"""Who holds which name now. A client instance proves itself by its secret (rule 13)."""

from __future__ import annotations

import hmac
from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class NameBook(Generic[Holder]):
    """Names in use on this machine, each with the secret of the instance that holds it."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[bytes, Holder]] = {}

    def claim(self, name: str, secret: bytes, holder: Holder) -> tuple[bool, Holder | None]:
        """Claim a name.

        Returns:
            (granted, ghost): ``ghost`` is the holder that the same instance replaces, if any.
        """
        held = self._held.get(name)
        if held is not None and not hmac.compare_digest(held[0], secret):
            return False, None
        self._held[name] = (secret, holder)
        return True, held[1] if held is not None else None

    def release(self, name: str, holder: Holder) -> None:
        """Give a name back, if this holder still holds it."""
        held = self._held.get(name)
        if held is not None and held[1] is holder:
            del self._held[name]
