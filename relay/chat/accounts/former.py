"""Who had a name before: the keys of accounts that an operator's reset has ended.

An entry tells a name and a device, and not whose the account was. So whoever has begun a name anew
is told from those before by their devices: what was written with one of them is another's.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.chat.accounts import links
from relay.chat.accounts.events import Created, Event, Linked
from relay.chat.accounts.links import Kind


def former_keys(happened: Iterable[Event], root: bytes) -> dict[bytes, bytes]:
    """Return the ids of keys of earlier accounts of a name, each with the root of the last of them.

    Those that are devices of this account, or were, are its own, whoever used them before.

    Args:
        happened: all events of the account's log, in order.
        root: of the account that has the name now.

    Raises:
        LinkError: the log is not one that this version has written.
    """
    former: dict[bytes, bytes] = {}
    own: set[bytes] = set()
    of = b""
    for event in happened:
        match event:
            case Created(link=packed):
                if of == root:
                    break  # it was reset as well: its sessions are about to end
                former.update(dict.fromkeys(own, of))
                link = links.parse(packed)
                if not of and link.hash == root:
                    break  # the first one has it still: the rest, which may be long, tells nothing
                of, own = link.hash, {links.key_id(link.body.subject)}
            case Linked(link=packed):
                body = links.parse(packed).body
                if body.kind is Kind.ADD:
                    own.add(links.key_id(body.subject))
            case _:
                pass
    return {key: earlier for key, earlier in former.items() if key not in own}
