"""Generates the protocol's test vectors: ``python -m tests.vectors.generate``.

All randomness is fixed. What OpenSSL randomises itself (OAEP's padding, ML-KEM's encapsulation) is
drawn once and kept in randomised.json; with that file and server_key.json present, every run writes
the same bytes. Delete randomised.json to draw again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from relay.chat.accounts.requests import Disable, NameDevice
from relay.chat.accounts.requests import pack as pack_request
from relay.chat.entries import packable
from relay.chat.ids import NO_ROOT, producer_of
from relay.chat.rooms.requests import Ban
from relay.chat.rooms.requests import pack as pack_room_request
from relay.secret import Secret
from relay.server.ticket_register import TicketRegister
from relay.wire import envelopes as wire
from relay.wire import packing
from relay.wire.cipher import RecordLimits, RecordType, SendCipher
from relay.wire.connection import Connection
from relay.wire.events import SecretWrapped
from relay.wire.handshake import OPENSSL, Randomised
from relay.wire.identity import ServerPublicKey, fingerprint, parse_spki
from relay.wire.key_schedule import (
    ZEROS,
    binder,
    early_secret,
    handshake_secret,
    login_binding,
    next_traffic_secret,
    resumption_secret,
    session_secrets,
    ticket_secret,
    traffic_keys,
)
from relay.wire.messages import RESUMED, ServerFinished, pack_ext
from relay.wire.tickets import ClientTicket, TicketKey, TicketKeys
from tests.support.pair import server_key
from tests.vectors.accounts import accounts
from tests.vectors.rooms import rooms

HERE = Path(__file__).parent
RANDOMISED_FILE = HERE / "randomised.json"
Vector = dict[str, Any]


def fixed(name: str, count: int) -> bytes:
    """Return bytes that look random, derived from their name."""
    return hashlib.shake_256(f"relay test vector {name}".encode()).digest(count)


class Drawn:
    """Fixed bytes in place of a random source; records each draw by its name in the vector."""

    def __init__(self, seed: str, *names: str) -> None:
        self._seed = seed
        self._names = iter(names)
        self.values: dict[str, bytes] = {}

    def __call__(self, count: int) -> bytes:
        name = next(self._names)
        self.values[name] = fixed(f"{self._seed} {name}", count)
        return self.values[name]


class Stored:
    """The results of OpenSSL's own randomness: drawn when missing, then always the same."""

    def __init__(self, known: dict[str, list[str]]) -> None:
        self.known = known
        self.used: dict[str, list[str]] = {}

    def _of(self, name: str, draw: Callable[[], list[bytes]]) -> list[bytes]:
        if name not in self.known:
            self.known[name] = [value.hex() for value in draw()]
        self.used[name] = self.known[name]
        return [bytes.fromhex(value) for value in self.known[name]]

    def wrap(self, key: ServerPublicKey, secret: bytes) -> bytes:
        return self._of(f"RSA-OAEP of {secret.hex()}", lambda: [key.wrap(secret)])[0]

    def challenge(self, key: ServerPublicKey, secret: bytes) -> bytes:
        name = f"RSA-OAEP of {secret.hex()} as a challenge"
        return self._of(name, lambda: [key.challenge(secret)])[0]

    def encapsulate(self, key: bytes) -> tuple[bytes, bytes]:
        name = f"ML-KEM-768 to the key with SHA-256 {hashlib.sha256(key).hexdigest()}"
        shared, ciphertext = self._of(name, lambda: list(OPENSSL.encapsulate(key)))
        return shared, ciphertext


# --- handshake ------------------------------------------------------------------------------------
TICKET_NONCE = bytes(8)


def first_ticket(tickets: TicketKeys, full: Vector) -> ClientTicket:
    """Return the ticket that a server gives on the connection of a handshake."""
    psk = ticket_secret(bytes.fromhex(full["schedule"]["RMS"]), TICKET_NONCE)
    sealed = tickets.seal(psk)
    assert sealed is not None
    return ClientTicket(sealed[0], psk)


