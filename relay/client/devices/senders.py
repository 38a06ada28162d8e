"""Verifies senders' device keys: chains are requested, verified and pinned. No I/O.

A message names its sender and the id of a device key. When such a pair is first seen, the sender's
chain is requested. If it is valid, continues the pinned one and contains that key, nothing is
reported. Otherwise there is a warning, the pin is kept, and everything from that sender is marked
(``unverified``) until a chain arrives that continues the pin, or a person accepts the other one.
Every client does this itself, without trusting any server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from relay.chat import names
from relay.chat.accounts import chain, links, requests
from relay.chat.accounts.chain import Chain, Pin
from relay.chat.accounts.links import LinkError
from relay.client.devices.chain_check import LINKS_PER_TURN, ChainCheck
from relay.client.devices.device_queries import AGAIN_S, ANSWER_S, NUMBER, DeviceQueries
from relay.client.devices.own_chain import OwnChain
from relay.client.devices.pending_senders import PendingSenders, Sender
from relay.client.devices.pins import Pins, changed
from relay.client.devices.unverified import Pair, UnverifiedSenders
from relay.client.errors import DeviceChainError
from relay.client.events import DeviceWarning
from relay.wire import envelopes as wire
from relay.wire.device_keys import verify

log: Final = logging.getLogger(__name__)
PAIRS_MAX: Final = 16_384
"""(sender, key id) pairs that were checked. Beyond it all are dropped, and checked again."""
SENDERS_MAX: Final = 1024
"""Senders with unproved pairs: their chain is still to be requested, or is doubtful."""
_NOT_THEIRS: Final = "a message has a key that is not one of their devices"
_NO_KEY: Final = "the message names no device, like those from before there were accounts"
_NOT_YET: Final = "the server has not sent the list of their devices yet"
_LOST: Final = "the connection was lost before their devices could be checked"


class Senders:
    """What this client knows about the devices of other accounts, and of its own."""

    def __init__(self, unverified: UnverifiedSenders | None = None) -> None:
        """Know nobody."""
        unverified = unverified or UnverifiedSenders()
        self.known = unverified.proved
        """Pairs that need no (further) check: the only lookup of the hot path."""
        self.warnings: list[DeviceWarning] = []
        """To be moved to the queue of events."""
        self.pins = Pins()
        self.own = OwnChain()
        """This account's chain."""
        self._unverified = unverified
        self._server_id = b""
        self._own_name = ""
        self._senders: dict[str, Sender] = {}
        self._queries = DeviceQueries()
        self._pending = PendingSenders()
        self._pages: list[bytes] = []
        self._check: ChainCheck | None = None
        """What is being verified; nothing else is requested meanwhile."""
        self._links_left = LINKS_PER_TURN
        self._now = 0.0
        """When something was last sent."""

    def take_seen(self) -> tuple[dict[str, chain.Pin], list[bytes] | None] | None:
        """Return the pins and links to be kept in files, and clear them; None: there are none."""
        if not (self.pins.seen or self.own.unsaved):
            return None
        found = self.pins.seen, self.own.unsaved
        self.pins.seen, self.own.unsaved = {}, None
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
        """A connection is logged in. Requests for unverified senders are repeated.

        Args:
            server_id: of the server.
            name: of this account.
            root: of this account, according to the server.
            pins: what is pinned; updated here.
            kept: the links of this account's chain in a file; None: they are not kept.
            begun: its root link, if this client has created the account: what was kept before
                belongs to one that was reset.
        """
        self._server_id = server_id
        self._own_name = name
        self.pins.begin(pins)
        if begun and name in pins and pins[name].root != root:
            self.pins.put(name, Pin(root, 0, root))
        self._unverified.wait_again(_LOST, pins)
        for doubtful in self._senders:
            self._ask(doubtful)
        awaited = self._unverified.awaited_senders()
        self._pending.add_at_next_request(name for name in self._senders if name in awaited)
        if kept is None:
            return
        self.own.begin(kept, begun)
        # A lone root link has no successors that could have been lost.
        if len(self.own.links) != 1 or (name in pins and pins[name].root != root):
            self._ask(name)

    @property
    def deadline(self) -> float | None:
        """When an answer is overdue, something must be requested again, or verified."""
        if self._check is not None:
            return 0.0
        due = self._queries.deadline, self._pending.deadline
        return min((at for at in due if at is not None), default=None)

    @property
    def holding(self) -> bool:
        """True while events wait for an answer: the socket must be read in any case."""
        return self._unverified.holding

    def offline(self) -> None:
        """The connection has ended with its requests, which are repeated on the next one."""
        self._check = None
        self._queries.clear()
        self._pending.clear()
        self._unverified.give_up(_LOST)

    # --- what is seen ---------------------------------------------------------------------------
    def look(self, room: str, sender: str, sender_key: bytes, now: float) -> None:
        """A message has arrived whose (sender, key id) is not ``known``."""
        pair = sender, sender_key
        if not names.is_handle(sender):
            self._prove(pair)  # a guest
        elif not sender_key:
            self._no_key(pair)
        elif (one := self._sender(sender)) is not None:
            new, held = sender_key not in one.keys, sender in self.pins.known
            if new:
                if not self._unverified.add(pair, one.doubt or None, held=held):
                    return
                one.keys[sender_key] = room
                if held and not one.doubt:
                    self._pending.add(sender, now)
            if one.doubt:
                self._warn(sender, one, (room,))
            if new or (one.again and now >= one.again):
                one.again = 0.0
                self._ask(sender)
            self._ask_next(now)

    def _sender(self, name: str) -> Sender | None:
        """Return the record of a sender; None: there are too many."""
        one = self._senders.get(name)
        if one is None:
            if len(self._senders) >= SENDERS_MAX:
                self._unverified.overflow |= name in self.pins.known
                return None
            one = self._senders[name] = Sender()
        return one

    def _no_key(self, pair: Pair) -> None:
        """Old messages have no key id, and neither may forged ones, for senders that are known."""
        if pair[0] in self.pins.known:
            self._unverified.add(pair, _NO_KEY, held=False)
        else:
            self._prove(pair)

    def _prove(self, pair: Pair) -> None:
        if len(self.known) >= PAIRS_MAX:
            self.known.clear()
        self.known.add(pair)

    def requests(self, now: float) -> Iterator[wire.Devices | wire.Account]:
        """Yield the requests to send now."""
        self._now = now
        self._links_left = LINKS_PER_TURN
        self._pending.requests_sent(now)
        self._ask_next(now)
        yield from self._queries.drain()

    def _ask(self, name: str) -> None:
        """Request a chain, unless that is already planned."""
        self._queries.add(wire.Devices(NUMBER, name, 0))

    def _ask_next(self, now: float) -> None:
        if self._queries.asked is None and self._check is None:
            self._pages = []
            self._queries.next(now)

    # --- what is answered -----------------------------------------------------------------------
    def received(self, answer: wire.Chain, now: float) -> None:
        """Links of a chain have arrived."""
        asked = self._queries.asked
        if not isinstance(asked, wire.Devices) or answer.name != asked.name:
            return
        self._pages += answer.links
        if not answer.end and answer.links and len(self._pages) < chain.LINKS_MAX:
            self._queries.ask(wire.Devices(NUMBER, asked.name, len(self._pages)), now)
            return
        self._queries.over()
        packed = self._pages
        lost = asked.name == self._own_name and self.own.lost(packed)
        self._begin_check(asked.name, packed, gives_back=lost)
        self._verify_more(now)

    def done(self, now: float) -> None:
        """A link was returned to the server."""
        if not isinstance(self._queries.asked, wire.Account):
            return
        self._queries.over()
        self._ask_next(now)

    def refused(self, text: str, now: float, *, for_now: bool = False) -> None:
        """The server does not answer a question; ``for_now``: it may answer it later."""
        asked = self._queries.over()
        if isinstance(asked, wire.Devices):
            if for_now:
                self._queries.add_later(asked.name, now + AGAIN_S)
            self._suspect(
                asked.name, f"the server does not send the list of their devices ({text})", now
            )
        self._ask_next(now)

    def retry(self, error: wire.Error, now: float) -> bool:
        """BUSY or UNAVAILABLE: repeat later. False: it has been refused for too long."""
        again = self._queries.retry(error, now)
        self._ask_next(now)
        return again

    def overdue(self, now: float) -> None:
        """Verify more; check whether an answer is overdue, or a request must be repeated."""
        if self._check is not None:
            self._links_left = LINKS_PER_TURN
            self._verify_more(now)
        if self._queries.overdue(now):
            self.refused("no answer", now, for_now=True)
        for name in self._pending.due(now):
            self._suspect(name, _NOT_YET, now)

    # --- checking -------------------------------------------------------------------------------
    def _begin_check(self, name: str, packed: list[bytes], *, gives_back: bool) -> None:
        reading = chain.Reading(list(self.own.links) if gives_back else packed)
        pinned = self.pins.known.get(name)
        self._check = ChainCheck(name, packed, reading, gives_back, pinned)

    def _verify_more(self, now: float) -> None:
        """Verify as many links as one turn may."""
        while self._check is not None and self._links_left > 0:
            check, reading = self._check, self._check.reading
            before = reading.looked_at
            try:
                reading.advance(self._links_left, verify)
            except LinkError as error:
                self._false(check, error, now)
            else:
                if reading.whole:
                    self._check = None
                    self._verified(check, now)
            self._links_left -= reading.looked_at - before
        self._ask_next(now)

    def _false(self, check: ChainCheck, error: LinkError, now: float) -> None:
        """A chain is not valid."""
        self._check = None
        if check.gives_back:  # then the server's chain is believed, if the pin agrees
            log.warning("the links of one's own devices that were kept are damaged: %s", error)
            self.own.links = []
            self._begin_check(check.name, check.packed, gives_back=False)
            return
        self._disbelieve(check.name, f"the server sent a false list of their devices: {error}", now)

    def _verified(self, check: ChainCheck, now: float) -> None:
        """A chain is valid: compare it with what was seen."""
        name, chains = check.name, check.reading.chains
        if self.pins.known.get(name) != check.pinned:
            self._ask(name)  # a call has seen a later one meanwhile, or a person accepted another
        elif check.gives_back:
            for link in self.own.links[len(check.packed) :]:
                self._queries.add(wire.Account(NUMBER, "", requests.pack(requests.Extend(link))))
            self._settle(chains[-1], now)
        elif not chains:
            self._disbelieve(name, "the server answers that this account does not exist", now)
        elif chains[-1].server_id != self._server_id or chains[-1].handle != name:
            self._disbelieve(name, "the server sent somebody else's list of devices", now)
        elif wrong := self.pins.compared(chains):
            self._disbelieve(name, wrong, now)
        else:
            self._settle(chains[-1], now)
            # This client may have created a link meanwhile.
            if name == self._own_name and not self.own.has(check.packed):
                self.own.seen(check.packed)

    def _disbelieve(self, name: str, detail: str, now: float) -> None:
        """Doubt all of a sender. One per turn: all known pairs are looked at."""
        self._suspect(name, detail, now, all_keys=True)
        self._links_left = 0

    def hold(self, packed: list[bytes], chains: list[Chain]) -> None:
        """Compare a requested and verified chain with what was seen of it before.

        Raises:
            DeviceChainError: it is this account's own, and does not extend it: signing a link of it
                would create a fork, and a removed device may become valid again.
        """
        name = chains[-1].handle
        if name == self._own_name:
            for pin in self.own.pins(self.pins.known.get(name), chains):
                if not chain.extends(chains, pin):
                    raise DeviceChainError(changed(chains, pin))
        wrong = self.pins.compared(chains)
        if wrong:
            self._suspect(name, wrong, self._now, all_keys=True)
            return
        self._settle(chains[-1], self._now)
        if name == self._own_name and self.own.keeps:
            self.own.seen(packed)

    # --- decisions of a person --------------------------------------------------------------
    def accept(self, name: str, pin: Pin) -> None:
        """Pin a chain that contradicts what was seen: a person has confirmed it.

        Raises:
            DeviceChainError: it is this account's own, and not begun anew. Its own devices have
                created all of its links, and return them to the server.
        """
        before = self.pins.known.get(name)
        if name == self._own_name:
            if before is not None and before.root == pin.root:
                raise DeviceChainError(
                    "this list of your own devices is forged, or out of date: it cannot be accepted"
                )
            self.own.links = []
        self.pins.put(name, pin)

    def _settle(self, last: Chain, now: float) -> None:
        """A chain is valid: so are the keys that it has, or ever had."""
        self._pending.remove(last.handle)
        one = self._senders.get(last.handle)
        if one is None:
            return
        one.doubt = ""
        ids, strange = last.key_ids(), set()
        for sender_key, room in list(one.keys.items()):
            pair = last.handle, sender_key
            if sender_key in ids:
                del one.keys[sender_key]
                self._unverified.remove(pair)
                self._prove(pair)
            elif self._unverified.put(pair, _NOT_THEIRS):
                strange.add(room)
        one.warned.clear()
        one.again = now + ANSWER_S
        for room in sorted(strange):
            self.warnings.append(DeviceWarning(room, last.handle, _NOT_THEIRS))
        if not one.keys:
            del self._senders[last.handle]
            if not self._senders:
                self._unverified.overflow = False

    def _suspect(self, name: str, detail: str, now: float, *, all_keys: bool = False) -> None:
        """Doubt everything unproved of a sender; ``all_keys``: also what was proved before."""
        self._pending.remove(name)
        one = self._sender(name)
        if one is None:
            if all_keys:  # marked like senders that cannot be looked up
                self._unverified.overflow = True
                self.known.difference_update([pair for pair in self.known if pair[0] == name])
            return
        if one.doubt != detail:
            one.doubt = detail
            one.warned.clear()
        one.again = now + ANSWER_S
        for sender_key in one.keys:
            self._unverified.put((name, sender_key), detail)
        if all_keys:
            for pair in [pair for pair in self.known if pair[0] == name]:
                if self._unverified.add(pair, detail, held=False):
                    one.keys[pair[1]] = ""
                self.known.discard(pair)
        self._warn(name, one, sorted(set(filter(None, one.keys.values())) or {""}))

    def _warn(self, name: str, one: Sender, rooms: Iterable[str]) -> None:
        """Warn the application of a doubt, once per room."""
        for room in rooms:
            if room not in one.warned:
                one.warned.add(room)
                self.warnings.append(DeviceWarning(room, name, one.doubt))


assert links.HASH_BYTES == 32
