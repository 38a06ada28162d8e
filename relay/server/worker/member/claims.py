"""Member side: the names of this worker's sessions, as claimed from the names' homes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from relay.bus.link import Port
from relay.bus.messages import Claim, Claimed, Evict, Release
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of


class Claimant(Protocol):
    """A session that logs in, or has."""

    def name_answered(self, granted: bool) -> None:
        """The name's home has decided."""

    def replaced(self) -> None:
        """The same client instance has connected again, here or on another worker."""


class _Login(NamedTuple):
    name: str
    secret: bytes
    session: Claimant
    since_us: int
    granted: bool

    def __repr__(self) -> str:
        return f"_Login({self.name})"


class Logins:
    """Claims by tag. A name has its home where its inbox would be."""

    def __init__(self, port_of: Callable[[str], Port | None]) -> None:
        self._port_of = port_of
        self._logins: dict[int, _Login] = {}
        self._count = 0

    def claim(self, session: Claimant, name: str, secret: bytes, since_us: int) -> int:
        """Ask for a name; ``name_answered`` follows, perhaps before this returns.

        ``since_us``: when the session's connection was accepted, see ``Claim``.

        Returns:
            The tag to ``release`` it with.
        """
        self._count += 1
        tag = self._count
        self._logins[tag] = _Login(name, secret, session, since_us, False)
        port = self._port_of(INBOX_PREFIX + name)
        if port is not None:
            port.send(Claim(tag, name, secret, False, since_us))
        return tag

    def release(self, tag: int) -> None:
        """A session has ended, whether its claim was answered or not."""
        login = self._logins.pop(tag, None)
        if login is not None:
            port = self._port_of(INBOX_PREFIX + login.name)
            if port is not None:
                port.send(Release(tag, login.name))

    def attach(self, partition: int, port: Port) -> None:
        """A home is there (again): say what is held, and ask again for what is not answered."""
        for tag, login in list(self._logins.items()):
            if partition_of(INBOX_PREFIX + login.name) == partition:
                name, secret, _, since_us, granted = login
                port.send(Claim(tag, name, secret, granted, since_us))

    def answered(self, message: Claimed) -> None:
        """Take a home's answer."""
        login = self._logins.get(message.tag)
        if login is None:
            return
        if not message.granted:
            del self._logins[message.tag]
            if login.granted:
                # Another instance was heard first after a home's death; or this is a ghost.
                login.session.replaced()
            else:
                login.session.name_answered(False)
        elif not login.granted:
            self._logins[message.tag] = login._replace(granted=True)
            login.session.name_answered(True)

    def evicted(self, message: Evict) -> None:
        """The same instance has come back elsewhere: this one is its ghost."""
        login = self._logins.pop(message.tag, None)
        if login is not None:
            login.session.replaced()
