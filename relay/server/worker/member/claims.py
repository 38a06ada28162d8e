"""The name claims of this worker's sessions, granted by the names' homes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from relay.bus.messages import Claim, Claimed, Evict, Release, Tell
from relay.chat.accounts.links import key_id
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.server.worker.grouped import Grouped
from relay.server.worker.member.reply import Reply
from relay.server.worker.member.routes import NO_HOME
from relay.wire.codes import CloseCode, ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.routes import Routes

_ENDS: Final = {
    int(ErrorCode.KEY_REFUSED): CloseCode.REVOKED,
    int(ErrorCode.NOT_REGISTERED): CloseCode.REVOKED,
    int(ErrorCode.DISABLED): CloseCode.KICKED,
    int(ErrorCode.UNAVAILABLE): CloseCode.LOGIN_UNAVAILABLE,
    int(ErrorCode.DAMAGED): CloseCode.INTERNAL,
}
"""How a session ends if another home does not confirm its login. Otherwise: as a refused login."""


class Grant(NamedTuple):
    """The answer to a claim."""

    code: int
    """An ErrorCode, or 0 if granted."""
    text: str = ""
    root: bytes = b""
    """Of the account; empty for a guest."""
    operator: bool = False


class Session(Protocol):
    """A session that claims a name."""

    def end_with(self, code: CloseCode, refusal: int = 0) -> None:
        """End: the login is no longer valid. An ErrorCode other than 0 is sent first."""

    def tell(self, envelope: bytes) -> None:
        """Receive an envelope from the name's home."""


class NameClaim:
    """One session's claim of a name, from HELLO to the end of the session."""

    __slots__ = (
        "granted", "key", "key_id", "name", "operator", "reply", "secret", "session", "since_us",
        "tag",
    )  # fmt: skip

    def __init__(
        self,
        tag: int,
        name: str,
        secret: bytes,
        since_us: int,
        key: bytes,
        session: Session,
    ) -> None:
        self.tag = tag
        self.name = name
        self.secret = secret
        self.since_us = since_us
        self.key = key
        self.key_id = key_id(key) if key else b""
        self.session = session
        self.granted = False
        self.operator = False
        """True if the account has operator rights."""
        self.reply: Reply[Grant] | None = Reply()
        """Whether the name is granted. None once it is granted and answered."""

    def message(self) -> Claim:
        """Return the message to the home."""
        return Claim(self.tag, self.name, self.secret, self.granted, self.since_us, self.key)


class Claims:
    """Claims by tag. The home of a name is the home of its account's log."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._claims: dict[int, NameClaim] = {}
        self._by_name: Grouped[str, int, NameClaim] = Grouped(_tag_of)
        self._count = 0

    def claim(
        self,
        name: str,
        secret: bytes,
        since_us: int,
        key: bytes,
        session: Session,
    ) -> NameClaim:
        """Claim a name. Await ``reply`` of the result; call ``release`` at the end.

        Args:
            name: a valid handle, or a guest's name.
            secret: of the client instance.
            since_us: when the session's connection was accepted, see ``bus.messages.Claim``.
            key: the device key that the connection has proved; empty for a guest.
            session: is notified of later changes.
        """
        self._count += 1
        claim = NameClaim(self._count, name, secret, since_us, key, session)
        self._ask(claim)
        return claim

    def _ask(self, claim: NameClaim) -> None:
        self._claims[claim.tag] = claim
        self._by_name.add(claim.name, claim)
        port = self._routes.port_of(INBOX_PREFIX + claim.name)
        if port is not None:
            port.send(claim.message())

    def release(self, claim: NameClaim) -> None:
        """A session has ended, whether its claim was answered or not."""
        if not self._forget(claim):
            return  # refused or replaced: the home has forgotten it already
        port = self._routes.port_of(INBOX_PREFIX + claim.name)
        if port is not None:
            port.send(Release(claim.tag, claim.name))

    def attach(self, partition: int, port: Port) -> None:
        """A home is available (again): report what is held, and repeat claims without an answer."""
        for claim in list(self._claims.values()):
            if partition_of(INBOX_PREFIX + claim.name) == partition:
                port.send(claim.message())

    def give_up(self, partitions: frozenset[int]) -> None:
        """Answer the claims that wait for homes that have been away for long."""
        for claim in list(self._claims.values()):
            if not claim.granted and partition_of(INBOX_PREFIX + claim.name) in partitions:
                self.release(claim)
                _answer(claim, Grant(int(ErrorCode.UNAVAILABLE), NO_HOME))

    def revoke(self, handle: str, key_ids: Collection[bytes], code: CloseCode) -> None:
        """End the sessions of devices that are none any more, or have other rights now.

        Who has no answer yet is asked for anew: only what the home judges from now on counts.
        """
        for claim in list(self._by_name.values(handle)):
            if claim.key_id in key_ids:
                if claim.granted:
                    claim.session.end_with(code)  # this calls ``release``
                else:
                    self._ask_anew(claim)

    def _ask_anew(self, claim: NameClaim) -> None:
        """Ask by another tag: an answer that is on its way, even of an earlier home, is void."""
        self.release(claim)
        self._count += 1
        claim.tag = self._count
        self._ask(claim)

    def on_claimed(self, _: Port, message: Claimed) -> None:
        """Handle a home's answer."""
        claim = self._claims.get(message.tag)
        if claim is None:
            return
        if not message.granted:
            self._forget(claim)
            if message.replaced:
                claim.session.end_with(CloseCode.REPLACED)
            elif claim.granted:
                # The account has changed, or another guest was first after a home's death.
                if (code := _ENDS.get(message.code)) is not None:
                    claim.session.end_with(code)
                else:
                    claim.session.end_with(CloseCode.NAME_REFUSED, message.code)
            else:
                _answer(claim, Grant(message.code, message.text))
        elif claim.granted:
            if claim.operator and not message.operator:  # its home died before it told the workers
                claim.session.end_with(CloseCode.KICKED)  # this calls ``release``
        else:
            claim.granted, claim.operator = True, message.operator
            _answer(claim, Grant(0, "", message.root, message.operator))

    def on_evict(self, _: Port, message: Evict) -> None:
        """The same client instance has connected elsewhere: end this earlier session."""
        claim = self._claims.get(message.tag)
        if claim is not None:
            self._forget(claim)
            claim.session.end_with(CloseCode.REPLACED)

    def on_tell(self, _: Port, message: Tell) -> None:
        """Pass an envelope from the home to a session."""
        claim = self._claims.get(message.tag)
        if claim is not None:
            claim.session.tell(message.content)

    def _forget(self, claim: NameClaim) -> bool:
        if self._claims.pop(claim.tag, None) is None:
            return False
        self._by_name.remove(claim.name, claim.tag)
        return True


def _tag_of(claim: NameClaim) -> int:
    return claim.tag


def _answer(claim: NameClaim, grant: Grant) -> None:
    """Answer a claim, once, and release the reply."""
    reply, claim.reply = claim.reply, None
    assert reply is not None, "a claim is answered once"
    reply.resolve(grant)
