"""The vectors of logins, device chains and look-alikes, generated from fixed seeds."""

from __future__ import annotations

import hashlib
from typing import Any

from relay.chat.accounts import chain, invitation, links
from relay.chat.accounts.links import Kind
from relay.chat.names import INBOX_PREFIX, skeleton
from relay.chat.partition import partition_of
from relay.wire.device_keys import PrivateDeviceKey, verify
from relay.wire.login import Operation, signed_bytes

Vector = dict[str, Any]
NAMES = (
    "alice", "a1ice", "al1ce", "alice_", "bob", "b-o-b", "b0b", "modern", "rnodem", "rnodern",
    "ian", "lan", "1an", "0o0", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)  # fmt: skip
REFUSED_KEYS = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


def key(label: str) -> PrivateDeviceKey:
    """Return a device key of these vectors."""
    return PrivateDeviceKey(hashlib.sha256(f"device {label}".encode()).digest())


def signed(body: links.Body, *keys: PrivateDeviceKey) -> bytes:
    """Return a link's bytes."""
    packed = body.packed()
    return packed + b"".join(one.sign(packed) for one in keys)


def logins(login_binding: bytes, spki_hash: bytes) -> list[Vector]:
    """Return one signature for each operation, on the connection of the first handshake."""
    made = []
    for operation in Operation:
        device, name = key("a"), "alice"
        message = signed_bytes(operation, login_binding, spki_hash, device.public, name)
        made.append(
            {
                "operation": int(operation),
                "login_binding": login_binding.hex(),
                "spki_hash": spki_hash.hex(),
                "seed": bytes(device.seed).hex(),
                "key": device.public.hex(),
                "name": name,
                "signed": message.hex(),
                "signature": device.sign(message).hex(),
            }
        )
    return made


def chain_of(server_id: bytes) -> Vector:
    """Return a root, two additions, a removal, another addition."""
    a, b, c, d = (key(label) for label in "abcd")
    nonce = hashlib.sha256(b"nonce").digest()[:16]
    root = signed(chain.root_body(server_id, "alice", nonce, a.public), a)
    held = chain.begun(links.parse(root), verify)
    packed = [root]
    steps: list[tuple[Kind, PrivateDeviceKey, PrivateDeviceKey]] = [
        (Kind.ADD, b, a), (Kind.ADD, c, b), (Kind.REMOVE, a, c), (Kind.ADD, d, b),
    ]  # fmt: skip
    for kind, subject, signer in steps:
        body = held.next_body(kind, subject.public, signer.public)
        keys = (signer, subject) if kind is Kind.ADD else (signer,)
        packed.append(signed(body, *keys))
        held = held.extended(links.parse(packed[-1]), verify)
    return {
        "name": "alice",
        "server_id": server_id.hex(),
        "root": held.root.hex(),
        "head": held.head.hex(),
        "links": [
            {
                "index": number,
                "kind": int(links.parse(one).body.kind),
                "subject": links.parse(one).body.subject.hex(),
                "signer": links.parse(one).body.signer.hex(),
                "packed": one.hex(),
                "hash": links.hash_of(one).hex(),
            }
            for number, one in enumerate(packed)
        ],
        "devices": sorted(one.hex() for one in held.devices),
        "removed": sorted(one.hex() for one in held.removed),
        "key_ids": {one.hex(): links.key_id(one).hex() for one in sorted(held.devices)},
    }


def accounts(login_binding: bytes, spki_hash: bytes) -> Vector:
    """Return all of them."""
    token = bytes(range(32))
    return {
        "logins": logins(login_binding, spki_hash),
        "chains": [chain_of(spki_hash)],
        "refused_keys": list(REFUSED_KEYS),
        "invitations": [
            {
                "text": invitation.token_text(token),
                "token": token.hex(),
                "hash": invitation.hash_of(token).hex(),
                "log": invitation.log_of(invitation.hash_of(token)),
            }
        ],
        "look_alikes": [
            {
                "name": name,
                "skeleton": skeleton(name),
                "partition": partition_of(INBOX_PREFIX + name),
            }
            for name in NAMES
        ],
    }
