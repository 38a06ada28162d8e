"""HELLO: the one envelope that carries a secret.

In a module of its own, for it is not compiled (``relay.build``): mypyc does not compile a class
that makes a tuple in a way of its own.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from relay.secret import Secret


class _Hello(NamedTuple):
    name: str
    secret: bytes
    display: str
    agent: str


class Hello(_Hello):
    """Client: who I am. The first envelope, once.

    ``secret`` proves the same instance, and makes its message ids (``chat.ids``).
    """

    __slots__ = ()

    def __new__(cls, name: str, secret: bytes, display: str, agent: str) -> Self:
        """Make one; the secret shows itself in no repr."""
        return super().__new__(cls, name, Secret(secret), display, agent)
