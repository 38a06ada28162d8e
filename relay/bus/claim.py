"""CLAIM: the one message of the bus that carries a secret.

In a module of its own, for it is not compiled (``relay.compiled``): mypyc does not compile a class
that makes a tuple in a way of its own.
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
    """Member: a session wants a name (``held``: it has had it since before). Answer: CLAIMED.

    ``since_us``: when its connection was accepted, by the clock that all workers share. Of two
    sessions of one instance the later connection is the live one, whichever claim comes first.
    ``key``: the device key that its connection has proved; empty for a guest.
    """

    __slots__ = ()

    def __new__(
        cls, tag: int, name: str, secret: bytes, held: bool, since_us: int, key: bytes
    ) -> Self:
        """Make one; the secret shows itself in no repr."""
        return super().__new__(cls, tag, name, Secret(secret), held, since_us, key)
