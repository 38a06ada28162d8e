"""Who a client instance is: what lets it come back as itself, and send exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from relay import limits


@dataclass(frozen=True, slots=True)
class Identity:
    """A client instance. A program that saves it, and restores it, goes on where it was."""

    secret: bytes = field(repr=False)
    """16 random bytes that prove on a later connection that this is the same instance."""
    producer: bytes
    """8 random bytes, the first half of every message id."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """For each log the counter of its next send: the first one that is not acknowledged yet. A
    program that was stopped sends its unacknowledged messages again from there, in the same order,
    and each is stored once."""

    def __post_init__(self) -> None:
        if (
            len(self.secret) != limits.INSTANCE_SECRET_BYTES
            or len(self.producer) != limits.PRODUCER_BYTES
        ):
            raise ValueError(
                f"a secret has {limits.INSTANCE_SECRET_BYTES} bytes "
                f"and a producer id {limits.PRODUCER_BYTES}"
            )
        if any(not 1 <= counter <= limits.U63_MAX for counter in self.counters.values()):
            raise ValueError("counters begin at 1")


def new_identity(random_bytes: Callable[[int], bytes]) -> Identity:
    """Return a new instance's identity."""
    return Identity(random_bytes(limits.INSTANCE_SECRET_BYTES), random_bytes(limits.PRODUCER_BYTES))
