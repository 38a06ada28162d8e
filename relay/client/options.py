"""The options and the timeouts of both clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from relay import limits
from relay.chat.names import GUEST_PREFIX
from relay.client import arguments
from relay.client.devices.proof import KeySource
from relay.client.identity import Identity, new_identity
from relay.client.trust.lineage import Expected

CONNECT_S: Final = 20.0
"""For ``connect``: name resolution, TCP, handshake and login, with retries if needed."""
DIAL_S: Final = 10.0
"""For one TCP connection."""
CLOSE_S: Final = 10.0
"""How long ``close`` waits for unacknowledged sends."""
LINGER_S: Final = 2.0
"""For sending the last bytes of a connection."""
READ_BYTES: Final = 262_144
"""Maximum size of one read from a socket."""
REST_READS_MAX: Final = 64
"""Reads from a broken connection: more than its receive buffer holds."""
WORK_ATTEMPTS: Final = 4096
"""Attempts of a proof of work at a time: a few milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a client."""

    name: str
    identity: Identity
    key_choice: KeySource
    enrol: bool = False
    """True: the key waits for one of the account's devices to approve it."""
    display: str = ""
    agent: str = ""
    expected_key: Expected | None = None
    """The expected key of the server; None: not known yet."""
    reconnect: bool = True
    window: int = 256
    """Maximum number of unacknowledged sends."""
    retry_timeout_s: float | None = None
    """How long a send that is refused with BUSY or UNAVAILABLE is retried; None: for ever."""
    answer_timeout_s: float | None = None
    """How long a call without ``timeout`` waits for its answer; None: for ever."""
    random_bytes: Callable[[int], bytes] = field(repr=False)
    jitter: Callable[[], float] = field(repr=False)
    """Numbers evenly distributed over [0, 1)."""


def make_options(
    *,
    name: str | None,
    identity: Identity | None,
    key_choice: Callable[[str], KeySource],
    enrol: bool,
    display: str,
    agent: str,
    expected_key: Expected | None,
    reconnect: bool,
    window: int,
    retry_timeout_s: float | None,
    answer_timeout_s: float | None,
    random_bytes: Callable[[int], bytes],
    jitter: Callable[[], float],
) -> Options:
    """Check the arguments, and add a name and an identity if there are none.

    ``key_choice`` is called with the name.

    Raises:
        TypeError, ValueError: an argument that no server would accept.
        UsageError: the invitation.
    """
    if identity is not None and not isinstance(identity, Identity):
        raise TypeError(f"identity must be an Identity, not {type(identity).__name__}")
    if name is not None:
        arguments.short_text("name", name, limits.NAME_CHARS_MAX, limits.NAME_CHARS_MAX, 1)
    chars = limits.DISPLAY_NAME_CHARS_MAX
    own_name = f"{GUEST_PREFIX}guest-{random_bytes(4).hex()}" if name is None else name
    return Options(
        name=own_name,
        enrol=arguments.flag("enrol", enrol),
        key_choice=key_choice(own_name),
        identity=new_identity(random_bytes) if identity is None else identity,
        display=arguments.short_text("display", display, chars, 4 * chars),
        agent=arguments.short_text("agent", agent, limits.AGENT_CHARS_MAX, limits.AGENT_CHARS_MAX),
        expected_key=expected_key,
        reconnect=arguments.flag("reconnect", reconnect),
        window=arguments.integer("window", window, 1, limits.U32_MAX),
        retry_timeout_s=arguments.seconds_or_none("retry_timeout_s", retry_timeout_s),
        answer_timeout_s=arguments.seconds_or_none("answer_timeout_s", answer_timeout_s),
        random_bytes=random_bytes,
        jitter=jitter,
    )
