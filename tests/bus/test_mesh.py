"""Links between workers over real sockets: who is accepted, what is sent first, what is dropped."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from relay.bus import link as link_module
from relay.bus.link import Link
from relay.bus.mesh import Mesh, Peer
from relay.bus.messages import Announced, Batch, Evict, Heads, Introduction, Message, Subscribe
from relay.bus.packing import pack
from tests.support.cluster import DEADLINE_S, until

EPOCH = b"epoch..."


def _batch(number: int, log: str = "lobby", size: int = 60_000) -> Batch:
    return Batch(log, number - 1, EPOCH, number, 1, number.to_bytes(4, "big").ljust(size, b"."))


class Worker:
    """One worker's end of the bus, recording events."""

    def __init__(self, directory: Path, index: int, generation: int) -> None:
        self.me = Peer(index, generation, os.getpid())
        self.peers: list[Peer] = []
        self.links: dict[int, Link] = {}
        self.got: list[Message] = []
        self.happened: list[str] = []
        self.answer: Callable[[Link, Message], None] = lambda _link, _message: None
        self.head = 0
        """Heads by log, for ``heads_due``."""
        self._woken = False
        self.mesh = Mesh(
            directory, index, generation, lambda: self.peers, self, self._wake, self.links
        )

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._woken = False
        self.mesh.flush()

    # --- LinkOwner ----------------------------------------------------------------------------
    def link_up(self, link: Link) -> None:
        self.happened.append(f"up {link.index}.{link.generation}")

    def link_down(self, link: Link) -> None:
        self.happened.append(f"down {link.index}.{link.generation}")

    def received(self, port: object, message: Message) -> None:
        assert isinstance(port, Link)
        self.got.append(message)
        self.answer(port, message)

    def heads_due(self, link: Link) -> None:
        link.send(Heads([[log, EPOCH, self.head] for log in link.dropped]))


@asynccontextmanager
async def _workers(directory: Path, count: int) -> AsyncIterator[list[Worker]]:
    workers = [Worker(directory / "bus", index, 10 + index) for index in range(count)]
    for worker in workers:
        worker.peers = [other.me for other in workers if other is not worker]
        await worker.mesh.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.mesh.close()
        await until(lambda: not any(w.links or w.mesh._unknown for w in workers), "the end")


async def _meet(workers: list[Worker]) -> None:
    for worker in workers:
        worker.mesh.dial()
    await until(
        lambda: all(len(worker.links) == len(workers) - 1 for worker in workers), "all links"
    )


async def test_everybody_meets_everybody_once(tmp_path: Path) -> None:
    """The younger dials; there is one link between two, and it is not dialled again."""
    async with _workers(tmp_path, 3) as workers:
        await _meet(workers)
        for worker in workers:
            worker.mesh.dial()
        for worker in workers:
            for link in worker.links.values():
                link.send(Announced(worker.me.generation))
        await until(lambda: all(len(w.got) == 2 for w in workers), "a word from each")
        for worker in workers:
            others = [w.me for w in workers if w is not worker]
            assert sorted(worker.happened) == [f"up {p.index}.{p.generation}" for p in others]
            assert {m.generation for m in worker.got if isinstance(m, Announced)} == {
                p.generation for p in others
            }
        assert (tmp_path / "bus").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "words",
    [
        pack(Introduction(1, 12)),  # not the generation in the table
        pack(Introduction(2, 11)),  # not the slot
        pack(Introduction(0, 10)),  # it claims to be the listener itself
        pack(Evict(1)),
        pack(Evict(1)) + pack(Introduction(1, 11)),
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
    ],
)
async def test_strangers_are_refused(tmp_path: Path, words: bytes) -> None:
    """A peer that is not in the table, or does not introduce itself, is dropped without an
    answer.
    """
    async with _workers(tmp_path, 1) as (worker,):
        worker.peers = [Peer(1, 11, os.getpid())]
        reader, writer = await asyncio.open_unix_connection(str(Mesh.path(tmp_path / "bus", 0, 10)))
        writer.write(words + pack(Subscribe("lobby")))
        async with asyncio.timeout(DEADLINE_S):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert worker.links == {}
        assert worker.got == []
        assert worker.happened == []