def ticket_keys(stock: str) -> TicketKeys:
    """Return fixed ticket keys, with a register of their own for each server that is created."""
    register = TicketRegister()
    generation = register.begin()
    assert generation is not None
    key = TicketKey(
        generation, fixed(f"{stock} id", 8), Secret(fixed(f"{stock} key", 32)), 43_200.0
    )
    keys = TicketKeys(
        hashlib.sha256(server_key().spki).digest(),
        register,
        lambda count: fixed(f"{stock} nonce", count),
        lambda: 0.0,
    )
    keys.install([key])
    return keys


def handshake(
    name: str,
    stored: Stored,
    pow_bits: int = 0,
    ticket: ClientTicket | None = None,
    tickets: TicketKeys | None = None,
    ext: bytes = b"",
) -> Vector:
    """Run a handshake between our own two ends; return it with its key schedule."""
    mine = Drawn(name, "session_key", "x25519_c_private", "mlkem_seed", "client_random")
    theirs = Drawn(name, "server_random", "x25519_s_private")
    randomised = Randomised(stored.wrap, stored.encapsulate)
    spki = server_key().spki
    client = Connection.client(now=0.0, random_bytes=mine, randomised=randomised)
    server = Connection.server(
        now=0.0,
        random_bytes=theirs,
        spki=spki,
        pow_bits=pow_bits,
        randomised=randomised,
        tickets=tickets,
        ext=ext,
    )
    client.receive_data(f1 := server.data_to_send(), 0.0)
    client.accept_server_key(0.0, ticket)
    if client.work is not None:
        client.provide_work(client.work.solve(), 0.0)
    server.receive_data(f2 := client.data_to_send(), 0.0)
    for event in server.events():
        assert isinstance(event, SecretWrapped)
        server.provide_secret(server_key().unwrap(event.ciphertext), 0.0)
    client.receive_data(f3 := server.data_to_send(), 0.0)
    server.receive_data(f4 := client.data_to_send(), 0.0)
    inputs = mine.values | theirs.values
    if ticket is not None:
        inputs |= {"psk": bytes(ticket.psk), "ticket": ticket.ticket}
    mode = f3[4]
    values = schedule(inputs, stored, (f1, f2, f3, f4))
    assert client.login_binding == server.login_binding == values["login_binding"]
    return {
        "name": name,
        "pow_bits": pow_bits,
        "mode": mode,
        "ext": ext.hex(),
        "fingerprint": fingerprint(spki),
        "inputs": in_hex(inputs),
        "frames": in_hex({"f1": f1, "f2": f2, "f3": f3, "f4": f4}),
        "schedule": in_hex(values),
    }


def schedule(
    inputs: dict[str, bytes], stored: Stored, frames: tuple[bytes, bytes, bytes, bytes]
) -> dict[str, bytes]:
    """Return every intermediate value of section 4, by its name there."""
    f1, f2, f3, f4 = frames
    x25519_s = ServerFinished.parse(f3).x25519_s
    x25519 = X25519PrivateKey.from_private_bytes(inputs["x25519_c_private"]).exchange(
        X25519PublicKey.from_public_bytes(x25519_s)
    )
    mlkem, _ = stored.encapsulate(f2[4 + 66 : 4 + 66 + 1184])
    t3 = hashlib.sha256(f1 + f2 + f3).digest()
    t4 = hashlib.sha256(f1 + f2 + f3 + f4).digest()
    t0 = hashlib.sha256(f1 + f2[:-32]).digest()
    resumed = f3[4] == RESUMED
    es = early_secret(inputs["psk"]) if resumed else early_secret()
    hs = handshake_secret(es, ZEROS if resumed else inputs["session_key"], x25519, mlkem)
    secrets = session_secrets(hs, t3)
    offered = {"binder": binder(early_secret(inputs["psk"]), t0)} if "psk" in inputs else {}
    return offered | {
        "T0": t0,
        "T2": hashlib.sha256(f1 + f2 + f3[:-32]).digest(),
        "T3": t3,
        "T4": t4,
        "x25519_shared": x25519,
        "mlkem_shared": mlkem,
        "ES": es,
        "HS": hs,
        "server_confirm": f3[-32:],
        "client_confirm": f4[-32:],
        "c_ap_0": secrets.client,
        "s_ap_0": secrets.server,
        "EXP": secrets.exporter,
        "RMS": resumption_secret(hs, t4),
        "login_binding": login_binding(secrets.exporter, server_key().spki),
    }


