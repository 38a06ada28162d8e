"""What remains of a removed entry: a hash that identifies a resend of it; and of a lost one."""

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


STUB_OF_ERASED: Final = _MARK
"""Of an entry whose content is not known: any content is a repeat of it."""


LOST: Final = b"\xc1"
"""In the place of an entry, or of a state, that a repair has found unreadable. It cannot be read
either (no MessagePack has this byte), so what is true of a damaged entry is true of it: readers get
a gap."""


def digest_of(content: Content) -> bytes:
    """Return a hash that distinguishes different contents."""
    return blake2b(codec.pack(content), digest_size=DIGEST_BYTES).digest()


def stub_of(entry: Entry) -> bytes:
    """Return the stub for an entry; empty for an erased one, of which any content is a repeat."""
    return STUB_OF_ERASED if entry.kind == Kind.ERASED else _MARK + digest_of(entry.content)


def is_stub(packed: bytes) -> bool:
    """Return True if a row contains only the stub of a removed entry."""
    return packed[:1] == _MARK


def differs_from(stub: bytes, content: Content) -> bool:
    """Return True if a content is known to differ from that of a removed entry."""
    return len(stub) > len(_MARK) and stub[len(_MARK) :] != digest_of(content)