async def test_another_process_is_refused(tmp_path: Path) -> None:
    """The kernel reports the peer's pid: a valid introduction from another process is refused."""
    async with _workers(tmp_path, 1) as (worker,):
        worker.peers = [Peer(1, 11, os.getpid() + 1)]
        reader, writer = await asyncio.open_unix_connection(str(Mesh.path(tmp_path / "bus", 0, 10)))
        writer.write(pack(Introduction(1, 11)))
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b""
        writer.close()
        assert worker.links == {}


async def test_a_bad_message_costs_the_link_and_it_is_dialled_again(tmp_path: Path) -> None:
    """What follows a bad message is not processed."""
    async with _workers(tmp_path, 2) as workers:
        await _meet(workers)
        old, young = workers
        transport = young.links[0]._transport
        assert transport is not None
        transport.write(b"\x00\x00\x00\x01\xc1" + pack(Evict(1)))
        await until(lambda: "down 1.11" in old.happened and "down 0.10" in young.happened, "loss")
        assert old.got == []
        await _meet(workers)
        young.links[0].send(Evict(2))
        await until(lambda: old.got, "a message")
        assert old.got == [Evict(2)]
        assert old.happened == ["up 1.11", "down 1.11", "up 1.11"]


async def test_a_successor_in_the_same_slot(tmp_path: Path) -> None:
    """A new generation replaces the old one, whose link is reported down once."""
    async with _workers(tmp_path, 2) as workers:
        await _meet(workers)
        old, young = workers
        heir = Worker(tmp_path / "bus", 1, 12)
        heir.peers = [old.me]
        await heir.mesh.start()
        old.peers = [heir.me]
        heir.mesh.dial()
        await until(lambda: "up 1.12" in old.happened, "the successor")
        assert old.happened == ["up 1.11", "down 1.11", "up 1.12"]
        assert old.links[1].generation == 12
        await until(lambda: not young.links, "the predecessor's loss")
        heir.mesh.close()
        await until(lambda: "down 1.12" in old.happened, "the end")


async def test_a_link_that_dies_as_soon_as_it_is_up(tmp_path: Path) -> None:
    """The peer accepts and drops: the dead link is not reported as up."""
    (tmp_path / "bus").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Mesh.path(tmp_path / "bus", 0, 10)))
        listener.listen()
        worker = Worker(tmp_path / "bus", 1, 11)
        worker.peers = [Peer(0, 10, os.getpid())]
        worker.mesh.dial()
        connection, _ = await asyncio.to_thread(listener.accept)
        connection.close()
        await until(lambda: not worker.mesh._dials and not worker.links, "the loss")
        worker.mesh.dial()
        connection, _ = await asyncio.to_thread(listener.accept)
        await until(lambda: worker.links, "the next attempt")
        connection.close()
        await until(lambda: not worker.links, "its loss")
        worker.mesh.close()


@pytest.mark.parametrize("gone", ["socket", "directory", "parent", "taken", "link"])
async def test_a_name_that_was_removed_is_made_again(tmp_path: Path, gone: str) -> None:
    """Before anybody has dialled; where it is impossible, as soon as it is possible again."""
    parent = tmp_path / "run"
    parent.mkdir(mode=0o700)
    directory = parent / "bus"
    async with _workers(parent, 2) as workers:
        old, _ = workers
        if gone == "socket":
            Mesh.path(directory, 0, 10).unlink()
        elif gone == "parent":
            shutil.rmtree(parent)
        else:
            shutil.rmtree(directory)
        if gone == "taken":
            directory.write_text("a file")
        elif gone == "link":
            (tmp_path / "elsewhere").mkdir()
            directory.symlink_to(tmp_path / "elsewhere")
        if gone in ("taken", "link"):
            for _ in range(3):
                old.mesh.check()
                assert old.mesh._reopening.task is not None
                await old.mesh._reopening.task
            assert not any((tmp_path / "elsewhere").glob("*"))
            directory.unlink()

        def met() -> bool:
            for worker in workers:
                worker.mesh.check()
                worker.mesh.dial()
            return all(len(worker.links) == 1 for worker in workers)

        await until(met, "a link")
        assert directory.lstat().st_mode & 0o777 == 0o700