def in_hex(values: dict[str, bytes]) -> dict[str, str]:
    return {name: value.hex() for name, value in values.items()}


# --- records --------------------------------------------------------------------------------------
Content = tuple[RecordType, bytes]
EVERY_TYPE: list[Content] = [
    (RecordType.APP, packing.pack(wire.Who(1, "lobby"))),
    (RecordType.PING, b""),
    (RecordType.PONG, bytes(range(64))),
    (RecordType.APP, bytes(62)),
    (RecordType.APP, b"a" * 63),
    (RecordType.APP, b"b" * 64),
    (RecordType.APP, b"c" * 1024),
    (RecordType.TICKET, fixed("ticket nonce", 8) + bytes.fromhex("00000e10 0004") + b"abcd"),
    (RecordType.CLOSE, (2000).to_bytes(2, "big") + bytes(2)),
]
UPDATE: Content = (RecordType.KEY_UPDATE, b"")


def direction(name: str, secret: bytes, generations: list[list[Content]]) -> Vector:
    """Return one direction's records; a new generation of keys begins with each list."""
    cipher = SendCipher(secret, RecordLimits(), 0.0)
    made: list[Vector] = []
    for number, contents in enumerate(generations):
        if number:
            cipher.update(0.0)
            secret = next_traffic_secret(secret)
        key, iv = traffic_keys(secret)
        records = [
            {
                "nonce": (int.from_bytes(iv, "big") ^ sequence).to_bytes(12, "big").hex(),
                "type": int(kind),
                "content": content.hex(),
                "frame": cipher.seal(kind, content).hex(),
            }
            for sequence, (kind, content) in enumerate(contents)
        ]
        made.append(in_hex({"ap": secret, "key": key, "iv": iv}) | {"records": records})
    return {"name": name, "ap_0": made[0]["ap"], "generations": made}


# --- the next key ---------------------------------------------------------------------------------
def next_key(stored: Stored) -> Vector:
    """Return the proof that a key follows the server's."""
    public = parse_spki(server_key().spki)
    secret, next_hash = fixed("challenge", 32), fixed("next key", 32)
    challenge = stored.challenge(public, secret)
    assert server_key().prove_next(challenge, next_hash) == public.next_key_proof(secret, next_hash)
    return {
        "secret": secret.hex(),
        "challenge": challenge.hex(),
        "spki_hash": hashlib.sha256(public.spki).hexdigest(),
        "next_spki_hash": next_hash.hex(),
        "proof": public.next_key_proof(secret, next_hash).hex(),
    }


