"""A worker's client for the key agent: sends ciphertexts, receives secrets, over one connection."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from relay.local_sockets import credentials
from relay.refused_calls import reason
from relay.server.agent.answer import AgentUnavailable, Answer
from relay.server.agent.protocol import (
    AgentProtocolError,
    Frame,
    FrameReader,
    Identity,
    Kind,
    pack_question,
    unpack_hello,
    unpack_ticket_keys,
)
from relay.wire.tickets import TicketKey

REQUEST_DEADLINE_S: Final = 1.0
"""Invariant "The key agent holds the keys". A retry after a lost connection shares the deadline."""
CONNECT_DEADLINE_S: Final = 10.0
"""At the start of a worker: an agent that is being replaced is available again by then."""
RETRY_S: Final = 0.02
RETRY_MAX_S: Final = 0.2
"""Maximum delay between attempts to connect while the agent is being replaced; it doubles."""
PENDING_MAX: Final = 4096
"""Unanswered requests of one worker; each exists at most until its deadline."""


class _Disconnected(Exception):
    """The connection ended before the answer."""


class AgentClient:
    """A connection to the key agent, re-established when it is lost."""

    def __init__(self, path: Path, agent_uid: int | None = None) -> None:
        """Create without connecting.

        Args:
            path: of the agent's socket.
            agent_uid: the user that the agent runs as; None: the same as this process.
        """
        self._path = path
        self._agent_uid = os.geteuid() if agent_uid is None else agent_uid
        self._identity: Identity | None = None
        """None until the first connection."""
        self.on_next_key: Callable[[bytes], None] = _nobody
        """Called with SHA-256 of the next key's SPKI, or b"", when an agent has another one than
        the previous agent."""
        self._why = "it was not asked yet"
        """Why there is no connection."""
        self._link: _Link | None = None
        """None when not connected."""
        self._connecting: asyncio.Task[_Link] | None = None
        """The attempt in progress, if any, which all requests share."""
        self._questions: deque[_Question] = deque()
        """Ordered by deadline. Answered requests stay until their deadline."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while there are requests."""
        self._asking: set[asyncio.Task[None]] = set()
        """Tasks that wait for a connection."""
        self._closed = False
        self._ticket_keys: list[TicketKey] = []
        """The latest ones received."""
        self._install: Callable[[list[TicketKey]], None] | None = None
        """Receives them; None if not set yet."""

    @property
    def identity(self) -> Identity:
        """The server's identity. Available once ``connect`` has returned."""
        if self._identity is None:
            raise AgentUnavailable("the key agent was never reached")
        return self._identity

    def follow_ticket_keys(self, install: Callable[[list[TicketKey]], None]) -> None:
        """Pass the keys that seal tickets to ``install``, now and whenever they change."""
        self._install = install
        install(self._ticket_keys)

    def _take_ticket_keys(self, keys: list[TicketKey]) -> None:
        self._ticket_keys = keys
        if self._install is not None:
            self._install(keys)

    async def connect(self, deadline_s: float = CONNECT_DEADLINE_S) -> None:
        """Connect and receive the public key. Retries until the deadline.

        Raises:
            AgentUnavailable: not reached in time.
        """
        try:
            async with asyncio.timeout(deadline_s):
                await self._connected()
        except TimeoutError:
            raise AgentUnavailable(f"the key agent cannot be reached: {self._why}") from None

    def unwrap(self, ciphertext: bytes, source: str) -> Answer:
        """Return the answer to be: the 32-byte secret in a ciphertext.

        ``source`` is the client's address. An invalid ciphertext yields 32 random bytes, not an
        error (implicit rejection). If the connection is lost, reconnects and asks once more. With a
        connection, the usual case, this is one write, without a task or a timer of its own.

        It fails if there is no answer within a second, or the agent sheds load.
        """
        return self._ask(Kind.UNWRAP, ciphertext, source)

    def prove(self, challenge: bytes, source: str) -> Answer:
        """Return the proof that the next key follows the server's, once it is there: ``unwrap``."""
        return self._ask(Kind.PROVE, challenge, source)

    def _ask(self, kind: Kind, ciphertext: bytes, source: str) -> Answer:
        loop = asyncio.get_running_loop()
        question = _Question(kind, ciphertext, source, loop.time() + REQUEST_DEADLINE_S)
        self._questions.append(question)
        if self._timer is None:
            self._timer = loop.call_at(question.deadline, self._expire)
        if self._link is not None and not self._link.lost:
            self._link.ask(question)
        else:
            self._ask_when_connected(question)
        return question.answer

    def _expire(self) -> None:
        """End the requests whose deadline has passed. All have the same timeout, so these come
        first.

        Called about once a second while there are requests.
        """
        loop = asyncio.get_running_loop()
        now, questions = loop.time(), self._questions
        while questions and (questions[0].deadline <= now or questions[0].answer.done):
            question = questions.popleft()
            if self._link is not None:
                self._link.forget(question)
            question.answer.fail(AgentUnavailable("the key agent did not answer in time"))
        self._timer = loop.call_at(questions[0].deadline, self._expire) if questions else None

    def _link_lost(self, link: _Link) -> None:
        """Reconnect at once: the next agent has new ticket keys.

        Not if the link was never used: then another attempt is under way, or the agent has another
        key and is asked again on demand.
        """
        if not self._closed and link is self._link:
            again = asyncio.ensure_future(self._connected())
            again.add_done_callback(_looked_at)

    def _lost(self, question: _Question) -> None:
        """The connection ended before the answer."""
        if question.asked > 1:
            question.answer.fail(AgentUnavailable("the key agent went away twice"))
        else:
            self._ask_when_connected(question)

    def _ask_when_connected(self, question: _Question) -> None:
        task = asyncio.ensure_future(self._connect_and_ask(question))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _connect_and_ask(self, question: _Question) -> None:
        try:
            async with asyncio.timeout_at(question.deadline):
                link = await self._connected()
        except TimeoutError:
            return  # ``_expire`` reports it
        except AgentUnavailable as error:
            question.answer.fail(error)
            return
        if link.lost:
            self._lost(question)
        else:
            link.ask(question)

    def close(self) -> None:
        """Close. Pending requests fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close()

    async def _connected(self) -> _Link:
        if self._closed:
            raise AgentUnavailable("closed")
        if self._link is not None and not self._link.lost:
            return self._link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._dial())
        # Shielded: a request that times out must not end the attempt for the others.
        return await asyncio.shield(self._connecting)

    async def _dial(self) -> _Link:
        loop = asyncio.get_running_loop()
        pause_s = RETRY_S / 2
        while True:
            pause_s = min(2 * pause_s, RETRY_MAX_S)
            try:
                _, link = await loop.create_unix_connection(
                    lambda: _Link(
                        self._agent_uid, self._lost, self._link_lost, self._take_ticket_keys
                    ),
                    str(self._path),
                )
            except OSError as error:
                self._why = error.strerror or str(error)
                if refused := reason(error):
                    raise AgentUnavailable(f"the key agent cannot be reached: {refused}") from None
                await asyncio.sleep(pause_s)
                continue
            self._why = "it does not answer"
            try:
                identity = await link.hello
            except _Disconnected:
                await asyncio.sleep(pause_s)
                continue
            except asyncio.CancelledError:
                link.close()
                raise
            if link.lost:
                continue  # answered meanwhile
            before = self._identity
            if before is not None and before[::2] != identity[::2]:
                link.close()
                raise AgentUnavailable("the server's key has changed; restart the server")
            self._identity = identity
            self._link = link
            if before is not None and before.next_hash != identity.next_hash:
                self.on_next_key(identity.next_hash)
            return link


def _nobody(_: bytes) -> None:
    """Do nothing: default of ``on_next_key``."""


def _looked_at(task: asyncio.Future[_Link]) -> None:
    """Retrieve the exception: the next request will see the failure."""
    if not task.cancelled():
        task.exception()


class _Question:
    """A request under way."""

    __slots__ = ("answer", "asked", "ciphertext", "deadline", "kind", "request", "source")

    def __init__(self, kind: Kind, ciphertext: bytes, source: str, deadline: float) -> None:
        self.kind = kind
        self.ciphertext = ciphertext
        self.source = source
        self.answer = Answer()
        self.deadline = deadline
        self.asked = 0
        """Number of attempts."""
        self.request = 0
        """Its number on the connection."""


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(
        self,
        agent_uid: int,
        lost: Callable[[_Question], None],
        link_lost: Callable[[_Link], None],
        take_ticket_keys: Callable[[list[TicketKey]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[Identity] = loop.create_future()
        self.lost = False
        self._reader = FrameReader()
        self._agent_uid = agent_uid
        self._on_lost = lost
        self._on_link_lost = link_lost
        self._take_ticket_keys = take_ticket_keys
        self._pending: dict[int, _Question] = {}
        self._next = 1
        self._transport: asyncio.Transport | None = None
        """None until connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop does not register its class as a subclass
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        if credentials(transport.get_extra_info("socket")).uid != self._agent_uid:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except AgentProtocolError:
            self.close()

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.HELLO:
            if not self.hello.done():
                self.hello.set_result(unpack_hello(frame.payload))
        elif frame.kind == Kind.TICKET_KEYS:
            self._take_ticket_keys(unpack_ticket_keys(frame.payload))
        else:
            question = self._pending.get(frame.request)
            if question is None:
                return
            if frame.kind in (Kind.SECRET, Kind.PROOF):
                self.forget(question)
                question.answer.give(frame.payload)
            elif frame.kind == Kind.BUSY:
                self.forget(question)
                question.answer.fail(AgentUnavailable("the key agent is busy"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.hello.done():
            self.hello.set_exception(_Disconnected())
            self.hello.exception()  # nothing may be waiting for it any more
        pending, self._pending = self._pending, {}
        for question in pending.values():
            if not question.answer.done:
                self._on_lost(question)
        self._on_link_lost(self)

    def ask(self, question: _Question) -> None:
        """Send a request.

        It gets its answer, or the owner is notified of a lost link.
        """
        question.asked += 1
        if len(self._pending) >= PENDING_MAX:
            error = AgentUnavailable("too many handshakes wait for the key agent")
            asyncio.get_running_loop().call_soon(question.answer.fail, error)
            return
        assert self._transport is not None
        question.request = request = self._next
        self._next = request % 0xFFFF_FFFF + 1
        self._pending[request] = question
        self._transport.write(
            pack_question(question.kind, request, question.ciphertext, question.source)
        )

    def forget(self, question: _Question) -> None:
        """Stop waiting for the answer."""
        if self._pending.get(question.request) is question:
            del self._pending[question.request]
            question.ciphertext = b""

    def close(self) -> None:
        self.lost = True
        if self._transport is not None:
            self._transport.abort()