async def test_control_goes_before_publishes(tmp_path: Path) -> None:
    """What is queued in one turn leaves control first, each kind in its order."""
    async with _workers(tmp_path, 2) as workers:
        await _meet(workers)
        old, young = workers
        link = old.links[1]
        for number in range(1, 11):
            link.publish(_batch(number, size=10))
            link.send(Evict(number))
        await until(lambda: len(young.got) == 20, "all of it")
        assert young.got == [
            *(Evict(n) for n in range(1, 11)),
            *(_batch(n, size=10) for n in range(1, 11)),
        ]


async def test_publishes_beyond_the_bound(tmp_path: Path) -> None:
    """Dropped; control still passes; then the heads are sent, after what was queued before."""
    async with _workers(tmp_path, 2) as workers:
        await _meet(workers)
        old, young = workers
        link = old.links[1]
        reading = young.links[0]._transport
        assert reading is not None
        reading.pause_reading()
        number = 0
        while not link.dropped:
            number += 1
            link.publish(_batch(number))
            if number % 16 == 0:
                await asyncio.sleep(0)
        assert link._publishes_bytes <= link_module.PUBLISH_BYTES_MAX
        for _ in range(100):
            number += 1
            link.publish(_batch(number))
        number += 1
        link.publish(_batch(number, size=4))  # there is room for it, but it would leave a gap
        link.publish(_batch(1, "hall"))
        assert set(link.dropped) <= {"lobby", "hall"}
        link.send(Evict(7))
        old.head = number
        reading.resume_reading()
        await until(lambda: any(isinstance(m, Heads) for m in young.got), "the heads")
        heads = young.got[-1]
        assert isinstance(heads, Heads)
        assert {log for log, _, _ in heads.heads} >= {"lobby"}
        assert Evict(7) in young.got
        lasts = [m.last for m in young.got if isinstance(m, Batch) and m.log == "lobby"]
        assert lasts == list(range(1, len(lasts) + 1)), "what was queued is complete up to the drop"
        assert len(lasts) < number
        assert not link.dropped
        young.got.clear()
        link.publish(_batch(number + 1))
        await until(lambda: young.got, "the log's next batch")
        assert young.got == [_batch(number + 1)]


async def test_both_sides_full_towards_each_other(tmp_path: Path) -> None:
    """No deadlock: reading never stops, however much is to be written; all control arrives."""
    async with _workers(tmp_path, 2) as workers:
        await _meet(workers)
        total = 60

        def echo(link: Link, message: Message) -> None:
            if isinstance(message, Batch) and message.log == "there":
                link.publish(message._replace(log="back"))
                link.send(Evict(message.last))

        for worker in workers:
            worker.answer = echo
        for turn in range(1, total + 1):
            for worker in workers:
                (link,) = worker.links.values()
                link.publish(_batch(turn, "there"))
                assert link._publishes_bytes <= link_module.PUBLISH_BYTES_MAX
        await until(
            lambda: all(sum(isinstance(m, Evict) for m in w.got) == total for w in workers),
            "all control",
        )
        for worker in workers:
            backs = [m.last for m in worker.got if isinstance(m, Batch) and m.log == "back"]
            assert backs == sorted(backs)


async def test_nothing_is_kept_for_a_lost_link(tmp_path: Path) -> None:
    """A port to a dead worker may still be used: messages are discarded."""
    async with _workers(tmp_path, 2) as workers:
        await _meet(workers)
        old, young = workers
        link = old.links[1]
        young.mesh.close()
        await until(lambda: not old.links, "the loss")
        for number in range(1, 1000):
            link.publish(_batch(number))
            link.send(Evict(number))
        assert link._control == []
        assert link._publishes == []
        assert link.dropped == {}
