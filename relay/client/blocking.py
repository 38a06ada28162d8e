"""The blocking client: a thin pump around ``state`` over a plain socket. No loop, no threads.

It reads its socket only while one of its methods runs: ``events``, ``pump``, or a call that waits
for an answer. A program that does nothing of that for a minute loses its connection, and resumes
with the next call. Under gevent (patched before this is imported) several greenlets may share a
client: whoever waits for an answer reads for all of them. It is not for several threads.

Usage::

    with BlockingClient("relay://FINGERPRINT@HOST:PORT", name="alice") as client:
        client.join("lobby", last=20)
        client.send("lobby", "hello")
        for event in client.events(timeout=1.0):
            ...
"""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self, TypeAlias, cast

from relay.chat.entries import Cursor
from relay.client import arguments, fork
from relay.client.address import Address
from relay.client.dialling import dial_tcp, disable_nagle
from relay.client.errors import ClientClosed, ClientError, ConnectFailed
from relay.client.events import Event, HistoryPage, Joined, Members, State, Stored
from relay.client.base import ClientBase, target
from relay.client.identity import Identity
from relay.client.options import (
    CLOSE_S,
    CONNECT_S,
    DIAL_S,
    LINGER_S,
    READ_BYTES,
    REST_READS_MAX,
    WORK_ATTEMPTS,
    make_options,
)
from relay.client.state import ClientState
from relay.client.trust import KeyPolicy
from relay.client.unreachable import unreachable
from relay.wire.messages import Work

SHORTEST_WAIT_S: Final = 0.001
"""A socket with a timeout of 0 would not block at all."""
LONGEST_WAIT_S: Final = 3600.0
"""Always a timeout: then Python waits by poll, and no flag of the descriptor that somebody else
sets or clears (it is shared with whoever inherited it) turns a wait into an error."""
GATHER_MAX: Final = 64
"""Posts that leave as one write."""


Dial: TypeAlias = Callable[[Address, float], socket.socket]
"""Opens a TCP connection within so many seconds, or raises OSError."""


class Pending:
    """The outcome of a call, to come."""

    __slots__ = ("posted", "result")

    def __init__(self, posted: bool = False) -> None:
        self.result: object = _NOTHING
        self.posted = posted

    @property
    def done(self) -> bool:
        """True when the outcome is known."""
        return self.result is not _NOTHING

    def outcome(self) -> object:
        """Return the result, or raise the error. It must be done."""
        assert self.done
        if isinstance(self.result, ClientError):
            raise self.result
        return self.result


