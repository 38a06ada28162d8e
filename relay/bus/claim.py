"""CLAIM: the only bus message that carries a secret.

It has its own module because it is not compiled (``relay.compiled``): mypyc cannot compile a class
that customises the creation of its tuple.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from relay.secret import Secret


class _Claim(NamedTuple):
    tag: int
    name: str
    secret: bytes
    held: bool
    since_us: int
    key: bytes


class Claim(_Claim):
    """Member: a session claims a name (``held``: it already has it). Answer: CLAIMED.

    ``since_us``: when its connection was accepted, on the clock that all workers share. Of two
    sessions of one instance the later connection is the live one, regardless of the order of the
    claims. ``key``: the device key that its connection has proved; empty for a guest.
    """

    __slots__ = ()

    def __new__(
        cls, tag: int, name: str, secret: bytes, held: bool, since_us: int, key: bytes
    ) -> Self:
        """Create a claim; its repr does not show the secret."""
        return super().__new__(cls, tag, name, Secret(secret), held, since_us, key)