# --- envelopes ------------------------------------------------------------------------------------
EPOCH = bytes.fromhex("0011223344556677")
IDENTITY = bytes.fromhex("8899aabbccddeeff")
PRODUCER = producer_of(NO_ROOT, "ann", bytes(range(16)))
ENTRY = wire.EntryMessage(
    "lobby", EPOCH, 7, 6, 1_767_225_600_000, "ann", b"", PRODUCER, 3, 0, "text/plain",
    "grüß dich".encode(),
)  # fmt: skip
TO_SERVER: list[wire.ClientEnvelope] = [
    wire.Hello("~ann", bytes(range(16)), "Ann", "example/1"),
    wire.Hello("ann", bytes(range(16)), "Ann", "example/1", bytes(32), bytes(range(64))),
    wire.Join(1, "lobby", None, 0, 50),
    wire.Join(2, "lobby", EPOCH, 7, 0),
    wire.Join(2, "lobby", EPOCH, 7, 0, IDENTITY),
    wire.Leave(3, "lobby"),
    wire.Send("lobby", 3, 0, "text/plain", "grüß dich".encode()),
    wire.Send("lobby", 2**63 - 1, 0, "", bytes(300)),
    wire.Send("@bob", 4, 0, "text/plain", b"hi"),
    wire.Send("lobby", 5, 0, "text/plain", b"indeed", EPOCH, 7),
    wire.Send("lobby", 6, 1, "text/plain", b"hello", EPOCH, 7),
    wire.Send("lobby", 7, 2, "text/plain", b"", EPOCH, 7),
    wire.Send("lobby", 8, 4, "text/plain", "👍".encode(), EPOCH, 7),
    wire.Send("@ann", 9, 5, "", b"lobby", EPOCH, 7),
    wire.Send("lobby", 9, 0, "text/plain", b"hello", identity=IDENTITY),
    wire.Send("lobby", 10, 4, "text/plain", "👍".encode(), EPOCH, 7, IDENTITY),
    wire.Who(4, "lobby"),
    wire.History(2**32 - 1, "lobby", False, 0, 1000),
    wire.Search(9, "lobby", 'grüß "dich auch"', 0, 50),
    wire.Register(1, "ann", bytes(32), bytes(range(64)), b"a link", b""),
    wire.Register(1, "ann", bytes(32), bytes(range(64)), b"a link", bytes(range(32))),
    wire.Enrol(2, "ann", bytes(32), bytes(range(64)), b""),
    wire.Enrol(2, "ann", bytes(32), bytes(range(64)), bytes(64)),
    wire.Devices(5, "ann", 0),
    wire.Account(6, "", pack_request(NameDevice(bytes(32), "Ann's phone"))),
    wire.Account(7, "bob", pack_request(Disable())),
    wire.Prove(8, bytes(range(256))),
    wire.Room(8, "lobby", pack_room_request(Ban("bob", 600, "spam"), 41)),
    wire.Room(9, "lobby", pack_room_request(Ban("bob", 600, "spam"), 41), IDENTITY),
]
TO_CLIENT: list[wire.ServerEnvelope] = [
    wire.Welcome("~ann", 1_767_225_600_000, 32_768, 1024, "relay/0", b""),
    wire.Welcome("ann", 1_767_225_600_000, 32_768, 1024, "relay/0", bytes(range(32))),
    wire.Joined(1, "lobby", EPOCH, 3, EPOCH, 7),
    wire.Joined(1, "lobby", EPOCH, 3, EPOCH, 7, IDENTITY),
    wire.Left(3, "lobby"),
    wire.Ack("lobby", 3, EPOCH, 7),
    wire.Ack("@ann", 4, EPOCH, 8, 1),
    wire.Refused("lobby", 4, 11, 500, "busy"),
    wire.Error(4, 6, 0, ""),
    ENTRY,
    ENTRY._replace(log="@bob", to="bob"),
    ENTRY._replace(about_epoch=EPOCH, about_seq=2),
    ENTRY._replace(kind=6, content_type="", body=b"", about_epoch=EPOCH, about_seq=9),
    wire.Roster("lobby", 1, 2, 2, [["bob", "Bob ☃"]], ["ann"]),
    wire.Members(4, "lobby", 1, 2, 2, [["ann", "Ann", 1], ["bob", "", 2]]),
    wire.Page(5, "lobby", 7, False, [ENTRY, ENTRY._replace(seq=8, prev=7, counter=4)]),
    wire.Page(6, "lobby", 0, True, []),
    wire.Page(7, "@bob", 7, False, [ENTRY._replace(log="@ann", to="bob"), ENTRY]),
    wire.Found(
        9, "lobby", 7, False, 9, [ENTRY, ENTRY._replace(kind=1, about_epoch=EPOCH, about_seq=3)]
    ),
    wire.Found(10, "lobby", 1, True, 9, []),
    wire.Live("lobby", EPOCH, 7),
    wire.Behind("lobby", EPOCH, 7),
    wire.Gap("lobby", EPOCH, 7, PRODUCER[:8], 9, 1),
    wire.Done(6, b""),
    wire.Chain(5, "ann", [b"a link", b"another"], True),
    wire.NextKey(bytes(range(32))),
    wire.Removed("lobby", 40, "banned from this room"),
    wire.Invited("team", "ann"),
]


