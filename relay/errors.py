"""Every exception that Relay raises on purpose.

The tree::

    RelayError
    ├── UsageError            a person's mistake: bad flag, config, address, file        exit 2
    ├── StartError            the program cannot start here: port, lock, key             exit 1 or 3
    ├── LocalProtocolError    our own side asked the protocol for something illegal (a bug of ours)
    │   └── ForkedConnection   a connection is used in a child of the process that opened it
    ├── RemoteProtocolError   the peer broke the protocol; carries the close code for it
    │   ├── IllegalFrame       bytes that are no frame of this protocol, or none that is legal now
    │   └── EnvelopeError     an envelope that the validator refuses
    └── (store.errors, server.agent.client and client.errors derive theirs from RelayError)

Nothing a peer sends may surface as any other exception type.
"""

from __future__ import annotations


class RelayError(Exception):
    """Base class of all exceptions that Relay raises on purpose."""


class UsageError(RelayError):
    """A user's mistake: the message states what, where and what to do. Exit code 2."""


class StartError(RelayError):
    """The program cannot start here. ``exit_code`` is 1, or 3 if a child could not boot."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LocalProtocolError(RelayError):
    """Our own side requested something that the protocol forbids now: a bug of the caller."""


class ForkedConnection(LocalProtocolError):
    """A connection is used in a child of the process that opened it: nothing was sent."""

    def __init__(self) -> None:
        super().__init__("this connection was made before os.fork() and belongs to the parent")


class RemoteProtocolError(RelayError):
    """The peer broke the protocol. ``code`` is the close code sent to it, if one is sent."""

    def __init__(self, message: str, code: int = 2001) -> None:
        super().__init__(message)
        self.code = code


class IllegalFrame(RemoteProtocolError):
    """An invalid header, or one that is not legal now; as the first bytes: not a relay."""


class EnvelopeError(RemoteProtocolError):
    """A record's content is not a sequence of legal envelopes."""
