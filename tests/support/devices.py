"""Device keys for clients that use the sans-I/O core: a fixed one for each name."""

from __future__ import annotations

import hashlib
import secrets
from functools import cache

from relay.chat.names import is_guest
from relay.client.devices.device_key import DeviceKey
from relay.client.login import root_link
from relay.wire.connection import Connection
from relay.wire.envelopes import ClientEnvelope, Hello, Register
from relay.wire.login import Operation, signed_bytes


@cache
def device(name: str) -> DeviceKey:
    """The device key of a name: public test material."""
    return DeviceKey(hashlib.sha256(f"a test's device of {name}".encode()).digest())


def sign(
    operation: Operation, connection: Connection, spki: bytes, name: str, key: DeviceKey
) -> bytes:
    """What proves a key on a connection."""
    assert connection.login_binding is not None
    spki_hash = hashlib.sha256(spki).digest()
    return key.sign(signed_bytes(operation, connection.login_binding, spki_hash, key.public, name))


def hello(
    connection: Connection,
    spki: bytes,
    name: str,
    secret: bytes,
    display: str = "",
    agent: str = "test",
    key: DeviceKey | None = None,
) -> Hello:
    """The HELLO of a name's device, or of a guest."""
    if is_guest(name):
        return Hello(name, secret, display, agent)
    key = key or device(name)
    signature = sign(Operation.LOGIN, connection, spki, name, key)
    return Hello(name, secret, display, agent, key.public, signature)


def register(
    connection: Connection, spki: bytes, name: str, key: DeviceKey | None = None, token: bytes = b""
) -> Register:
    """The REGISTER of a name, which can be repeated with the same key."""
    key = key or device(name)
    signature = sign(Operation.REGISTER, connection, spki, name, key)
    link = root_link(key, hashlib.sha256(spki).digest(), name, secrets.token_bytes(16))
    return Register(1, name, key.public, signature, link, token)


def login(connection: Connection, spki: bytes, name: str, secret: bytes) -> list[ClientEnvelope]:
    """All requests that log a name in at an open server, whether it was registered or not."""
    greeting = hello(connection, spki, name, secret)
    return [greeting] if is_guest(name) else [register(connection, spki, name), greeting]
