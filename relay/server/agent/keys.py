"""The server's keys as loaded by the agent: the current key, the next key, and the server's id."""

from __future__ import annotations

import logging
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from relay.errors import StartError
from relay.new_files import remove_unfinished
from relay.server.keys.key_files import (
    KEY_FILES,
    LINEAGE_FILE,
    NEXT_KEY_FILE,
    create_key_file,
    read_key_file,
)
from relay.server.keys.lineage_file import read_lineage, write_lineage
from relay.wire.identity import (
    IdentityError,
    PrivateKey,
    fingerprint,
    generate_private_key,
    load_private_key,
    spki_hash_of,
)

if TYPE_CHECKING:
    from relay.server.context import AgentContext

log = logging.getLogger("relay.agent")


class Keys(NamedTuple):
    """The keys that the agent uses."""

    key: PrivateKey
    server_id: bytes
    next_hash: bytes
    """SHA-256 of the SPKI of the next key; empty: none."""


def load_keys(context: AgentContext) -> Keys:
    """Load the keys, or create the first one.

    Raises:
        StartError: a file cannot or must not be used, or is missing.
        IdentityError: a key, or this OpenSSL with it, computes wrong results.
    """
    for name in KEY_FILES:
        remove_unfinished(context.key_path.with_name(name))
    passphrase = context.passphrase.read()
    first = not context.expected_fingerprint
    bits = context.live.current.server.key_bits
    key = load_or_create_key(context.key_path, bits, passphrase, create=first)
    own = fingerprint(key.spki)
    if context.expected_fingerprint not in ("", own):
        raise StartError(
            f"key file {context.key_path} is not the key that this server started with; "
            "put that one back, or restart the server"
        )
    server_id = _server_id(context.key_path.with_name(LINEAGE_FILE), own, context)
    next_path = context.key_path.with_name(NEXT_KEY_FILE)
    following = load_key(next_path, passphrase)
    for one in (key, following):
        if one is not None:
            one.self_test()
    next_hash = b"" if following is None else sha256(following.spki).digest()
    return Keys(key, server_id, next_hash)


def _server_id(path: Path, own: str, context: AgentContext) -> bytes:
    lineage = read_lineage(path)
    if not lineage or (context.new_identity and lineage[-1] != own):
        lineage.append(own)
        write_lineage(path, lineage)
    elif lineage[-1] != own:
        raise StartError(
            f"key file {context.key_path} is another key ({own}) than the last one of {path}; put "
            "that one back; or, if this one is to follow it, add its fingerprint there as the last "
            "line"
        )
    return spki_hash_of(lineage[0])


def load_or_create_key(
    path: Path, bits: int, passphrase: bytes = b"", *, create: bool = True
) -> PrivateKey:
    """Load the server's key; with ``create``, generate it if there is none.

    Raises:
        StartError: the file cannot or must not be used, or is missing.
    """
    key = load_key(path, passphrase)
    if key is not None:
        return key
    if not create:
        # A new key would mean another server: no client would reconnect to it.
        raise StartError(f"key file {path} has been removed while the server ran; put it back")
    key = generate_private_key(secrets.token_bytes, bits)
    create_key_file(path, key.to_pem(passphrase))
    log.info("server_key_generated", extra={"path": os.fspath(path), "bits": bits})
    return key


def load_key(path: Path, passphrase: bytes) -> PrivateKey | None:
    """Return the key in a file; None if the file does not exist.

    Raises:
        StartError: the file cannot or must not be used.
    """
    data = read_key_file(path)
    if data is None:
        return None
    try:
        return load_private_key(data, secrets.token_bytes, passphrase)
    except IdentityError as error:
        raise StartError(f"key file {path}: {error}") from None
