"""The links of one worker to all others: listening, dialling, and tracking which are up.

Each worker listens on ``DIR/INDEX.GENERATION.sock`` (the directory has mode 0700). Of two workers
the one with the greater generation dials, so there is one link between any two. It introduces
itself, and the kernel's peer credentials must match. A socket whose name has been removed is
replaced.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from relay.bus.link import Link, LinkOwner
from relay.bus.messages import Introduction, Message
from relay.local_sockets import NamedListener, remove_earlier
from relay.reopening import Reopening

BACKLOG: Final = 256
"""All other workers may dial at the same time."""

log = logging.getLogger("relay.bus")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another worker, according to the supervisor's table."""

    index: int
    generation: int
    pid: int


class Mesh:
    """The links of one worker to all others."""

    def __init__(
        self,
        directory: Path,
        index: int,
        generation: int,
        peers: Callable[[], list[Peer]],
        owner: LinkOwner,
        wake: Callable[[], None],
        links: dict[int, Link],
        first_generation: int = 0,
    ) -> None:
        """Create; ``start`` begins to listen.

        Args:
            directory: private to the server.
            index: this worker's slot.
            generation: this worker's generation, unique among all workers that ever lived.
            peers: returns the other workers that should be up now.
            owner: receives events of links, and messages.
            wake: requests a turn, at whose end ``flush`` is called.
            links: updated with the links that are up, by the other worker's slot.
            first_generation: lower ones belong to another server, which may still run.
        """
        self._directory = directory
        self._index = index
        self._generation = generation
        self._first_generation = first_generation
        self._peers = peers
        self._owner = owner
        self._wake_turn = wake
        self._listener = NamedListener(self.path(directory, index, generation), BACKLOG)
        self._server: asyncio.Server | None = None
        """None until it listens."""
        self._reopening = Reopening(self._listener, self._listen_again)
        self._dials: dict[int, asyncio.Task[None]] = {}
        self._unknown: set[Link] = set()
        self.waiting: dict[Link, None] = {}
        """Links with something to write: then ``flush`` must be called."""
        self.links = links

    @staticmethod
    def path(directory: Path, index: int, generation: int) -> Path:
        """Return the path of a worker's listening socket."""
        return directory / f"{index}.{generation}.sock"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be created.
        """
        remove_earlier(self._directory, self._index, self._first_generation)
        await self._listen()

    async def _listen(self) -> None:
        before, loop = self._server, asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accepted, sock=self._listener.open())
        if before is not None:
            before.close()

    def check(self) -> None:
        """Listen again if others can no longer dial this worker. Called about once a second."""
        self._reopening.check()

    async def _listen_again(self) -> None:
        path = str(self._listener.path)
        try:
            await self._listen()
        except OSError as error:
            log.warning("bus_socket_failed", extra={"path": path, "reason": error.strerror})
        else:
            log.warning("bus_socket_replaced", extra={"path": path})

    def close(self) -> None:
        """Stop listening and drop all links."""
        for task in self._dials.values():
            task.cancel()
        self._reopening.cancel()
        if self._server is not None:
            self._server.close()
        self._listener.remove()
        for link in [*self.links.values(), *self._unknown]:
            link.abort()

    def dial(self) -> None:
        """Dial older workers without a link. Called every fraction of a second."""
        for peer in self._peers():
            if peer.generation >= self._generation:
                continue
            link = self.links.get(peer.index)
            if link is not None and link.generation == peer.generation:
                continue
            if peer.generation not in self._dials:
                task = asyncio.ensure_future(self._dial(peer))
                self._dials[peer.generation] = task
                task.add_done_callback(partial(self._dialled, peer.generation))

    def _dialled(self, generation: int, _: asyncio.Task[None]) -> None:
        del self._dials[generation]

    def flush(self) -> None:
        """Write what every link has queued."""
        waiting = list(self.waiting)
        self.waiting.clear()
        for link in waiting:
            link.flush()

    # --- inside -------------------------------------------------------------------------------
    def _link(self) -> Link:
        link = Link(self._owner, self._woken, self._introduced, self._lost)
        self._unknown.add(link)
        return link

    def _accepted(self) -> Link:
        return self._link()

    async def _dial(self, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        path = self.path(self._directory, peer.index, peer.generation)
        link = self._link()
        try:
            await loop.create_unix_connection(lambda: link, os.fspath(path))
        except OSError:
            self._unknown.discard(link)
            return  # not listening yet, or gone: tried again in the next round
        link.send(Introduction(self._index, self._generation))
        self._up(link, peer.index, peer.generation)

    def _introduced(self, link: Link, message: Message) -> bool:
        """Take the first message of a worker that dialled this one."""
        if not isinstance(message, Introduction):
            return False
        peer = link.peer()
        expected = Peer(message.worker, message.generation, peer.pid)
        if not peer.ours or expected not in self._peers():
            log.warning("bus_stranger_refused", extra={"peer_pid": peer.pid})
            return False
        self._up(link, message.worker, message.generation)
        return True

    def _up(self, link: Link, index: int, generation: int) -> None:
        old = self.links.get(index)
        self._unknown.discard(link)
        link.index, link.generation, link.up = index, generation, True
        self.links[index] = link
        if old is not None:
            old.abort()
            old.up = False
            self._owner.link_down(old)
        self._owner.link_up(link)

    def _lost(self, link: Link) -> None:
        self._unknown.discard(link)
        self.waiting.pop(link, None)
        if self.links.get(link.index) is link:
            del self.links[link.index]

    def _woken(self, link: Link) -> None:
        if link not in self.waiting:
            self.waiting[link] = None
            self._wake_turn()
