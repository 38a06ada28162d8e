"""The identity of a client instance: allows it to return as itself, and to send exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from relay import limits
from relay.client import arguments
from relay.secret import Secret


@dataclass(frozen=True, slots=True)
class Identity:
    """A client instance. A program that saves and restores it continues where it was."""

    secret: bytes = field(repr=False)
    """16 random bytes that prove on a later connection that this is the same instance. Together
    with the name they determine its message ids, so anybody who has them can send in its place."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """For each room the counter of its next send: the first unacknowledged one. A program that was
    stopped resends its unacknowledged messages from there, in the same order, and each is stored
    once."""
    account: bytes = b""
    """The account of these messages: the hash of its first device link, or zeros for a guest. The
    ids of messages depend on it. Empty: not known, for an identity without counters."""

    def __post_init__(self) -> None:
        if not isinstance(self.secret, bytes):
            raise TypeError(f"secret must be bytes, not {type(self.secret).__name__}")
        count = limits.INSTANCE_SECRET_BYTES
        if len(self.secret) != count:
            raise ValueError(f"secret has {len(self.secret)} bytes; it must have {count}")
        if isinstance(self.counters, bytes):
            raise TypeError(
                "an identity that was saved by version 0.1 (with a producer) cannot be continued: "
                "make a new one, and look in the history which of its last messages are stored"
            )
        object.__setattr__(self, "secret", Secret(self.secret))
        if not isinstance(self.counters, Mapping):
            raise TypeError(f"counters must be a mapping, not {type(self.counters).__name__}")
        if not isinstance(self.account, bytes):
            raise TypeError(f"account must be bytes, not {type(self.account).__name__}")
        if len(self.account) not in (0, 32):
            raise ValueError(f"account has {len(self.account)} bytes; it must have 32")
        if self.counters and not self.account:
            raise ValueError(
                "an identity with counters but without its account was saved before there were "
                "accounts and cannot be continued: make a new one, and look in the history which "
                "of its last messages are stored"
            )
        for room, counter in self.counters.items():
            arguments.text("the name of a room in counters", room)
            arguments.integer("a counter", counter, 1, limits.U63_MAX)


def new_identity(random_bytes: Callable[[int], bytes]) -> Identity:
    """Return a new instance's identity."""
    return Identity(random_bytes(limits.INSTANCE_SECRET_BYTES))
