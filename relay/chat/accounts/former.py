"""The former owners of a name: the keys of accounts that an operator's reset has ended.

An entry contains a name and a device, but not the account. So the present owner of a name is
distinguished from earlier ones by their devices: entries written with an earlier account's device
are not the present owner's.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.chat.accounts import links
from relay.chat.accounts.events import Created, Event, Linked
from relay.chat.accounts.links import Kind


def former_keys(happened: Iterable[Event], root: bytes) -> dict[bytes, bytes]:
    """Return the ids of keys of a name's earlier accounts, each with the root of the last of them.

    Keys that are or were devices of the present account belong to it, whoever used them before.

    Args:
        happened: all events of the account's log, in order.
        root: of the account that has the name now.

    Raises:
        LinkError: the log was not written by this version.
    """
    former: dict[bytes, bytes] = {}
    own: set[bytes] = set()
    of = b""
    for event in happened:
        match event:
            case Created(link=packed):
                if of == root:
                    break  # it was reset, too: its sessions are about to end
                former.update(dict.fromkeys(own, of))
                link = links.parse(packed)
                if not of and link.hash == root:
                    break  # still the first account: the rest, which may be long, is irrelevant
                of, own = link.hash, {links.key_id(link.body.subject)}
            case Linked(link=packed):
                body = links.parse(packed).body
                if body.kind is Kind.ADD:
                    own.add(links.key_id(body.subject))
            case _:
                pass
    return {key: earlier for key, earlier in former.items() if key not in own}
