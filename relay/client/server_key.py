"""Checks a server's key, and which one will follow, before anything is sent.

An unknown key, and an id that a server claims and is not known to have, are *undecided*: the client
stops, whoever runs it asks somebody or looks into files, and dials again.
"""

from __future__ import annotations

import logging
from typing import Final

from relay.client.errors import ServerKeyMismatch
from relay.client.lineage import ClaimedId, Expected, KeyChange
from relay.errors import LocalProtocolError
from relay.wire.events import ServerKeyOffered

log: Final = logging.getLogger(__name__)


class ServerKey:
    """The key of one client's server, over all its connections."""

    def __init__(self, expected: Expected | None) -> None:
        """Begin.

        Args:
            expected: what it must be; None: it is not known yet.
        """
        self._expected = expected
        self._claimed_id = ""
        """The id that the server of this connection states; empty: as the fingerprint."""
        self.spki = b""
        """Of this connection."""
        self.fingerprint = None if expected is None else expected.fingerprint
        """Of the last key that was accepted, or else of the one that is expected."""
        self.undecided: str | None = None
        """The fingerprint of an unknown key until ``trust`` or the end; no connection then."""
        self.undecided_id: ClaimedId | None = None
        """An id that the server claims and is not known to have, until ``trust_id`` or the end; no
        connection then."""
        self._changes: list[KeyChange] = []
        self._replaced: set[str] = set()
        """Fingerprints of keys whose place others have taken, as far as this client has seen it."""

    @property
    def id(self) -> str | None:
        """The id of the server; None: it is not known yet."""
        return None if self._expected is None else self._expected.id

    @property
    def following(self) -> str | None:
        """The fingerprint of the key that is known to follow; None: there is none."""
        return None if self._expected is None else self._expected.following

    @property
    def changes(self) -> list[KeyChange]:
        """What the server has proved about its keys, to be kept in files."""
        return self._changes

    def take_changes(self) -> list[KeyChange]:
        """Return what was proved, and forget it."""
        taken, self._changes = self._changes, []
        return taken

    # --- what the client's owner decides ----------------------------------------------------------
    @property
    def asks(self) -> bool:
        """True while somebody has to be asked, or files looked into, before it dials again."""
        return self.undecided is not None or self.undecided_id is not None

    def trust(self, fingerprint: str) -> None:
        """The undecided key is the right one: dial again, at once."""
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
        """Nobody decides any more."""
        self.undecided = self.undecided_id = None

    # --- what the server shows --------------------------------------------------------------------
    def offered(self, offer: ServerKeyOffered) -> ServerKeyMismatch | None:
        """Look at the key of a connection. Returns why it is the wrong one.

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
        """The server has proved its key, and so its hello is its own.

        Returns:
            False when it claims an id that is ``undecided_id`` now.
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
        """The server has proved which key will follow its own: one that was replaced never does.

        Whoever holds that one, and the present one, would go back to what may have been stolen; and
        with a circle in the file nobody could tell which key was the first.
        """
        assert self._expected is not None
        if fingerprint in self._replaced | {self._expected.id}:
            log.warning("the server has announced a key that was replaced: %s", fingerprint)
            return
        log.info("the server has announced its next key: %s", fingerprint)
        old = self._expected.fingerprint
        self._changes.append(KeyChange(old, fingerprint, followed=False))
        self._expected = self._expected._replace(following=fingerprint)
