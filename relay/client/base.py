"""What the asyncio and the blocking client share, and their public attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NoReturn, Protocol, TypeVar

from relay import limits
from relay.chat.entries import Cursor
from relay.chat.rooms.requests import ANYTHING_SEEN
from relay.client import arguments
from relay.client.address import Address, parse_address
from relay.client.chat_state import ChatState
from relay.client.devices.proof import Key
from relay.client.errors import ClientError, MessagesMissing, NotConnected, TimedOut
from relay.client.events import Event, Gap, Message, State, Unfollowed
from relay.client.identity import Identity
from relay.client.options import Options
from relay.client.refusals import refused
from relay.client.state import ClientState
from relay.client.trust.lineage import Expected
from relay.client.trust.policy import KeyPolicy
from relay.client.unreported import UnreportedFailures
from relay.wire.codes import ErrorCode


class AnyPump(Protocol):
    """What the pumps of both clients provide."""

    clock: Callable[[], float]
    """Monotonic seconds."""
    failed_post: ClientError | None
    """The first failure of a send that was not reported yet."""
    unreported: UnreportedFailures
    """Failures of posts whose outcome the program has not retrieved."""

    def settle(self) -> None:
        """Write what is due, and deliver answers."""


class ClientBase:
    """A client as seen by its program; driven by ``aio.Client`` and ``blocking.BlockingClient``."""

    address: Address
    """The relay's address."""
    _pump: AnyPump
    _started = False
    """True from the first ``connect``."""

    def __init__(self, options: Options) -> None:
        self._given = options.identity
        self._answer_timeout_s = options.answer_timeout_s
        self._state = ClientState(options)
        self._chat: ChatState = self._state.chat

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied, or sent to another process."""
        raise TypeError("a client cannot be copied or pickled: make one in each process")

    @property
    def device_key(self) -> Key | None:
        """The key that this client logs in with; None: a guest, or the server is not known yet."""
        known = self._state.login.credentials
        return None if known is None else known.key

    def _check_started(self) -> None:
        if not self._started:
            raise NotConnected("not connected: call connect() first, or use the client in a 'with'")

    def _time_limit(self, timeout: float | None) -> float | None:
        """Return how many seconds a call waits for its answer; None: for ever."""
        if timeout is None:
            return self._answer_timeout_s
        return arguments.seconds("timeout", timeout)

    def _take(self, room: str | None) -> Event | None:
        """Return the next event, if any; raise the reason if the client has ended."""
        state, chat = self._state, self._chat
        event = chat.take(room)
        if chat.rooms.flush_due:
            self._pump.settle()
        if event is None and state.state is State.CLOSED and state.error is not None:
            raise state.error
        return event

    def _check_flushed(self) -> None:
        """Raise what ``flush`` raises, after it has waited."""
        if self.unacknowledged:
            raise TimedOut(f"{self.unacknowledged} sends without an outcome")
        failed, self._pump.failed_post = self._pump.failed_post, None
        self._pump.unreported.clear()
        if failed is not None:
            raise failed

    def _seen(self, room: str, seen: int | None) -> int:
        """Return up to which change a room's requester has seen the room."""
        if seen is not None:
            return arguments.integer("seen", seen, 0, limits.U63_MAX)
        return self._chat.queue.changes.get(room, ANYTHING_SEEN)

    def _server_time_ms(self) -> int | None:
        """Return the server's clock: it decides what has expired, whatever this machine's is."""
        return self._chat.server_time_ms(self._pump.clock())

    @property
    def name(self) -> str:
        """The client's name, in the server's spelling."""
        return self._state.name

    @property
    def registered(self) -> bool:
        """Whether this client has claimed its name, or has had its claim confirmed."""
        return self._state.login.registered

    @property
    def state(self) -> State:
        """Whether the client is connecting, online, waiting for its next attempt, or closed."""
        return self._state.state

    @property
    def server_fingerprint(self) -> str | None:
        """The fingerprint of the server's key; None before it is known."""
        return self._state.key.fingerprint

    @property
    def server_id(self) -> str | None:
        """The fingerprint of the server's first key, under which keys are kept; None: not known."""
        known = self._state.login.credentials
        return None if known is None else known.server_id

    @property
    def cursors(self) -> dict[str, Cursor]:
        """For each joined room, the last message that the program took: save these."""
        return dict(self._chat.queue.taken)

    @property
    def room_identities(self) -> dict[str, bytes]:
        """Which rooms this client means, by name: of those that it has joined, created or entered.

        Save one with a message, and pass it to ``send`` or ``post`` after a restart of the program.
        A room that nobody has written in yet has none.
        """
        return self._chat.rooms.subscriptions.identities()

    @property
    def identity(self) -> Identity:
        """This instance's identity, with its current counters: save it, and keep it secret."""
        account = self._state.login.account
        # Before the first login nothing was sent, so the owner of the counters is still open.
        counters = self._chat.sends.counters() if account else {}
        return Identity(self._given.secret, counters, account)

    @property
    def unacknowledged(self) -> int:
        """The number of sends without an outcome."""
        return self._chat.sends.count

    @property
    def statistics(self) -> dict[str, int]:
        """Counts since the start.

        ``logins``; ``resumptions``: connections whose handshake was shortened by a ticket;
        ``resent``: messages that were sent again; ``repeats``: messages that arrived again and were
        dropped; ``rejoins``: how often a room was joined again because messages were missing (a
        fault of the server); ``suspensions``: how often all rooms were left until the program had
        taken its events, because the queue was full while an answer was awaited.
        """
        return {
            "logins": self._state.logins,
            "resumptions": self._state.resumptions,
            "resent": self._chat.sends.resent,
            "repeats": self._chat.rooms.subscriptions.repeats,
            "rejoins": self._chat.rooms.rejoins,
            "suspensions": self._chat.rooms.suspensions,
        }


