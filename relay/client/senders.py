"""Whose devices the senders' keys are: chains are asked for, verified and pinned. No I/O.

A message names its sender and the id of a device key. The first time that a pair is seen, the
sender's chain is asked for. If it is valid, continues what is pinned and has that key, nobody is
told; otherwise there is a warning. Every reader does this for itself, and trusts no server in it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Final

from relay import limits
from relay.chat import names
from relay.chat.accounts import chain, links, requests
from relay.chat.accounts.chain import Chain, Pin
from relay.chat.accounts.links import LinkError, key_id
from relay.client.errors import DeviceChainError
from relay.client.events import DeviceWarning
from relay.wire import envelopes as wire
from relay.wire.device_keys import verify

log: Final = logging.getLogger(__name__)
NUMBER: Final = limits.U32_MAX
"""The request number of everything asked here: one question at a time, and no other has it."""
ANSWER_S: Final = 30.0
PAIRS_MAX: Final = 16_384
"""(sender, key id) that were looked at. Beyond it all are forgotten, and asked for again."""
QUESTIONS_MAX: Final = 1024
"""Senders whose chain is still to be asked for."""
PINS_MAX: Final = 65_536
"""Names that something is pinned of, at one server: beyond it no more are added. None is forgotten,
or whoever invents names could have others forgotten."""
CHANGES_MAX: Final = 4096
"""Pins that one connection can change in the file, where each is a line more. Of a change beyond it
the next program that runs hears again."""


class Senders:
    """What this client knows of the devices of others, and of its own."""

    def __init__(self) -> None:
        self.known: set[tuple[str, bytes]] = set()
        """Pairs that need no look (any more): the hot path asks this alone."""
        self.warnings: list[DeviceWarning] = []
        """To be put into the queue of events, and forgotten."""
        self.seen: dict[str, Pin] = {}
        """Pins to be kept in a file, and forgotten."""
        self.own_links: list[bytes] | None = None
        """One's own chain to be kept in a file; None: as it was."""
        self.deadline: float | None = None
        """When an answer is overdue."""
        self._server_id = b""
        self._own_name = ""
        self._own_chain: list[bytes] = []
        """As it was last seen; empty: not yet, or it is not kept."""
        self._pins: dict[str, Pin] = {}
        self._changes_left = CHANGES_MAX
        self._full = False
        """A bound of pins was met on this connection, and logged."""
        self._keys: dict[str, dict[bytes, str]] = {}
        """Of the sender that is asked about: key ids, and a room where each was seen."""
        self._work: deque[wire.Devices | wire.Account] = deque()
        self._asked: wire.Devices | wire.Account | None = None
        self._pages: list[bytes] = []
        self._out: list[wire.Devices | wire.Account] = []

    def take_seen(self) -> tuple[dict[str, chain.Pin], list[bytes] | None] | None:
        """Return ``seen`` and ``own_links``, and forget them; None: there is nothing."""
        if not (self.seen or self.own_links):
            return None
        found = self.seen, self.own_links
        self.seen, self.own_links = {}, None
        return found

    def begin(
        self,
        server_id: bytes,
        name: str,
        root: bytes,
        pins: dict[str, Pin],
        kept: list[bytes] | None,
        begun: list[bytes],
    ) -> None:
        """A connection is logged in.

        Args:
            server_id: of the server.
            name: one's own.
            root: of one's account, as the server says.
            pins: what is pinned; kept up to date here.
            kept: the links of one's own chain in a file; None: they are not kept.
            begun: its root link, if this client has begun the account: what was kept before is of
                one that was reset.
        """
        self._server_id = server_id
        self._own_name = name
        self._pins = pins
        self._changes_left = CHANGES_MAX
        self._full = False
        if begun and name in pins and pins[name].root != root:
            pins[name] = self.seen[name] = Pin(root, 0, root)
        if kept is None:
            return
        if not self._own_chain:
            self._own_chain = begun or kept
            self.own_links = begun or None
        # Nobody can have lost what follows a lone root link.
        if len(self._own_chain) != 1 or (name in pins and pins[name].root != root):
            self._add(wire.Devices(NUMBER, name, 0))

    def offline(self) -> None:
        """The connection is gone, and the questions with it: what is seen again is asked again."""
        self._keys.clear()
        self._work.clear()
        self._out.clear()
        self._asked = None
        self.deadline = None

    # --- what is seen ---------------------------------------------------------------------------
    def look(self, room: str, sender: str, sender_key: bytes, now: float) -> None:
        """A message came whose (sender, key id) is not ``known``."""
        if len(self.known) >= PAIRS_MAX:
            self.known.clear()
        self.known.add((sender, sender_key))
        if not sender_key or not names.is_handle(sender):
            return  # a guest, or from before there were accounts
        if sender not in self._keys:
            if len(self._keys) >= QUESTIONS_MAX:
                self.known.discard((sender, sender_key))
                return
            self._keys[sender] = {}
            self._add(wire.Devices(NUMBER, sender, 0))
        self._keys[sender][sender_key] = room
        self._ask_next(now)

    def requests(self, now: float) -> Iterator[wire.Devices | wire.Account]:
        """Yield what is to be sent now."""
        self._ask_next(now)
        out, self._out = self._out, []
        yield from out

    def _add(self, request: wire.Devices | wire.Account) -> None:
        self._work.append(request)

    def _ask_next(self, now: float) -> None:
        if self._asked is None and self._work:
            self._asked = self._work.popleft()
            self._pages = []
            self._out.append(self._asked)
            self.deadline = now + ANSWER_S

    # --- what is answered -----------------------------------------------------------------------
    def received(self, answer: wire.Chain, now: float) -> None:
        """Links of a chain came."""
        asked = self._asked
        if not isinstance(asked, wire.Devices) or answer.name != asked.name:
            return
        self._pages += answer.links
        if not answer.end and answer.links and len(self._pages) < chain.LINKS_MAX:
            self._asked = wire.Devices(NUMBER, asked.name, len(self._pages))
            self._out.append(self._asked)
            self.deadline = now + ANSWER_S
            return
        self._asked = self.deadline = None
        self._check(asked.name, self._pages)
        self._ask_next(now)

    def done(self, now: float) -> None:
        """A link was given back to the server."""
        if not isinstance(self._asked, wire.Account):
            return
        self._asked = self.deadline = None
        self._ask_next(now)

    def refused(self, text: str, now: float) -> None:
        """The server does not answer a question."""
        asked, self._asked, self.deadline = self._asked, None, None
        if isinstance(asked, wire.Devices):
            self._warn(asked.name, f"the server does not give their devices ({text})")
        self._ask_next(now)

    def overdue(self, now: float) -> None:
        """See whether the server owes an answer for too long."""
        if self.deadline is not None and now >= self.deadline:
            self.refused("no answer", now)

    # --- checking -------------------------------------------------------------------------------
    def _check(self, name: str, packed: list[bytes]) -> None:
        own = name == self._own_name
        if own and self._gives_back(packed):
            return
        try:
            chains = chain.read(packed, verify)
        except LinkError as error:
            self._warn(name, f"the server gave a false list of their devices: {error}")
            return
        if not chains:
            self._warn(name, "the server answers that this account does not exist")
            return
        last = chains[-1]
        if last.server_id != self._server_id or last.handle != name:
            self._warn(name, "the server gave somebody else's list of devices")
            return
        wrong = self._compared(chains)
        if wrong:
            self._warn(name, wrong)
        for sender_key, room in self._keys.pop(name, {}).items():
            if sender_key not in _ids(last):
                detail = "a message has a key that is not one of their devices"
                self.warnings.append(DeviceWarning(room, name, detail))
        if own and packed != self._own_chain:
            self._own_chain = self.own_links = list(packed)

    def hold(self, packed: list[bytes], chains: list[Chain]) -> None:
        """Hold a chain that was asked for, and verified, against what was seen of it before.

        Raises:
            DeviceChainError: it is one's own, and no extension of that: whoever signs a link of it
                makes a fork of it, and what was removed may be a device again.
        """
        name = chains[-1].handle
        for pin in self._own_pins(name, chains):
            if not chain.extends(chains, pin):
                raise DeviceChainError(_changed(chains, pin))
        wrong = self._compared(chains)
        if wrong:
            self._warn(name, wrong)
        if name == self._own_name and self._own_chain:
            self._own_chain = self.own_links = list(packed)

    def _own_pins(self, name: str, chains: list[Chain]) -> Iterator[Pin]:
        """Yield what one's own chain must extend: what was seen of it, and the links that are kept.

        Those may be of an account that was reset; then the pin tells.
        """
        if name != self._own_name:
            return
        if name in self._pins:
            yield self._pins[name]
        kept = self._own_chain
        if kept and links.hash_of(kept[0]) == chains[0].root:
            yield Pin(chains[0].root, len(kept) - 1, links.hash_of(kept[-1]))

    def extended(self, packed: bytes) -> None:
        """One's own chain has one more link, which this client has made."""
        link = links.parse(packed)
        if (
            link.complete
            and self._own_chain
            and links.hash_of(self._own_chain[-1]) == link.body.previous
        ):
            self._own_chain = self.own_links = [*self._own_chain, packed]

    def _compared(self, chains: list[Chain]) -> str:
        """Return how a chain differs from what was seen before; empty: not. It is seen now.

        One that only ends earlier is not: what it hides is known, and stays so.
        """
        last = chains[-1]
        pin = self._pins.get(last.handle)
        wrong = "" if pin is None or chain.extends(chains, pin) else _changed(chains, pin)
        hides = (
            wrong and pin is not None and chains[0].root == pin.root and len(chains) <= pin.number
        )
        if pin != last.pin and not hides:
            self._keep(last.handle, last.pin)
        return wrong

    def _keep(self, name: str, pin: Pin) -> None:
        """Pin what was seen of a chain, in memory and in the file, within the bounds of both."""
        new = name not in self._pins
        fits = len(self._pins) < PINS_MAX if new else self._changes_left > 0
        if fits:
            self.seen[name] = pin
            self._changes_left -= not new
        elif not self._full:
            self._full = True
            log.warning("too many lists of devices were seen here: more are not remembered")
        if fits or not new:
            self._pins[name] = pin

    def _gives_back(self, packed: list[bytes]) -> bool:
        """Give a server that went back the links of one's own chain that it has lost."""
        kept = self._own_chain
        if not packed or len(packed) >= len(kept) or kept[: len(packed)] != packed:
            return False
        for link in kept[len(packed) :]:
            self._add(wire.Account(NUMBER, "", requests.pack(requests.Extend(link))))
        self._keys.pop(self._own_name, None)
        return True

    def _warn(self, name: str, detail: str) -> None:
        rooms = set(self._keys.pop(name, {}).values()) or {""}
        self.warnings += [DeviceWarning(room, name, detail) for room in sorted(rooms)]


def _ids(last: Chain) -> set[bytes]:
    """Return the key ids that ever were of this chain: old messages stay what they are."""
    return {key_id(key) for key in (*last.devices, *last.removed)}


def _changed(chains: list[Chain], pin: Pin) -> str:
    if chains[0].root != pin.root:
        return (
            "this account has begun anew, with other devices: an operator has reset it, or it is "
            "somebody else. Ask them in another way before you trust it"
        )
    if chains[-1].number < pin.number:
        return "the server has lost, or hides, changes of their devices that were seen before"
    return "their list of devices contradicts what was seen before: somebody has forged it"


assert links.HASH_BYTES == 32
