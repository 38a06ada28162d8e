"""HELLO and REGISTER: the envelopes that carry a secret.

In a module of their own, for it is not compiled (``relay.compiled``): mypyc does not compile a
class that makes a tuple in a way of its own.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from relay.secret import Secret


class _Hello(NamedTuple):
    name: str
    secret: bytes
    display: str
    agent: str
    key: bytes
    signature: bytes


class Hello(_Hello):
    """Client: who I am. Once; the operations of a logged-in client follow it.

    ``secret`` tells this instance from others of the account, and makes its message ids
    (``chat.ids``). ``key`` and ``signature`` prove a device of the account (``wire.login``); both
    are empty for a guest.
    """

    __slots__ = ()

    def __new__(
        cls,
        name: str,
        secret: bytes,
        display: str,
        agent: str,
        key: bytes = b"",
        signature: bytes = b"",
    ) -> Self:
        """Make one; the secret shows itself in no repr."""
        return super().__new__(cls, name, Secret(secret), display, agent, key, signature)


class _Register(NamedTuple):
    request: int
    name: str
    key: bytes
    signature: bytes
    link: bytes
    token: bytes


class Register(_Register):
    """Client: begin the account of this name, by the root link of its chain. Before HELLO.

    ``token``: of an invitation or reservation; empty: none.
    """

    __slots__ = ()

    def __new__(
        cls, request: int, name: str, key: bytes, signature: bytes, link: bytes, token: bytes
    ) -> Self:
        """Make one; the token shows itself in no repr."""
        return super().__new__(cls, request, name, key, signature, link, Secret(token))