Calls = TypeVar("Calls", bound=ClientBase)


class RoomBase(Generic[Calls]):
    """One room of a client, as seen by its program."""

    def __init__(self, calls: Calls, name: str, start: Cursor | None, last: int) -> None:
        self.name = calls._chat.log_name(name)
        """Of the room, in its canonical spelling."""
        self._calls = calls
        self._start = start
        self._last = last

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def cursor(self) -> Cursor | None:
        """The last message that the program took: save it. None: the room is not joined."""
        return self._calls.cursors.get(self.name)

    @property
    def identity(self) -> bytes:
        """Which room of this name it is: see ``room_identities`` of the client; empty: unknown."""
        return self._calls.room_identities.get(self.name, b"")


def no_answer(timeout_s: float | None, what: str = "") -> TimedOut:
    """Return the error of a call whose answer took too long."""
    return TimedOut(f"{what}{': ' if what else ''}no answer within {timeout_s:g} s")


def not_sent(timeout_s: float | None) -> TimedOut:
    """Return the error of a send or post that waited too long for space."""
    return TimedOut(f"not sent: no space in the window within {timeout_s:g} s")


def not_acknowledged(timeout_s: float | None) -> TimedOut:
    """Return the error of a send whose outcome took too long."""
    return TimedOut(f"not acknowledged within {timeout_s:g} s: it may or may not be stored")


def message_of(event: Event) -> Message | None:
    """Return the message in an event; None for events that readers of messages can ignore.

    Raises:
        MessagesMissing: it is a gap.
        NotAMember: the room was lost.
    """
    if isinstance(event, Message):
        return event
    if isinstance(event, Gap):
        raise MessagesMissing(
            f"messages of {event.room} will not come: those after {event.start.seq}, up to"
            f" {event.end.seq}",
            event,
        )
    if isinstance(event, Unfollowed):
        raise refused(ErrorCode.NOT_A_MEMBER, 0, event.detail)
    return None


def target(
    address: str | Address, key_policy: KeyPolicy | None
) -> tuple[Address, KeyPolicy, Expected | None]:
    """Return the address, the policy for its key, and the key that is expected there.

    Raises:
        UsageError: the address, or the known-servers file.
    """
    if not isinstance(address, str | Address):
        raise TypeError(f"address must be a str or an Address, not {type(address).__name__}")
    if key_policy is not None and not isinstance(key_policy, KeyPolicy):
        raise TypeError(f"key_policy must be a KeyPolicy, not {type(key_policy).__name__}")
    place = parse_address(str(address))  # an Address is parsed, too: it accepts any fields
    policy = KeyPolicy() if key_policy is None else key_policy
    return place, policy, policy.expected(place)
