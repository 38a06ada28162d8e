"""What remains of a removed entry: a hash, by which a resend of it is recognised."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from relay import codec
from relay.chat.entries import Kind

if TYPE_CHECKING:
    from relay.chat.entries import Content, Entry

DIGEST_BYTES: Final = 16
_MARK: Final = b"\0"
"""No packed entry begins with it."""


def digest_of(content: Content) -> bytes:
    """Return what tells one content from another."""
    return blake2b(codec.pack(content), digest_size=DIGEST_BYTES).digest()


def stub_of(entry: Entry) -> bytes:
    """Return what is kept of an entry. Of an erased one nothing: any content is a repeat of it."""
    return _MARK if entry.kind == Kind.ERASED else _MARK + digest_of(entry.content)


def is_stub(packed: bytes) -> bool:
    """Tell whether a row holds only what is kept of a removed entry."""
    return packed[:1] == _MARK


def differs_from(stub: bytes, content: Content) -> bool:
    """Tell whether a content is known to be another one than that of a removed entry."""
    return len(stub) > len(_MARK) and stub[len(_MARK) :] != digest_of(content)