def envelope(value: wire.ClientEnvelope | wire.ServerEnvelope) -> Vector:
    """Return one envelope's bytes and its fields."""
    if isinstance(value, wire.Page):
        rows = [packing.pack_entry(packable(entry)) for entry in value.entries]
        packed = packing.pack_page(*value[:4], rows)
    else:
        packed = packing.pack(value)
    op, *fields = msgpack.unpackb(packed)
    name = wire.Op(op).name
    return {"name": name, "op": op, "fields": as_json(fields), "packed": packed.hex()}


EXACT_IN_JSON: int = 2**53 - 1
"""Many parsers turn a larger number into a floating-point number."""


def as_json(value: object) -> object:
    """Return bytes as ``{"bin": hex}``, large numbers as ``{"int": decimal}``: JSON has neither."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, int) and value > EXACT_IN_JSON:
        return {"int": str(value)}
    return [as_json(item) for item in value] if isinstance(value, list) else value


# --- files ----------------------------------------------------------------------------------------
def generate(stored: Stored) -> dict[str, Vector]:
    """Return all vectors, by the name of their file."""
    handshakes = [handshake("full", stored), handshake("full with work", stored, pow_bits=12)]
    tickets = ticket_keys("ticket")
    ticket = first_ticket(tickets, handshakes[0])
    handshakes += [
        handshake("resumed, by the ticket of the first", stored, ticket=ticket, tickets=tickets),
        handshake(
            "fallen back: the ticket was used before", stored, ticket=ticket, tickets=tickets
        ),
        handshake(
            "of a server whose first key was another one",
            stored,
            ext=pack_ext(fixed("first key", 32), hashlib.sha256(server_key().spki).digest()),
        ),
    ]
    values = handshakes[0]["schedule"]
    client, server = (bytes.fromhex(values[name]) for name in ("c_ap_0", "s_ap_0"))
    to_client = [content for content in EVERY_TYPE if content[0] is not RecordType.KEY_UPDATE]
    to_server = [content for content in to_client if content[0] is not RecordType.TICKET]
    app: Content = (RecordType.APP, b"under another key each time")
    generations = [[app, app, UPDATE], [app, UPDATE], [UPDATE], [app]]
    return {
        "handshake": {"about": ABOUT, "handshakes": handshakes},
        "records": {
            "about": ABOUT,
            "directions": [
                direction("client to server", client, [to_server]),
                direction("server to client", server, [to_client]),
            ],
        },
        "key_update": {
            "about": ABOUT,
            "directions": [
                direction("client to server", client, generations),
                direction("server to client", server, generations),
            ],
        },
        "next_key": {"about": ABOUT, "proofs": [next_key(stored)]},
        "producers": {
            "about": ABOUT,
            "producers": [
                {
                    "root": root.hex(),
                    "name": name,
                    "secret": secret.hex(),
                    "producer": producer_of(root, name, secret).hex(),
                }
                for root, name, secret in (
                    (bytes(range(32)), "ann", bytes(range(16))),
                    (bytes(range(32)), "ann", bytes(16)),
                    (b"\xff" * 32, "a" * 32, bytes(range(16))),
                    (NO_ROOT, "~guest-17", b"\xff" * 16),
                )
            ],
        },
        "accounts": {
            "about": ABOUT,
            **accounts(
                bytes.fromhex(values["login_binding"]),
                hashlib.sha256(server_key().spki).digest(),
            ),
        },
        "rooms": {"about": ABOUT, **rooms()},
        "envelopes": {
            "about": ABOUT,
            "envelopes": [envelope(value) for value in (*TO_SERVER, *TO_CLIENT)],
        },
    }


ABOUT = "Made by python -m tests.vectors.generate; see docs/protocol.md, section 9."


def stored_randomness() -> Stored:
    known = json.loads(RANDOMISED_FILE.read_text()) if RANDOMISED_FILE.exists() else {}
    return Stored(known)


def text_of(vector: Vector) -> str:
    return json.dumps(vector, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    stored = stored_randomness()
    for name, vector in generate(stored).items():
        (HERE / f"{name}.json").write_text(text_of(vector), encoding="utf-8", newline="\n")
    RANDOMISED_FILE.write_text(text_of(stored.used), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
