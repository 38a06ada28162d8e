"""The state of one account: a fold over the events of its log ``@handle``."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import NamedTuple

from relay.chat.accounts import chain, links
from relay.chat.accounts.chain import Chain
from relay.chat.accounts.events import (
    AccountEvent,
    Blocked,
    Created,
    Disabled,
    Enabled,
    KeepSet,
    Linked,
    Named,
    Offered,
    Preferred,
    Promoted,
    Removed,
    Reserved,
    Unblocked,
)
from relay.chat.accounts.refusal import Reason, Refused


class Reservation(NamedTuple):
    """A name reserved for the holder of a token."""

    token_hash: bytes
    expires_ms: int
    operator: bool

    def admits(self, token_hash: bytes, now_ms: int) -> bool:
        """Return True if this token may create the account now."""
        return self.is_for(token_hash) and now_ms < self.expires_ms

    def is_for(self, token_hash: bytes) -> bool:
        """Return True if this is the token, even if expired."""
        return hmac.compare_digest(token_hash, self.token_hash)


class Account(NamedTuple):
    """The state of a name. Immutable: an event creates another one."""

    handle: str
    version: int = 0
    """Number of events in its log; 0: none, and the name was never used."""
    chain: Chain | None = None
    """None: nobody has the name at present."""
    disabled: bool = False
    removed: bool = False
    operator: bool = False
    reservation: Reservation | None = None
    offer: bytes = b""
    """An ADD that waits for the new key's signature."""
    names: tuple[tuple[bytes, str], ...] = ()
    """(key, label of the device)."""
    blocked: frozenset[tuple[str, bytes]] = frozenset()
    """(handle, root) of accounts whose messages are refused."""
    writers: int = 0
    """Who may write to the user: ``preferences.Writers``."""
    seen_by: int = 1
    """Who may see when the user was last connected: ``preferences.Writers``."""
    keep: tuple[int, int, int] = (0, 0, 0)
    """How long its inbox keeps messages: seconds, messages, bytes; 0: as in the settings."""
    links: tuple[bytes, ...] = ()
    """The links of the chain, as stored."""

    def refusal(self, key: bytes) -> Refused | None:
        """Return why a device key may not log in; None: it may."""
        if self.chain is None:
            return Refused(Reason.NOT_REGISTERED, "nobody has registered this name")
        if key not in self.chain.devices:
            return Refused(Reason.KEY_REFUSED, "this key is not a device of the account")
        if self.disabled:
            return Refused(Reason.DISABLED, "an operator has disabled this account")
        return None

    def may_ask(self, key_id: bytes) -> bool:
        """Return True if this is the id of a device key that may log in."""
        devices = () if self.chain is None or self.disabled else self.chain.devices
        return any(links.key_id(key) == key_id for key in devices)

    @property
    def root(self) -> bytes:
        """The root of its chain, which must exist."""
        assert self.chain is not None
        return self.chain.root


def applied(account: Account, event: AccountEvent) -> Account:
    """Return the account after one event of its log. Signatures were checked before storing.

    Raises:
        LinkError: the log was not written by this version.
    """
    if isinstance(event, Created):
        # Written out because it is done for each account: the library's way leaves a tuple, of
        # which the interpreter keeps up to 2000.
        return Account(
            handle=account.handle,
            version=account.version + 1,
            chain=chain.begun(links.parse(event.link), None),
            disabled=account.disabled,
            removed=account.removed,
            operator=event.operator,
            blocked=account.blocked,
            writers=account.writers,
            seen_by=account.seen_by,
            keep=account.keep,
            links=(event.link,),
        )
    after = account._replace(version=account.version + 1)
    match event:
        case Linked(link=packed):
            if account.chain is None:
                raise links.LinkError("a link of a chain that has not begun")
            extended = account.chain.extended(links.parse(packed), None)
            names = tuple(pair for pair in account.names if pair[0] in extended.devices)
            added = (*account.links, packed)
            return after._replace(chain=extended, offer=b"", names=names, links=added)
        case Offered(link=packed):
            return after._replace(offer=packed)
        case Named(key=key, name=name):
            others = tuple(pair for pair in account.names if pair[0] != key)
            return after._replace(names=(*others, (key, name)))
        case Disabled():
            return after._replace(disabled=True)
        case Enabled():
            return after._replace(disabled=False)
        case Reserved():
            return after._replace(
                chain=None, offer=b"", names=(), operator=False, links=(),
                reservation=Reservation(*event),
            )  # fmt: skip
        case Removed():
            return Account(account.handle, after.version, removed=True)
        case Promoted(operator=operator):
            return after._replace(operator=operator)
        case Blocked(handle=handle, root=root):
            return after._replace(blocked=account.blocked | {(handle, root)})
        case Unblocked(handle=handle):
            kept = frozenset(one for one in account.blocked if one[0] != handle)
            return after._replace(blocked=kept)
        case Preferred(writers=writers, seen_by=seen_by):
            return after._replace(writers=writers, seen_by=seen_by)
        case KeepSet():
            return after._replace(keep=(*event,))


def folded(account: Account, events: Iterable[AccountEvent]) -> Account:
    """Return the account after some events of its log."""
    for event in events:
        account = applied(account, event)
    return account