class BlockingClient(ClientBase):
    """A client on a plain socket. The same names and behaviour as ``aio.Client``."""

    def __init__(
        self,
        address: str | Address,
        *,
        name: str | None = None,
        display: str = "",
        key_policy: KeyPolicy | None = None,
        identity: Identity | None = None,
        reconnect: bool = True,
        window: int = 256,
        retry_timeout_s: float | None = None,
        agent: str = "",
        dial: Dial | None = None,
    ) -> None:
        """Prepare; ``with`` or ``connect`` connects. Arguments as ``aio.Client``, and one more.

        ``dial`` opens each connection: for a source address of one's own, or through a proxy.

        Raises:
            UsageError: the address, or the known-servers file.
        """
        self.address, self._policy, expected_key = target(address, key_policy)
        options = make_options(
            name=name,
            identity=identity,
            display=display,
            agent=agent,
            expected_key=expected_key,
            reconnect=reconnect,
            window=window,
            retry_timeout_s=retry_timeout_s,
            random_bytes=secrets.token_bytes,
            jitter=random.random,
        )
        self._state = ClientState(options)
        self._clock = time.monotonic
        self._socket: socket.socket | None = None
        """None between connections."""
        self._open = dial_tcp if dial is None else dial
        # gevent makes these cooperative.
        self._reading = False
        """True while one caller reads for everybody."""
        self._read_once = threading.Condition()
        """Told after each read: the others look whether they have what they wait for."""
        self._writing = threading.Lock()
        self._asked_s = 0.0
        """What a person took to decide about a key; ``connect`` does not count it."""
        self._gathered = 0
        """Posts that have not left."""
        self._failed_post: ClientError | None = None
        fork.register(self)

    def _forked(self) -> None:
        fork.disconnect(self._socket)
        # Whoever held them is not in this process.
        self._reading = False
        self._read_once = threading.Condition()
        self._writing = threading.Lock()
        self._state.forked(fork.forked_error())

    # --- life ------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(0.0 if kind is not None else CLOSE_S)

    def connect(self, timeout_s: float = CONNECT_S) -> None:
        """Connect and log in. Raises as ``aio.Client.connect``."""
        timeout_s = arguments.seconds("timeout_s", timeout_s)
        state = self._state
        self._started = True
        try:
            until = self._clock() + timeout_s
            while state.state is not State.CLOSED and state.state is not State.ONLINE:
                left = until + self._asked_s - self._clock()
                if left <= 0:
                    break
                self._wait(lambda: state.state is State.ONLINE, left)
        except BaseException:
            state.close(self._clock())
            self._settle()
            state.fail(ClientClosed("the client was closed"))
            self._drop_socket()
            raise
        if state.state is not State.ONLINE:
            state.fail(state.last_problem or ConnectFailed(f"no answer from {self.address}"))
            self._settle()
            raise state.error or ConnectFailed("the client was closed")

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Wait for unacknowledged sends, at most so long, and end the connection cleanly."""
        timeout_s = arguments.seconds("timeout_s", timeout_s)
        state = self._state
        try:
            if self._socket is not None or state.connect_at is not None:
                self._wait(lambda: not state.unacknowledged, timeout_s)
        finally:
            state.close(self._clock())
            self._settle()
            self._wait(lambda: self._socket is None, LINGER_S)
            self._drop_socket()

    # --- reading ---------------------------------------------------------------------------------
    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield events as they come, and stop when none came for ``timeout`` seconds (None: never).

        Raises:
            ClientError: the client has ended, other than by ``close``.
        """
        while True:
            event = self.next_event(timeout)
            if event is None:
                return
            yield event

    def next_event(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None when none came in time, or the client was closed."""
        self._check_started()
        timeout = arguments.seconds_or_none("timeout", timeout)
        state = self._state
        if not state.has_event:
            self._wait(lambda: state.has_event, timeout)
        paused = state.reading_paused
        event = state.take()
        if event is None and state.error is not None:
            raise state.error
        if paused and not state.reading_paused:
            self._settle()
        return event

    def pump(self, timeout: float = 0.0) -> None:
        """Read once, for at most ``timeout`` seconds: keeps the connection and takes in answers."""
        self._check_started()
        self._take_turn(self._clock() + arguments.seconds("timeout", timeout))

    def join(
        self, room: str, last: int = 0, *, since: int | None = None, cursor: Cursor | None = None
    ) -> Joined:
        """Follow a room: its last entries, or those after a seq or a cursor, and what comes."""
        self._check_started()
        start, last = arguments.join_start(last, since, cursor)
        answer = Pending()
        self._state.join(room, start, last, answer)
        try:
            return cast(Joined, self._answered(answer))
        except BaseException:  # a Ctrl-C, or a greenlet that is killed
            if not answer.done:
                self._state.cancel_join(room, answer)
            raise

    def leave(self, room: str) -> Cursor | None:
        """Stop subscription; return where the program stood."""
        self._check_started()
        answer = Pending()
        cursor = self._state.leave(room, answer)
        self._answered(answer)
        return cursor

    def who(self, room: str) -> Members:
        """Return who follows a room. It must be joined."""
        self._check_started()
        answer = Pending()
        self._state.who(room, answer)
        return cast(Members, self._answered(answer))

    def history(
        self, room: str, *, before: int | None = None, after: int | None = None, count: int = 100
    ) -> HistoryPage:
        """Return a page of a joined room: below ``before``, above ``after``, or the newest."""
        self._check_started()
        forward, seq, count = arguments.page_start(before, after, count)
        answer = Pending()
        self._state.history(room, forward, seq, count, answer)
        return cast(HistoryPage, self._answered(answer))

    # --- sending ---------------------------------------------------------------------------------
    def send(self, room: str, body: str | bytes, *, content_type: str = "text/plain") -> Stored:
        """Append a message and wait until it is stored. Raises as ``aio.Client.send``."""
        answer = Pending()
        self._submit(room, body, content_type, answer)
        return cast(Stored, self._answered(answer))

    def post(self, room: str, body: str | bytes, *, content_type: str = "text/plain") -> Pending:
        """Append a message; wait only for space in the window.

        It leaves with the next call that waits or pumps, or once ``GATHER_MAX`` have gathered.
        """
        answer = Pending(posted=True)
        self._submit(room, body, content_type, answer)
        self._gathered += 1
        if self._gathered >= GATHER_MAX:
            self._settle()
        return answer

    def flush(self) -> None:
        """Wait until every send has its outcome; raise the first failure of a post since then."""
        self._check_started()
        self._wait(lambda: not self._state.unacknowledged, None)
        failed, self._failed_post = self._failed_post, None
        if failed is not None:
            raise failed

    def _submit(self, room: str, body: str | bytes, content_type: str, answer: Pending) -> None:
        self._check_started()
        data = arguments.body_bytes(body)
        state = self._state
        if not state.has_space(len(data)):
            self._wait(lambda: state.has_space(len(data)), None)
        state.send(room, content_type, data, answer)

    def _answered(self, answer: Pending) -> object:
        self._wait(lambda: answer.done, None)
        return answer.outcome()

    # --- the pump --------------------------------------------------------------------------------
    def _wait(self, met: Callable[[], bool], timeout: float | None) -> None:
        """Pump until a condition is met, the time is over, or the client has ended."""
        deadline = None if timeout is None else self._clock() + timeout
        self._settle()
        while not met():
            if self._state.state is State.CLOSED and self._socket is None:
                return
            if deadline is not None and self._clock() >= deadline:
                return
            self._take_turn(deadline)

    def _take_turn(self, until: float | None) -> None:
        """Make one step, or wait while somebody else makes one for everybody.

        A lock would not do: whoever reads in a loop takes it again before the others have run.
        """
        if not self._reading:
            self._reading = True
            try:
                self._step(until)
            finally:
                self._reading = False
                with self._read_once:
                    self._read_once.notify_all()
            return
        # What this caller asked for may have brought a deadline that the reader does not know of.
        due = [at for at in (until, self._state.next_deadline()) if at is not None]
        with self._read_once:
            told = self._read_once.wait(max(min(due) - self._clock(), 0.0) if due else None)
        if not told:
            self._state.handle_deadline(self._clock())
            self._settle()

    def _step(self, until: float | None) -> None:
        """Dial, wait for the time to dial, or read once; not beyond ``until``."""
        state = self._state
        now = self._clock()
        if state.work is not None:
            self._work(state.work)
        elif self._socket is not None:
            self._read(until)
        elif state.state is State.CLOSED:
            return
        elif state.undecided_key is not None:
            self._decide(state.undecided_key)
        elif state.connect_at is not None and state.connect_at > now:
            pause = state.connect_at - now
            time.sleep(pause if until is None else max(0.0, min(pause, until - now)))
        else:
            self._dial(until)
        self._settle()

    def _dial(self, until: float | None) -> None:
        state, address = self._state, self.address
        state.dialling()
        left = DIAL_S if until is None else min(DIAL_S, max(until - self._clock(), SHORTEST_WAIT_S))
        try:
            opened = self._open(address, left)
        except OSError as error:
            state.connect_failed(unreachable(address, error), self._clock())
            return
        disable_nagle(opened)
        self._socket = opened
        state.connection_made(self._clock())

    def _work(self, work: Work) -> None:
        """Do a piece of the server's proof of work; the next step does the next one."""
        nonce = work.attempt(WORK_ATTEMPTS)
        now = self._clock()
        if nonce is not None:
            self._state.work_done(work, nonce, now)
        else:
            self._state.handle_deadline(now)
            time.sleep(0)  # under gevent the others go on

    def _read(self, until: float | None) -> None:
        state, opened = self._state, self._socket
        assert opened is not None
        if state.reading_paused:
            return
        due = [at for at in (until, state.next_deadline()) if at is not None]
        timeout = max(min(due) - self._clock(), SHORTEST_WAIT_S) if due else LONGEST_WAIT_S
        try:
            opened.settimeout(timeout)
            data = opened.recv(READ_BYTES)
        except TimeoutError:
            state.handle_deadline(self._clock())
        except OSError:
            state.receive_eof(self._clock())
        else:
            if data:
                state.receive_data(data, self._clock())
            else:
                state.receive_eof(self._clock())

    def _settle(self) -> None:
        """Write what is due, and hand out answers."""
        self._flush()
        for token, result in self._state.answers():
            answer = cast(Pending, token)
            answer.result = result
            if answer.posted and isinstance(result, ClientError):
                self._failed_post = self._failed_post or result

    def _flush(self) -> None:
        state = self._state
        with self._writing:  # bytes have an order: whoever takes them writes them
            data = state.data_to_send(self._clock())
            self._gathered = 0
            opened = self._socket
            if opened is None:
                return
            try:
                if data:
                    opened.settimeout(DIAL_S)
                    opened.sendall(data)
            except OSError:
                self._read_rest(opened)
                state.data_to_send(self._clock())
            except BaseException:
                # A Ctrl-C, or a greenlet's timeout: half a record may be out, and the rest is gone.
                state.receive_eof(self._clock())
                state.data_to_send(self._clock())
                self._drop_socket()
                raise
            if not state.connected:
                self._drop_socket()

    def _read_rest(self, opened: socket.socket) -> None:
        """Take what had come before the connection broke: it may be a close record, with why."""
        state = self._state
        with contextlib.suppress(OSError):
            opened.settimeout(SHORTEST_WAIT_S)
            for _ in range(REST_READS_MAX):
                data = opened.recv(READ_BYTES)
                if not data:
                    break
                state.receive_data(data, self._clock())
        state.receive_eof(self._clock())

    def _drop_socket(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _decide(self, fingerprint: str) -> None:
        asked_at = self._clock()
        yes = self._policy.question(self.address, fingerprint)
        self._asked_s += self._clock() - asked_at
        if not isinstance(yes, bool):
            raise TypeError("a blocking client's key policy answers with a bool")
        refusal = self._policy.answer(self.address, fingerprint, yes)
        if refusal is None:
            self._state.trust_key(fingerprint)
        else:
            self._state.fail(refusal)


_NOTHING: Final = object()
