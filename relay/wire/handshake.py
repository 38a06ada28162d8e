"""Both sides of the handshake as a sequence of steps, each available only when it is due.

Client: ``ClientHandshake`` -> ``receive_hello`` -> (pin decision) -> ``prepare_key`` -> (work) ->
``client_key`` -> ``receive_finished``. Server: ``ServerHandshake`` -> ``receive_key`` -> (key
agent) -> ``finish`` -> ``receive_finished``. With a ticket that is good there is nothing to ask the
key agent.

The order of steps is defined by ``phases``; deadlines and bytes belong to ``connection``. Secrets
exist only in these objects, and end with the handshake.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from relay import limits
from relay.errors import LocalProtocolError, RemoteProtocolError
from relay.secret import Secret
from relay.wire.frames import FrameType, frame
from relay.wire.identity import IdentityError, ServerPublicKey, fingerprint_of, parse_spki
from relay.wire.key_schedule import (
    ZEROS,
    SessionSecrets,
    binder,
    confirmation,
    early_secret,
    handshake_secret,
    login_binding,
    resumption_secret,
    session_secrets,
)
from relay.wire.messages import (
    FULL,
    NO_BINDER,
    NONCE_BYTES,
    POW_BITS_MAX,
    RANDOM_BYTES,
    RESUMED,
    SUITE,
    VERSION,
    ClientKey,
    ServerFinished,
    ServerHello,
    Work,
    parse_client_finished,
    server_id_in,
    work_is_done,
)
from relay.wire.tickets import ClientTicket, OpenedTicket, TicketKeys
from relay.wire.transcript import MAC_BYTES, Transcript

RandomBytes = Callable[[int], bytes]
MLKEM_SEED_BYTES: Final = 64


class Randomised(NamedTuple):
    """The two operations that OpenSSL randomises itself; replaced to create test vectors."""

    wrap: Callable[[ServerPublicKey, bytes], bytes]
    """(server key, 32-byte secret) -> RSA-OAEP ciphertext"""
    encapsulate: Callable[[bytes], tuple[bytes, bytes]]
    """ML-KEM-768 encapsulation key -> (shared secret, ciphertext). ValueError: not a key."""


def _encapsulate(key: bytes) -> tuple[bytes, bytes]:
    return MLKEM768PublicKey.from_public_bytes(key).encapsulate()


OPENSSL: Final = Randomised(ServerPublicKey.wrap, _encapsulate)


class Established(NamedTuple):
    """The result of a completed handshake."""

    mode: int
    secrets: SessionSecrets
    login_binding: bytes
    resumption: Secret
    """The source of the secrets of this connection's tickets."""
    fell_back: bool
    """A ticket was offered and not accepted: the handshake became a full one."""

    def __repr__(self) -> str:
        return f"Established(mode={self.mode})"


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # the all-zero result (RFC 7748 section 6.1)
        raise RemoteProtocolError("an X25519 key of small order") from None


