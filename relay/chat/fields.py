"""The checks of the domain's fields, shared by all encodings and tables.

An alias such as ``LogName`` is for annotations, its check ``LOG`` for the tables of messages. A
NamedTuple whose fields are annotated with these aliases is a table by itself: ``checks_of`` reads
it.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias, get_type_hints

from relay import codec, limits
from relay.codec import Check

LOG: Final = codec.text(1 + limits.NAME_CHARS_MAX, 1)
NAME: Final = codec.text(limits.NAME_CHARS_MAX, 1)
DISPLAY: Final = codec.text(4 * limits.DISPLAY_NAME_CHARS_MAX)
EPOCH: Final = codec.binary(limits.EPOCH_BYTES, limits.EPOCH_BYTES)
U63: Final = codec.uint(limits.U63_MAX)
POSITIVE: Final = codec.uint(limits.U63_MAX, 1)
PRODUCER: Final = codec.binary(limits.PRODUCER_BYTES_OF_0_1, limits.PRODUCER_BYTES)
"""Entries stored by a server of version 0.1 have shorter ones."""
INSTANCE_SECRET: Final = codec.binary(limits.INSTANCE_SECRET_BYTES, limits.INSTANCE_SECRET_BYTES)
KEY_ID: Final = codec.binary(0, limits.KEY_ID_BYTES_MAX)
ROOT: Final = codec.binary(0, limits.ROOT_BYTES)
"""Of an account: the hash of its first link. Empty: a guest's."""
KIND: Final = codec.uint(255)
CONTENT_TYPE: Final = codec.text(limits.CONTENT_TYPE_BYTES_MAX)
BODY: Final = codec.binary(0, limits.BODY_BYTES_MAX)
TO: Final = codec.text(limits.NAME_CHARS_MAX)
"""A handle; empty: none."""
EPOCH_OR_NONE: Final = codec.binary(0, limits.EPOCH_BYTES)
"""Also the identity of a room, which is an epoch: ``chat.entries.Submission``."""

LogName: TypeAlias = Annotated[str, LOG]
Handle: TypeAlias = Annotated[str, NAME]
Epoch: TypeAlias = Annotated[bytes, EPOCH]
Seq: TypeAlias = Annotated[int, POSITIVE]
Prev: TypeAlias = Annotated[int, U63]
TimeMs: TypeAlias = Annotated[int, U63]
KeyId: TypeAlias = Annotated[bytes, KEY_ID]
Root: TypeAlias = Annotated[bytes, ROOT]
Flag: TypeAlias = Annotated[bool, codec.boolean]
Producer: TypeAlias = Annotated[bytes, PRODUCER]
Counter: TypeAlias = Annotated[int, POSITIVE]
KindNumber: TypeAlias = Annotated[int, KIND]
ContentType: TypeAlias = Annotated[str, CONTENT_TYPE]
Body: TypeAlias = Annotated[bytes, BODY]
Recipient: TypeAlias = Annotated[str, TO]
EpochOrNone: TypeAlias = Annotated[bytes, EPOCH_OR_NONE]
AboutSeq: TypeAlias = Annotated[int, U63]


def checks_of(table: type[tuple[object, ...]]) -> tuple[Check, ...]:
    """Return the checks for the fields of a NamedTuple annotated with the aliases above."""
    hints = get_type_hints(table, include_extras=True)
    return tuple(hint.__metadata__[0] for hint in hints.values())
