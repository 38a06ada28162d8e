"""The asyncio client's pump: one task that dials, one timer, and the waiting calls.

``aio.Client`` is the interface; the pump moves bytes and wakes tasks. All decisions are made in
``state``.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from functools import partial
from typing import Any, cast

from relay.client.address import Address
from relay.client.aio.background_writer import BackgroundWriter
from relay.client.aio.dial import dial_tcp
from relay.client.aio.line import Line
from relay.client.aio.posts import Post, Sending
from relay.client.aio.thread import in_thread
from relay.client.aio.transport import ClientProtocol
from relay.client.aio.work import solved
from relay.client.errors import ClientClosed, ClientError, KeyFileError
from relay.client.events import State
from relay.client.feed import Feed
from relay.client.options import DIAL_S
from relay.client.state import ClientState
from relay.client.trust.lineage import ClaimedId
from relay.client.trust.policy import KeyPolicy
from relay.client.unreachable import unreachable
from relay.client.unreported import UnreportedFailures
from relay.errors import UsageError
from relay.wire.messages import Work


class Pump:
    """Moves bytes between a client's state and its successive sockets."""

    def __init__(self, state: ClientState, address: Address, policy: KeyPolicy) -> None:
        self.state = state
        self.clock = time.monotonic
        self._feed = Feed(state, self.clock)
        self._address = address
        self._policy = policy
        self._protocol: ClientProtocol | None = None
        """The protocol of the socket; None between connections."""
        self._dialler: asyncio.Task[None] | None = None
        """Connects and reconnects; None before ``start``."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop in which ``start`` was called: calls in another loop would never be woken."""
        self._work: asyncio.Task[None] | None = None
        """Computes a proof of work; None: none is requested."""
        self._writer = BackgroundWriter()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._settle_due = False
        self._readers: dict[str | None, asyncio.Future[None]] = {}
        """Waiting readers, by the room with a queue of its own; None: for any other event."""
        self.space = Line(state)
        """Senders that wait for the window."""
        self._changed: set[asyncio.Future[None]] = set()
        """Calls that wait for a change."""
        self.failed_post: ClientError | None = None
        """The first failure of a post that was not reported yet."""
        self.unreported = UnreportedFailures()
        """Failures of posts whose outcome the program has not retrieved."""

    @property
    def started(self) -> bool:
        """True once ``start`` was called."""
        return self._dialler is not None

    def start(self) -> None:
        """Begin to dial. Raises RuntimeError if it was called in another event loop before."""
        self.check_loop()
        if self._dialler is None:
            self._loop = asyncio.get_running_loop()
            self._dialler = asyncio.create_task(self._dial(), name="relay client")

    def check_loop(self) -> None:
        """Raise RuntimeError in an event loop other than that of ``start``."""
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this client was connected in another event loop: use it there")

    def close_elsewhere(self) -> bool:
        """If this event loop is not that of ``start``, close the client and return True.

        Raises:
            RuntimeError: the loop of ``start`` is running in another thread.
        """
        loop = self._loop
        if loop is None or asyncio.get_running_loop() is loop:
            return False
        if loop.is_running():
            self.check_loop()
        self.state.fail(ClientClosed("the client was closed"))
        if self._protocol is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed with everything in it
                self._protocol.end_now()
        return True

    async def stop(self) -> None:
        """Wait for the end, after the state was told to end. Raises unexpected errors."""
        self.settle()
        dialler = self._dialler
        if dialler is None:
            return
        if self._protocol is None or not self._protocol.connected:
            dialler.cancel()  # during a dial, a pause, or a question to a person
        await asyncio.wait({dialler})
        await self._writer.finish()
        if not dialler.cancelled():
            dialler.result()

    async def abandon(self) -> None:
        """End at once, as after a cancellation: what cannot be sent without waiting is lost."""
        self._end_now(ClientClosed("the client was closed"))
        dialler = self._dialler
        if dialler is not None:
            dialler.cancel()
            await asyncio.wait({dialler})  # a few iterations of the loop: nothing blocks

    def _end_now(self, error: ClientClosed) -> None:
        """End, with a close record if it can be sent without waiting."""
        state = self.state
        state.close(self.clock())
        self._flush()
        state.fail(error)
        self.settle()
        if self._protocol is not None:
            self._protocol.end_now()

    def forked(self) -> None:
        """This is a copy in a forked child: socket and tasks belong to the parent."""
        protocol, self._protocol = self._protocol, None
        self._dialler = self._timer = self._work = self._loop = None
        self._writer = BackgroundWriter()
        self.state.seen()  # the parent keeps it
        self.state.key.take_changes()
        if protocol is not None:
            protocol.forked()
        with contextlib.suppress(RuntimeError):  # the loop belongs to another thread
            self.settle()

    @staticmethod
    async def let_others_run() -> None:
        """Give other tasks their turn."""
        await asyncio.sleep(0)

    async def change(self) -> None:
        """Wait until something has arrived or changed."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.add(change)
        try:
            await change
        finally:
            self._changed.discard(change)

    async def event(self, room: str | None) -> None:
        """Wait for an event, or for the end. Raises RuntimeError if another call waits already."""
        if room in self._readers:
            what = "this client" if room is None else "this room"
            raise RuntimeError(f"another task iterates over {what} already")
        reader = self._readers[room] = asyncio.get_running_loop().create_future()
        try:
            await reader
        finally:
            del self._readers[room]

    def sent(self) -> None:
        """Note that something was queued: sent at the end of this iteration. Wake a sender."""
        self.space.advance()
        self._settle_soon()

    def _settle_soon(self) -> None:
        """Settle once at the end of this loop iteration, however many calls there are.

        Settling does not only write: some answers need no server (a LEAVE between connections).
        """
        if not self._settle_due:
            self._settle_due = True
            asyncio.get_running_loop().call_soon(self.settle)

    def _flush(self) -> None:
        """Write what is due, pause or resume reading, and set the timer."""
        state = self.state
        protocol = self._protocol
        if protocol is not None and protocol.congested and not state.ending:
            self._arm()
            return
        data = self._feed.to_send()
        if protocol is not None:
            if data:
                protocol.write(data)
            if not state.connected:
                protocol.end()
            else:
                protocol.pause(state.reading_paused)
        self._arm()

    def settle(self) -> None:
        """Deliver what has arrived, and write what is due."""
        self._settle_due = False
        state = self.state
        for token, result in state.chat.answers():
            answer = cast("asyncio.Future[Any]", token)
            if isinstance(result, ClientError) and (
                type(answer) is Post or (type(answer) is Sending and answer.cancelled())
            ):
                self.failed_post = self.failed_post or result
                if type(answer) is Post and not answer.done():
                    self.unreported.add(answer, result)
            if answer.done():
                continue
            if isinstance(result, ClientError):
                answer.set_exception(result)
                # It may be dropped without a complaint. This does not mark it as retrieved.
                asyncio.Future.exception(answer)
            else:
                answer.set_result(result)
        if state.work is not None and self._work is None:
            self._work = asyncio.create_task(self._do(state.work), name="relay client")
        self.space.advance()
        for room, reader in self._readers.items():
            if not reader.done() and state.chat.has_event(room):
                reader.set_result(None)
        for change in self._changed:
            if not change.done():
                change.set_result(None)
        if state.login.take_unused_key(state.error):
            self._writer.add(state.options.key_choice.unused)
        seen = state.seen()
        if seen is not None:
            self._writer.add(partial(state.options.key_choice.keep, *seen))
        if state.key.changes:
            self._writer.add(partial(self._policy.keep, state.key.take_changes()))
        self._flush()

    def _arm(self) -> None:
        """Have one timer, due no later than the state's deadline."""
        deadline = self.state.next_deadline()
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(
            max(0.0, deadline - self.clock()), self._on_timer
        )

    def _on_timer(self) -> None:
        self._timer = None
        self._feed.deadline()
        self.settle()

    async def _dial(self) -> None:
        """Connect and reconnect, until the client is closed."""
        state = self.state
        try:
            while state.state is not State.CLOSED:
                if state.connect_at is not None:
                    await self._sleep(state.connect_at - self.clock())
                await self._find_credentials()
                if not self.closed:
                    state.dialling()
                    await self._run_connection()
                    if state.key.undecided is not None:
                        await self._decide(state.key.undecided)
                    elif state.key.undecided_id is not None:
                        await self._decide_id(state.key.undecided_id)
        except Exception as error:
            state.fail(ClientError(str(error)))
            raise
        except asyncio.CancelledError:
            self._cancelled()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.settle()

    def _cancelled(self) -> None:
        """Handle a cancellation of the dialler: by this client, or of all tasks.

        As at the end of ``asyncio.run``: calls that wait for the server would never be woken.
        """
        if not self.closed:
            self._end_now(ClientClosed("the client was closed: its task was cancelled"))

    async def _run_connection(self) -> None:
        """Open one connection and serve it to its end."""
        protocol = ClientProtocol(self.state, self._feed, self.clock, self.settle)
        # Set at once: uvloop may deliver ServerHello before ``create_connection`` returns, and the
        # answer must not be taken from the state when there is nothing to write it.
        self._protocol = protocol
        try:
            connected = await self._connected(protocol)
            self.settle()
            if connected:
                await protocol.gone
        except asyncio.CancelledError:
            self._cancelled()  # while the protocol still exists
            raise
        finally:
            self._protocol = None
            if self._work is not None:
                self._work.cancel()

    async def _connected(self, protocol: ClientProtocol) -> bool:
        """Open the socket. Returns False if that fails; the state has been told."""
        address = self._address
        loop = asyncio.get_running_loop()
        try:
            opened = await dial_tcp(address, DIAL_S, self.state.addresses)
            # From here on the socket belongs to the transport, even if this is cancelled.
            await loop.create_connection(lambda: protocol, sock=opened)
        except OSError as error:
            self.state.connect_failed(unreachable(address, error), self.clock())
            return False
        except asyncio.CancelledError:
            protocol.end_now()  # it may just have been connected
            raise
        return True

    async def _do(self, work: Work) -> None:
        """Compute the server's proof of work."""
        try:
            nonce = await solved(work)
        finally:
            self._work = None
        if nonce is not None:
            self.state.work_done(work, nonce, self.clock())
            self.settle()

    async def _decide(self, fingerprint: str) -> None:
        """Ask about an unknown key. There is no connection meanwhile."""
        yes = self._policy.question(self._address, fingerprint)
        if inspect.isawaitable(yes):
            yes = await yes
        if yes is None:
            yes = False  # no answer counts as no
        if not isinstance(yes, bool):  # a typed "no" would be true
            raise TypeError(f"a key policy answers with a bool, not {type(yes).__name__}")
        accepted = yes
        # It may wait for another program's lock, and for the disk.
        refusal = await in_thread(lambda: self._policy.answer(self._address, fingerprint, accepted))
        if self.closed:
            return
        if refusal is None:
            self.state.key.trust(fingerprint)
        else:
            self.state.fail(refusal)

    async def _decide_id(self, claimed: ClaimedId) -> None:
        """Look up an id that the server claims: in files, so in a thread."""
        refusal = await in_thread(lambda: self._policy.claimed(self._address, claimed))
        if self.closed:
            return
        if refusal is None:
            self.state.key.trust_id(claimed)
        else:
            self.state.fail(refusal)

    async def _find_credentials(self) -> None:
        """Find the client's key for this server, once: in files, so in a thread."""
        server_id = self.state.needs_credentials
        if server_id is None:
            return
        choice = self.state.options.key_choice
        try:
            if choice.needs_files:
                found = await in_thread(lambda: choice.at(server_id))
            else:
                found = choice.at(server_id)
        except ClientError as error:
            self.state.fail(error)
        except UsageError as error:
            self.state.fail(KeyFileError(str(error)))
        else:
            self.state.login.credentials = found

    async def _sleep(self, delay_s: float) -> None:
        """Wait, but not beyond the client's end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, delay_s)):
                while not self.closed:
                    await self.change()

    @property
    def closed(self) -> bool:
        """True once nothing arrives any more."""
        return self.state.state is State.CLOSED