class ClientHandshake:
    """The client's side."""

    __slots__ = (
        "_early", "_key", "_mlkem", "_random_bytes", "_randomised", "_secret", "_server_hello",
        "_transcript", "_version_min", "_x25519", "server_id", "server_key",
    )  # fmt: skip

    server_key: ServerPublicKey
    server_id: str
    """Claimed by the server; empty: nothing."""
    _server_hello: ServerHello
    _early: bytes
    """From the ticket that is offered; empty: none is."""
    _key: ClientKey
    _secret: bytes
    _x25519: X25519PrivateKey
    _mlkem: MLKEM768PrivateKey

    def __init__(
        self, random_bytes: RandomBytes, version_min: int, randomised: Randomised = OPENSSL
    ) -> None:
        self._random_bytes = random_bytes
        self._randomised = randomised
        self._version_min = version_min
        self._transcript = Transcript()

    def receive_hello(self, whole: bytes) -> ServerPublicKey:
        """Check ServerHello and return the offered key for the pin decision.

        Raises:
            RemoteProtocolError: not a hello of a server that this client supports.
        """
        hello = ServerHello.parse(whole)
        if hello.ver_min > hello.ver_max or not hello.ver_min <= VERSION <= hello.ver_max:
            raise RemoteProtocolError("no common version of the protocol")
        if self._version_min > VERSION:
            raise RemoteProtocolError("this server has spoken a higher version before")
        if hello.suite != SUITE:
            raise RemoteProtocolError("an unknown suite")
        if hello.pow_bits > POW_BITS_MAX:
            raise RemoteProtocolError("the server asks for too much work")
        try:
            self.server_key = parse_spki(hello.spki)
        except IdentityError as error:
            raise RemoteProtocolError(str(error)) from None
        server_id = server_id_in(hello.ext)
        self.server_id = fingerprint_of(server_id) if server_id else ""
        self._server_hello = hello
        self._transcript.add(whole)
        return self.server_key

    def prepare_key(self, ticket: ClientTicket | None = None) -> Work | None:
        """Create the session key, once the server's key was accepted.

        Args:
            ticket: from an earlier connection to the server with this key, to be used up.

        Returns:
            The work that the server requests; None: ``client_key`` accepts any nonce.
        """
        self._early = b"" if ticket is None else early_secret(ticket.psk)
        self._secret = self._random_bytes(limits.SESSION_SECRET_BYTES)
        self._x25519 = X25519PrivateKey.from_private_bytes(self._random_bytes(32))
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(self._random_bytes(MLKEM_SEED_BYTES))
        self._key = ClientKey(
            VERSION,
            SUITE,
            self._random_bytes(RANDOM_BYTES),
            self._x25519.public_key().public_bytes_raw(),
            self._mlkem.public_key().public_bytes_raw(),
            bytes(NONCE_BYTES),
            self._randomised.wrap(self.server_key, self._secret),  # the server may need it
            b"" if ticket is None else ticket.ticket,
            NO_BINDER,
        )
        hello = self._server_hello
        if not hello.pow_bits:
            return None
        return Work(hello.server_random, self._key.before_nonce(), hello.pow_bits)

    def client_key(self, nonce: bytes = bytes(NONCE_BYTES)) -> bytes:
        """Return the ClientKey frame with the nonce found by the work."""
        key = self._key._replace(pow_nonce=nonce)
        whole = frame(FrameType.CLIENT_KEY, key.body())
        if not self._early:
            self._transcript.add(whole)
            return whole
        proof = binder(self._early, self._transcript.add_unconfirmed(whole))
        self._transcript.add(proof)
        return whole[:-MAC_BYTES] + proof

    def receive_finished(self, whole: bytes) -> tuple[bytes, Established]:
        """Verify ServerFinished; return the ClientFinished frame and the session's secrets.

        Raises:
            RemoteProtocolError: the server has not proved that it has the key, or it is malformed.
        """
        finished = ServerFinished.parse(whole)
        resumed = finished.mode == RESUMED and bool(self._early)
        if finished.mode != FULL and not resumed:
            raise RemoteProtocolError("a mode that was not offered")
        hs = handshake_secret(
            self._early if resumed else early_secret(),
            ZEROS if resumed else self._secret,
            _exchange(self._x25519, finished.x25519_s),
            self._mlkem.decapsulate(finished.mlkem_ct),
        )
        expected = confirmation(hs, "s confirm", self._transcript.add_unconfirmed(whole))
        if not hmac.compare_digest(expected, finished.server_confirm):
            raise RemoteProtocolError("the server does not hold the key it offered")
        self._transcript.add(expected)
        t3 = self._transcript.digest()
        reply = frame(FrameType.CLIENT_FINISHED, confirmation(hs, "c confirm", t3))
        self._transcript.add(reply)
        secrets = session_secrets(hs, t3)
        return reply, Established(
            finished.mode,
            secrets,
            login_binding(secrets.exporter, self.server_key.spki),
            resumption_secret(hs, self._transcript.digest()),
            bool(self._early) and not resumed,
        )


