"""Checks a server's key, and its announced successor, before anything is sent.

An unknown key, and an id that the server is not known to have, are *undecided*: the client stops,
its owner asks a person or reads files, and dials again.
"""

from __future__ import annotations

import logging
from typing import Final

from relay.client.errors import ServerKeyMismatch
from relay.client.trust.lineage import ClaimedId, Expected, KeyChange
from relay.errors import LocalProtocolError
from relay.wire.events import ServerKeyOffered

log: Final = logging.getLogger(__name__)


class ServerKey:
    """The key of one client's server, across all its connections."""

    def __init__(self, expected: Expected | None) -> None:
        """Create.

        Args:
            expected: the expected key; None: not known yet.
        """
        self._expected = expected
        self._claimed_id = ""
        """The id stated by the server on this connection; empty: equal to the fingerprint."""
        self.spki = b""
        """Of this connection."""
        self.fingerprint = None if expected is None else expected.fingerprint
        """Of the last accepted key, or else of the expected one."""
        self.undecided: str | None = None
        """The fingerprint of an unknown key until ``trust`` or the end; no connection then."""
        self.undecided_id: ClaimedId | None = None
        """An id that the server is not known to have, until ``trust_id`` or the end; no connection
        then."""
        self._changes: list[KeyChange] = []
        self._replaced: set[str] = set()
        """Fingerprints of keys that this client has seen being replaced."""

    @property
    def id(self) -> str | None:
        """The id of the server; None: not known yet."""
        return None if self._expected is None else self._expected.id

    @property
    def following(self) -> str | None:
        """The fingerprint of the announced next key; None: there is none."""
        return None if self._expected is None else self._expected.following

    @property
    def changes(self) -> list[KeyChange]:
        """What the server has proved about its keys, to be kept in files."""
        return self._changes

    def take_changes(self) -> list[KeyChange]:
        """Return what was proved, and clear it."""
        taken, self._changes = self._changes, []
        return taken

    # --- decisions of the client's owner --------------------------------------------------------
    @property
    def asks(self) -> bool:
        """True while a person must be asked, or files read, before dialling again."""
        return self.undecided is not None or self.undecided_id is not None

    def trust(self, fingerprint: str) -> None:
        """The undecided key is right: dial again, at once."""
        if fingerprint != self.undecided:
            raise LocalProtocolError("this key was not in question")
        self._expected = Expected(fingerprint)
        self.undecided = None

    def trust_id(self, claimed: ClaimedId) -> None:
        """The server may have this id: dial again, at once, with the keys that belong to it."""
        if claimed != self.undecided_id:
            raise LocalProtocolError("this id was not in question")
        self._expected = Expected(claimed.fingerprint, None, claimed.server_id)
        self.undecided_id = None

    def end(self) -> None:
        """There will be no decision any more."""
        self.undecided = self.undecided_id = None

    # --- what the server shows --------------------------------------------------------------------
    def offered(self, offer: ServerKeyOffered) -> ServerKeyMismatch | None:
        """Check the key of a connection. Returns the error if it is the wrong one.

        None: it is the right one, or ``undecided``.
        """
        expected, fingerprint = self._expected, offer.fingerprint
        self._claimed_id, self.spki = offer.server_id, offer.spki
        if expected is None:
            self.undecided = fingerprint
        elif fingerprint in (expected.fingerprint, expected.following):
            self.fingerprint = fingerprint
        else:
            return ServerKeyMismatch(
                f"the server's key has CHANGED: expected {expected.fingerprint}, got "
                f"{fingerprint}; somebody may be listening in; nothing was sent",
                fingerprint,
                expected.fingerprint,
            )
        return None

    def proved(self) -> bool:
        """The server has proved its key, so its hello is authentic.

        Returns:
            False if it claims an id that is now ``undecided_id``.
        """
        expected, fingerprint = self._expected, self.fingerprint
        assert expected is not None
        assert fingerprint is not None
        claimed = self._claimed_id or fingerprint
        if claimed != expected.id:
            self.undecided_id = ClaimedId(fingerprint, claimed)
            return False
        if fingerprint == expected.following:
            log.info("the server's key was changed, as it had announced: %s", fingerprint)
            self._changes.append(KeyChange(expected.fingerprint, fingerprint, followed=True))
            self._replaced.add(expected.fingerprint)
            self._expected = Expected(fingerprint, None, expected.id)
        return True

    def announced(self, fingerprint: str) -> None:
        """The server has proved which key follows. A key that was replaced before is not accepted.

        Otherwise the holder of that key and the present one could return to a possibly stolen key,
        and with a circle in the file the first key could not be determined.
        """
        assert self._expected is not None
        if fingerprint in self._replaced | {self._expected.id}:
            log.warning("the server has announced a key that was replaced: %s", fingerprint)
            return
        log.info("the server has announced its next key: %s", fingerprint)
        old = self._expected.fingerprint
        self._changes.append(KeyChange(old, fingerprint, followed=False))
        self._expected = self._expected._replace(following=fingerprint)
