"""Logging in, without I/O: registering if requested, then HELLO, and handling the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.chat import names
from relay.chat.accounts import chain, links
from relay.chat.accounts.links import LinkError
from relay.client.devices.proof import Credentials, Key, server_id_bytes
from relay.client.errors import ClientError, DeviceChainError, ServerKeyMismatch, WrongAccount
from relay.client.refusals import NOT_GRANTED, refused
from relay.errors import RemoteProtocolError
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done, Enrol, Error, Hello, Register, ServerEnvelope, Welcome
from relay.wire.login import Operation, signed_bytes
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.client.identity import Identity

REGISTER: Final = 1
"""The request number of REGISTER: the first of a connection, used by no other request."""
ENROL: Final = 2


class Login:
    """The login of a client, for all of its connections."""

    def __init__(
        self,
        name: str,
        identity: Identity,
        display: str,
        agent: str,
        random_bytes: Callable[[int], bytes],
        *,
        enrol: bool = False,
    ) -> None:
        self._name = names.normal(name)
        self._identity = identity
        self._display = display
        self._agent = agent
        self._random_bytes = random_bytes
        self._begun = False
        """True once anything of a login was sent, on any connection."""
        self._told_unused = False
        self.credentials: Credentials | None = None
        """None until the server is known."""
        self._registered = False
        self._register_next = False
        """True: the name is free, so claim it on the next connection."""
        self.account = identity.account
        """The root of the account, or zeros for a guest; empty before the first login. Resends
        depend on it, so no other account is accepted."""
        self._link = b""
        """The root link, the same in each attempt."""
        self._enrol = enrol
        """True: the key is not a device of the account yet, and waits for approval by a device."""
        self._binding = self._spki_hash = b""
        """Of this connection."""
        self._out: list[bytes] = []
        self.error: ClientError | None = None
        """Why the login on this connection was refused."""
        self.ends = False
        """True: it was refused, and this side must end the connection."""

    def begin(self, binding: bytes, fingerprint: str) -> None:
        """Log in on a new connection; ``outgoing`` returns what to send.

        Args:
            binding: of the connection.
            fingerprint: of the server's key.
        """
        self.error = None
        self._begun = True
        known = self.credentials
        assert known is not None
        key, spki_hash = known.key, server_id_bytes(fingerprint)
        self._binding, self._spki_hash = binding, spki_hash
        out = self._out = []
        if key is None:
            out.append(pack(self._hello(b"", b"")))
            return
        if self._enrol:
            out.append(pack(self._enrolling(key, b"")))
            return
        if not self._registered and (known.register_first or self._register_next):
            out.append(pack(self._register(known, key, binding, spki_hash)))
        out.append(self._signed_hello(key))

    def outgoing(self) -> list[bytes]:
        """Return the packed envelopes to send now, and clear them."""
        out, self._out = self._out, []
        return out

    def offline(self) -> None:
        """The connection has ended."""
        self._out = []

    def _signed_hello(self, key: Key) -> bytes:
        signature = self._sign(Operation.LOGIN, key, self._binding, self._spki_hash)
        return pack(self._hello(key.public, signature))

    def _enrolling(self, key: Key, countersignature: bytes) -> Enrol:
        signature = self._sign(Operation.ADD_DEVICE, key, self._binding, self._spki_hash)
        return Enrol(ENROL, self._name, key.public, signature, countersignature)

    def _take_offer(self, offer: bytes) -> None:
        """Sign the link that a device of the account has signed; or log in, if that is done."""
        known = self.credentials
        assert known is not None
        assert known.key is not None
        if not offer:
            self._enrol = False
            self._out.append(self._signed_hello(known.key))
            return
        try:
            link = links.parse(offer)
            body = link.body
            right = (links.Kind.ADD, self._name, server_id_bytes(known.server_id), known.key.public)
            if (body.kind, body.handle, body.server_id, body.subject) != right or link.complete:
                raise LinkError("it is for somebody else")
        except LinkError as error:
            self.error = DeviceChainError(f"the server sent a false approval: {error}")
            self.ends = True
            return
        self._out.append(pack(self._enrolling(known.key, known.key.sign(link.signed))))

    def _hello(self, key: bytes, signature: bytes) -> Hello:
        secret = self._identity.secret
        return Hello(self._name, secret, self._display, self._agent, key, signature)

    def _register(self, known: Credentials, key: Key, binding: bytes, spki_hash: bytes) -> Register:
        if not self._link:
            nonce = self._random_bytes(links.NONCE_BYTES)
            server_id = server_id_bytes(known.server_id)
            self._link = root_link(key, server_id, self._name, nonce)
        signature = self._sign(Operation.REGISTER, key, binding, spki_hash)
        return Register(REGISTER, self._name, key.public, signature, self._link, known.token)

    def _sign(self, operation: Operation, key: Key, binding: bytes, spki_hash: bytes) -> bytes:
        return key.sign(signed_bytes(operation, binding, spki_hash, key.public, self._name))

    def receive(self, envelope: ServerEnvelope) -> bool:
        """Handle an envelope that arrives before the end of the login. True: it is WELCOME.

        Raises:
            RemoteProtocolError: it is not part of the login.
        """
        kind = type(envelope)
        if kind is Welcome:
            assert isinstance(envelope, Welcome)
            if envelope.name != self._name:
                raise RemoteProtocolError("WELCOME for a name that was not asked for")
            account = envelope.root or bytes(32)
            if (self.account or account) != account:
                self.error = WrongAccount(
                    "this identity was saved by another account, or before the account was reset: "
                    "its messages would be stored twice; make a new one"
                )
                self.ends = True
                return False
            self.account = account
            return True
        if isinstance(envelope, Error) and self.error is None:
            self.error = refused(envelope.code, envelope.arg, envelope.text)
            self.ends = envelope.request == ENROL
        elif isinstance(envelope, Done) and envelope.request == ENROL:
            self._take_offer(envelope.content)
        elif isinstance(envelope, Done) and envelope.request == REGISTER:
            self._registered = True
        return False

    def begun_chain(self, root: bytes) -> list[bytes]:
        """Return the links of the account if this client has created it; otherwise none."""
        return [self._link] if self._link and links.hash_of(self._link) == root else []

    @property
    def registered(self) -> bool:
        """True once the server has confirmed that the name belongs to the key."""
        return self._registered

    def take_unused_key(self, error: ClientError | None) -> bool:
        """Return True, once, if no server can have accepted a key that was created for this login.

        Args:
            error: why the client has ended.
        """
        not_granted = isinstance(error, NOT_GRANTED)
        unheard = isinstance(error, ServerKeyMismatch) and not self._begun
        if self._told_unused or self._registered or not (not_granted or unheard):
            return False
        self._told_unused = True
        return True

    def tries_again(self) -> bool:
        """Return True if registering can resolve the refusal; the next connection registers."""
        known, error = self.credentials, self.error
        if known is None or not known.may_register or self._registered or self._register_next:
            return False
        if getattr(error, "code", None) != ErrorCode.NOT_REGISTERED or known.register_first:
            return False
        self._register_next = True
        return True


def root_link(key: Key, server_id: bytes, name: str, nonce: bytes) -> bytes:
    """Return the first link of a new chain."""
    body = chain.root_body(server_id, name, nonce, key.public).packed()
    return body + key.sign(body)
