"""The packed state of an account, so that a long log need not be replayed."""

from __future__ import annotations

from typing import Any, Final, cast

from relay import codec, limits
from relay.chat.accounts import chain, links, preferences
from relay.chat.accounts.account import Account, Reservation
from relay.chat.accounts.chain import LINKS_MAX, Chain
from relay.chat.accounts.links import LinkError
from relay.chat.fields import NAME, U63
from relay.errors import EnvelopeError


def pack(account: Account) -> bytes:
    """Return an account's bytes."""
    reservation = [] if account.reservation is None else [[*account.reservation]]
    return codec.pack(
        (
            account.version, list(account.links), account.disabled, account.removed,
            account.operator, reservation, account.offer, [[*one] for one in account.names],
            [[*one] for one in sorted(account.blocked)], account.writers, account.seen_by,
            account.keep,
        )
    )  # fmt: skip


_LINK: Final = codec.binary(1, links.LINK_BYTES_MAX)
_HASH: Final = codec.binary(links.HASH_BYTES, links.HASH_BYTES)
_KEY: Final = codec.binary(links.KEY_BYTES, links.KEY_BYTES)
_LABEL: Final = codec.text(limits.DEVICE_NAME_BYTES_MAX)
_ACCOUNT: Final = (
    U63, codec.list_of(_LINK, LINKS_MAX), codec.boolean, codec.boolean, codec.boolean,
    codec.list_of(codec.tuple_of(_HASH, U63, codec.boolean), 1),
    codec.binary(0, links.LINK_BYTES_MAX),
    codec.list_of(codec.tuple_of(_KEY, _LABEL), LINKS_MAX),
    codec.list_of(codec.tuple_of(NAME, _HASH), preferences.BLOCKED_MAX), U63, U63,
    codec.tuple_of(U63, U63, U63),
)  # fmt: skip
_ARRAY_MAX: Final = max(LINKS_MAX, preferences.BLOCKED_MAX)


def unpack(handle: str, data: bytes) -> Account:
    """Return the account in some bytes. Signatures were checked before its links were stored.

    Raises:
        EnvelopeError: they are invalid.
    """
    fields = cast("list[Any]", codec.unpack_array(data, _ACCOUNT, array_max=_ARRAY_MAX))
    version, packed, disabled, removed, operator, reservations, *rest = fields
    offer, names, blocked, writers, seen_by, keep = rest
    held: Chain | None = None
    try:
        for link in map(links.parse, packed):
            held = chain.begun(link, None) if held is None else held.extended(link, None)
    except LinkError as error:
        raise EnvelopeError(str(error)) from None
    return Account(
        handle, version, held, disabled, removed, operator,
        Reservation(*reservations[0]) if reservations else None, offer,
        tuple((key, name) for key, name in names),
        frozenset((name, root) for name, root in blocked), writers, seen_by, tuple(keep),
        tuple(packed),
    )  # fmt: skip


def links_of(data: bytes) -> list[bytes]:
    """Return the links of the chain in an account's bytes.

    Raises:
        EnvelopeError: they are invalid.
    """
    found = codec.unpack_array(data, _ACCOUNT, array_max=_ARRAY_MAX)[1]
    return cast("list[bytes]", found)
