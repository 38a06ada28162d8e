"""The blocking client's pump: one socket, read by one of the waiting calls for all of them.

``blocking.BlockingClient`` is the interface; the pump moves bytes. All decisions are made in
``state``. Under gevent several greenlets may wait at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias, cast

from relay.client import fork
from relay.client.address import Address
from relay.client.blocking.posts import BlockingPost, Pending
from relay.client.dialling import dial_tcp, disable_nagle, has_ended
from relay.client.errors import ClientError, KeyFileError
from relay.client.events import State
from relay.client.feed import Feed
from relay.client.options import DIAL_S, READ_BYTES, REST_READS_MAX, WORK_ATTEMPTS
from relay.client.state import ClientState
from relay.client.trust.lineage import ClaimedId
from relay.client.trust.policy import KeyPolicy
from relay.client.unreachable import unreachable
from relay.client.unreported import UnreportedFailures
from relay.errors import UsageError
from relay.wire.messages import Work

SHORTEST_WAIT_S: Final = 0.001
"""A socket with a timeout of 0 would not block at all."""
LONGEST_WAIT_S: Final = 3600.0
"""Always a timeout: then Python waits with poll, and no change of the descriptor's shared flags by
another process turns a wait into an error."""
PAUSED_WAIT_S: Final = 0.1
"""While reading is paused: no system reports the end of a connection separately in a way that
gevent knows, and another greenlet may make space meanwhile. So it is polled."""

Dial: TypeAlias = Callable[[Address, float], socket.socket]
"""Opens a TCP connection within a number of seconds, or raises OSError."""


class Pump:
    """Moves bytes between a client's state and its successive sockets."""

    def __init__(
        self, state: ClientState, address: Address, policy: KeyPolicy, dial: Dial | None
    ) -> None:
        self.state = state
        self.clock = time.monotonic
        self._feed = Feed(state, self.clock)
        self._address = address
        self._policy = policy
        self._open = partial(dial_tcp, history=state.addresses) if dial is None else dial
        self._socket: socket.socket | None = None
        """None between connections."""
        # gevent makes these cooperative.
        self._reading = False
        """True while one caller reads for all."""
        self._read_once = threading.Condition()
        """Notified after each read: the other callers check whether they have what they wait for.
        """
        self._writing = threading.Lock()
        self.asked_s = 0.0
        """Time that a person took to decide about a key; ``connect`` does not count it."""
        self.gathered = 0
        """Number of posts not sent yet."""
        self.failed_post: ClientError | None = None
        """The first failure of a send that was not reported yet."""
        self.unreported = UnreportedFailures()
        """Failures of posts whose outcome the program has not retrieved."""

    @property
    def connected(self) -> bool:
        """True while there is a socket."""
        return self._socket is not None

    def forked(self) -> None:
        """This is a copy in a forked child: the socket belongs to the parent."""
        fork.disconnect(self._socket)
        # Their holders are not in this process.
        self._reading = False
        self._read_once = threading.Condition()
        self._writing = threading.Lock()

    # --- waiting ---------------------------------------------------------------------------------
    def wait(self, met: Callable[[], bool], timeout_s: float | None) -> None:
        """Pump until a condition is met, the time is over, or the client has ended."""
        deadline = None if timeout_s is None else self.clock() + timeout_s
        self.settle()
        while not met():
            if self.state.state is State.CLOSED and self._socket is None:
                return
            if deadline is not None and self.clock() >= deadline:
                return
            self.take_turn(deadline)

    def take_turn(self, until: float | None) -> None:
        """Make one step, or wait while another caller makes one for all.

        A lock would not work: a caller that reads in a loop takes it again before the others have
        run.
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
        # This caller's request may have created a deadline that the reader does not know.
        due = [at for at in (until, self.state.next_deadline()) if at is not None]
        with self._read_once:
            told = self._read_once.wait(max(min(due) - self.clock(), 0.0) if due else None)
        if not told:
            self._feed.deadline()
            self.settle()

    def _step(self, until: float | None) -> None:
        """Dial, wait for the time to dial, or read once; not beyond ``until``."""
        state = self.state
        now = self.clock()
        if state.work is not None:
            self._work(state.work)
        elif self._socket is not None:
            self._read(until)
        elif state.state is State.CLOSED:
            return
        elif state.key.undecided is not None:
            self._decide(state.key.undecided)
        elif state.key.undecided_id is not None:
            self._decide_id(state.key.undecided_id)
        elif state.connect_at is not None and state.connect_at > now:
            pause = state.connect_at - now
            time.sleep(pause if until is None else max(0.0, min(pause, until - now)))
        else:
            self._dial(until)
        self.settle()

    def _dial(self, until: float | None) -> None:
        state, address = self.state, self._address
        if state.needs_credentials is not None:
            try:
                choice = state.options.key_choice
                state.login.credentials = choice.at(state.needs_credentials)
            except ClientError as error:
                state.fail(error)
                return
            except UsageError as error:
                state.fail(KeyFileError(str(error)))
                return
        state.dialling()
        left = DIAL_S if until is None else min(DIAL_S, max(until - self.clock(), SHORTEST_WAIT_S))
        try:
            opened = self._open(address, left)
        except OSError as error:
            state.connect_failed(unreachable(address, error), self.clock())
            return
        disable_nagle(opened)
        self._socket = opened
        state.connection_made(self.clock())

    def _work(self, work: Work) -> None:
        """Compute a part of the server's proof of work; the next step computes the next part."""
        nonce = work.attempt(WORK_ATTEMPTS)
        now = self.clock()
        if nonce is not None:
            self.state.work_done(work, nonce, now)
        else:
            self._feed.deadline()
            time.sleep(0)  # under gevent the others run

    def _read(self, until: float | None) -> None:
        state, opened = self.state, self._socket
        assert opened is not None
        now, deadline = self.clock(), state.next_deadline()
        due = [at for at in (until, deadline) if at is not None]
        timeout = max(min(due) - now, SHORTEST_WAIT_S) if due else LONGEST_WAIT_S
        if state.reading_paused:
            self._rest(opened, timeout)
            return
        try:
            opened.settimeout(timeout)
            data = opened.recv(READ_BYTES)
        except TimeoutError:
            self._feed.deadline()
        except OSError:
            self._feed.eof()
        else:
            if data:
                self._feed.data(data)
            else:
                self._feed.eof()
            if deadline is not None and deadline <= now:
                # After reading: between two calls the program may take long, and what is awaited
                # has arrived. But a server that sends without a pause must not prevent it.
                self._feed.deadline()

    def _rest(self, opened: socket.socket, timeout_s: float) -> None:
        """Wait without reading, because events are not taken; detect the end of the connection."""
        time.sleep(min(timeout_s, PAUSED_WAIT_S))
        if has_ended(opened):
            self._read_rest(opened)
        else:
            self._feed.deadline()

    @staticmethod
    def let_others_run() -> None:
        """Give other greenlets their turn, under gevent."""
        time.sleep(0)

    def sent(self) -> None:
        """Something was queued: send it now."""
        self.settle()

    def settle(self) -> None:
        """Write what is due, and deliver answers."""
        self._flush()
        for token, result in self.state.chat.answers():
            answer = cast("Pending[Any]", token)
            answer.end(result)
            if answer.reported and isinstance(result, ClientError):
                self.failed_post = self.failed_post or result
                if isinstance(answer, BlockingPost):
                    self.unreported.add(answer, result)
        if self.state.login.take_unused_key(self.state.error):
            self.state.options.key_choice.unused()
        seen = self.state.seen()
        if seen is not None:
            self.state.options.key_choice.keep(*seen)
        if self.state.key.changes:
            self._policy.keep(self.state.key.take_changes())

    def _flush(self) -> None:
        state = self.state
        with self._writing:  # bytes must stay in order: the caller that takes them writes them
            data = self._feed.to_send()
            self.gathered = 0
            opened = self._socket
            if opened is None:
                return
            try:
                if data:
                    opened.settimeout(DIAL_S)
                    opened.sendall(data)
            except OSError:
                self._read_rest(opened)
                self._feed.to_send()
            except BaseException:
                # A Ctrl-C, or a greenlet's timeout: half a record may be sent, and the rest is
                # lost.
                self._feed.eof()
                self._feed.to_send()
                self.drop_socket()
                raise
            if not state.connected:
                self.drop_socket()

    def _read_rest(self, opened: socket.socket) -> None:
        """Read what arrived before the connection broke, such as a close record."""
        with contextlib.suppress(OSError):
            opened.settimeout(SHORTEST_WAIT_S)
            for _ in range(REST_READS_MAX):
                data = opened.recv(READ_BYTES)
                if not data:
                    break
                self._feed.data(data)
        self._feed.eof()

    def drop_socket(self) -> None:
        """Close the socket, if there is one."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _decide(self, fingerprint: str) -> None:
        asked_at = self.clock()
        yes = self._policy.question(self._address, fingerprint)
        self.asked_s += self.clock() - asked_at
        if yes is None:
            yes = False  # no answer counts as no
        if not isinstance(yes, bool):
            raise TypeError("a blocking client's key policy answers with a bool")
        refusal = self._policy.answer(self._address, fingerprint, yes)
        if refusal is None:
            self.state.key.trust(fingerprint)
        else:
            self.state.fail(refusal)

    def _decide_id(self, claimed: ClaimedId) -> None:
        refusal = self._policy.claimed(self._address, claimed)
        if refusal is None:
            self.state.key.trust_id(claimed)
        else:
            self.state.fail(refusal)