class ServerHandshake:
    """The server's side."""

    __slots__ = (
        "_client_key", "_confirm", "_early", "_hello", "_hs", "_random_bytes", "_randomised",
        "_secrets", "_spki", "_tickets", "_transcript",
    )  # fmt: skip

    _client_key: ClientKey
    _confirm: bytes
    _hs: bytes
    _secrets: SessionSecrets

    def __init__(
        self,
        random_bytes: RandomBytes,
        spki: bytes,
        pow_bits: int = 0,
        randomised: Randomised = OPENSSL,
        tickets: TicketKeys | None = None,
        ext: bytes = b"",
    ) -> None:
        self._random_bytes = random_bytes
        self._randomised = randomised
        self._tickets = tickets
        self._early: bytes = b""
        """From the secret of a valid ticket; empty: the handshake is a full one."""
        if not 0 <= pow_bits <= POW_BITS_MAX:
            raise LocalProtocolError(f"a server asks for 0 to {POW_BITS_MAX} bits of work")
        self._spki = spki
        self._transcript = Transcript()
        self._hello = ServerHello(
            VERSION, VERSION, SUITE, pow_bits, random_bytes(RANDOM_BYTES), spki, ext
        )

    def server_hello(self) -> bytes:
        """Return the ServerHello frame."""
        whole = frame(FrameType.SERVER_HELLO, self._hello.body())
        self._transcript.add(whole)
        return whole

    def receive_key(self, whole: bytes, modulus_bytes: int) -> bytes | None:
        """Check ClientKey, cheapest checks first; return the ciphertext for the key agent.

        None: the ticket is valid, and used up now; ``finish`` needs no secret.

        Raises:
            RemoteProtocolError: malformed, another version, a wrong binder, or the work is not
                done.
        """
        key = ClientKey.parse(whole, modulus_bytes)
        if key.version != VERSION or key.suite != SUITE:
            raise RemoteProtocolError("an unknown version or suite")
        opened = None
        if key.ticket and self._tickets is not None:
            opened = self._tickets.open(key.ticket)
        if opened is None:
            self._transcript.add(whole)
        else:
            self._resume(opened, key, whole)
        hello = self._hello
        bits = 0 if self._early else hello.pow_bits
        if bits and not work_is_done(hello.server_random, key.before_nonce(), key.pow_nonce, bits):
            raise RemoteProtocolError("the proof of work is wrong")
        self._client_key = key
        return None if self._early else key.rsa_ct

    def _resume(self, opened: OpenedTicket, key: ClientKey, whole: bytes) -> None:
        """Add ClientKey to the transcript, and use its ticket up if it has not been used.

        Only somebody who knows the secret can use a ticket up, or find out that it was used.
        """
        assert self._tickets is not None
        early = early_secret(opened.psk)
        expected = binder(early, self._transcript.add_unconfirmed(whole))
        if not hmac.compare_digest(expected, key.binder):
            raise RemoteProtocolError("a ticket with a wrong binder")
        self._transcript.add(expected)
        if self._tickets.spend(opened):
            self._early = early

    def finish(self, secret: bytes | None) -> bytes:
        """Return the ServerFinished frame, given the key agent's answer.

        None: it was not asked, because a ticket is resumed.

        Raises:
            RemoteProtocolError: one of the client's ephemeral keys is not a key.
        """
        resumed = bool(self._early)
        if secret is None and resumed:
            secret = ZEROS
        elif secret is None or resumed or len(secret) != limits.SESSION_SECRET_BYTES:
            raise LocalProtocolError("the key agent answers 32 bytes, if it is asked")
        private = X25519PrivateKey.from_private_bytes(self._random_bytes(32))
        x25519 = _exchange(private, self._client_key.x25519_c)
        try:
            mlkem, ciphertext = self._randomised.encapsulate(self._client_key.mlkem_ek)
        except ValueError:  # FIPS 203 section 7.2
            raise RemoteProtocolError("an ML-KEM key that is none") from None
        hs = handshake_secret(self._early or early_secret(), secret, x25519, mlkem)
        public = private.public_key().public_bytes_raw()
        finished = ServerFinished(RESUMED if resumed else FULL, public, ciphertext, NO_BINDER)
        unsigned = frame(FrameType.SERVER_FINISHED, finished.body())
        confirm = confirmation(hs, "s confirm", self._transcript.add_unconfirmed(unsigned))
        self._transcript.add(confirm)
        t3 = self._transcript.digest()
        self._confirm = confirmation(hs, "c confirm", t3)
        self._secrets = session_secrets(hs, t3)
        self._hs = hs
        return unsigned[:-MAC_BYTES] + confirm

    def receive_finished(self, whole: bytes) -> Established:
        """Verify ClientFinished and return the session's secrets.

        Raises:
            RemoteProtocolError: the confirmation is wrong.
        """
        if not hmac.compare_digest(self._confirm, parse_client_finished(whole)):
            raise RemoteProtocolError("the client's confirmation is wrong")
        self._transcript.add(whole)
        return Established(
            RESUMED if self._early else FULL,
            self._secrets,
            login_binding(self._secrets.exporter, self._spki),
            resumption_secret(self._hs, self._transcript.digest()),
            bool(self._client_key.ticket) and not self._early,
        )
