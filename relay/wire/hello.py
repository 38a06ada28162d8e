"""HELLO and REGISTER: the envelopes that carry a secret.

They have their own module because it is not compiled (``relay.compiled``): mypyc cannot compile a
class that customises the creation of its tuple.
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
    """Client: its identity. Once; the operations of a logged-in client follow it.

    ``secret`` distinguishes this instance from others of the account, and determines its message
    ids (``chat.ids``). ``key`` and ``signature`` prove a device of the account (``wire.login``);
    both are empty for a guest.
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
        """Create it; its repr does not show the secret."""
        return super().__new__(cls, name, Secret(secret), display, agent, key, signature)


class _Register(NamedTuple):
    request: int
    name: str
    key: bytes
    signature: bytes
    link: bytes
    token: bytes


class Register(_Register):
    """Client: create the account of this name, with the root link of its chain. Before HELLO.

    ``token``: of an invitation or reservation; empty: none.
    """

    __slots__ = ()

    def __new__(
        cls, request: int, name: str, key: bytes, signature: bytes, link: bytes, token: bytes
    ) -> Self:
        """Create it; its repr does not show the token."""
        return super().__new__(cls, request, name, key, signature, link, Secret(token))
