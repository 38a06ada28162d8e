"""A reader: ``python -m tests.torture.reader ADDRESS NAME HISTORY LOGS SEED OPTIONS``.

Follows its logs until TERM. Killed at any moment and started again with the same history, it goes
on from the last entry in it. OPTIONS, joined by "+":

- ``plain``: nothing of the below
- ``late``: begins at the head instead of at the first entry
- ``trusting``: checks nothing (``trusting``)
- ``small``: holds few events, so that the library itself must stop reading and fall behind
- ``sleepy``: takes no event for a while, now and then
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

from relay.chat.entries import Cursor
from relay.client import inbox
from relay.client.aio import Client
from relay.client.errors import ClientError, Refused
from relay.client.events import (
    Behind,
    Event,
    Gap,
    Live,
    Message,
    StateChanged,
    Unfollowed,
)
from tests.torture import programs, trusting
from tests.torture.programs import Role
from tests.torture.records import (
    Began,
    Hole,
    Lost,
    Placed,
    Process,
    Recorder,
    Resumed,
    Seen,
    read_records,
)

SMALL_EVENTS = 64
SLEEP_S_MAX = 1.5
SLEEP_IN = 2000
"""A sleepy reader sleeps after one event in so many."""


def cursors_of(role: Role) -> dict[str, Cursor]:
    """Return where a reader stands in each log, by its history."""
    cursors: dict[str, Cursor] = {}
    for record in read_records(role.history):
        match record:
            case Began(log=log, epoch=epoch, seq=seq) | Seen(log=log, epoch=epoch, seq=seq):
                cursors[log] = Cursor(bytes.fromhex(epoch), seq)
            case Hole(log=log, end=(epoch, seq)):
                cursors[log] = Cursor(bytes.fromhex(epoch), seq)
            case _:
                pass
    return cursors


class Reader:
    """See the module's docstring."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._role = role
        self._recorder = recorder
        self._options = role.option.split("+")
        self._chance = random.Random(f"{role.seed} {role.name} {os.getpid()}")

    async def run(self) -> None:
        """Read until told to stop; connect anew if the client ends."""
        client: Client | None = None
        stopping = False

        def stop() -> None:
            nonlocal stopping
            stopping = True
            running.cancel()

        running = asyncio.ensure_future(asyncio.sleep(0))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        while not stopping:
            client = await programs.connect(self._role, self._recorder)
            running = asyncio.ensure_future(self._read(client))
            with contextlib.suppress(ClientError, asyncio.CancelledError):
                await running
            programs.note_totals(self._recorder, client)
            await client.close(0)

    async def _read(self, client: Client) -> None:
        await self._join_all(client)
        async for event in client:
            self._note(client, event)
            if "sleepy" in self._options and not self._chance.randrange(SLEEP_IN):
                await asyncio.sleep(self._chance.uniform(0, SLEEP_S_MAX))

    async def _join_all(self, client: Client) -> None:
        cursors = cursors_of(self._role)
        for log in self._role.logs:
            cursor = cursors.get(log)
            try:
                if cursor is not None:
                    self._recorder.write(Resumed(log, cursor.epoch.hex(), cursor.seq))
                    await client.join(log, cursor=cursor)
                else:
                    since = None if "late" in self._options else 0
                    joined = await client.join(log, since=since)
                    start = joined.start
                    self._recorder.write(Began(log, start.epoch.hex(), start.seq))
            except Refused as error:
                self._recorder.write(Lost(f"join of {log}: {error}"))
                raise

    def _note(self, client: Client, event: Event) -> None:
        write = self._recorder.write
        match event:
            case Message():
                epoch, digest = event.epoch.hex(), programs.digest_of(event.body)
                write(
                    Seen(
                        event.log, epoch, event.seq, event.prev, event.sender, event.counter, digest
                    )
                )
            case Gap(log=log, start=start, end=end, reason=reason):
                places = (start.epoch.hex(), start.seq), (end.epoch.hex(), end.seq)
                write(Hole(log, *places, int(reason)))
            case Live(log=log, seq=seq):
                write(Placed(log, True, seq))
            case Behind(log=log, seq=seq):
                write(Placed(log, False, seq))
            case StateChanged():
                programs.note_state(self._recorder, client, event)
            case Unfollowed(log=log, detail=detail):
                write(Lost(f"{log}: {detail}"))
            case _:
                pass


def main() -> None:
    """Run one process of a reader."""
    role = programs.parse_role()
    programs.hasten()
    options = role.option.split("+")
    if "trusting" in options:
        trusting.install()
    if "small" in options:
        inbox.EVENTS_MAX = SMALL_EVENTS  # type: ignore[misc]
    recorder = Recorder(role.history)
    recorder.write(Process(os.getpid()))
    asyncio.run(Reader(role, recorder).run())
    recorder.write(Process(os.getpid(), ends=True))


if __name__ == "__main__":
    main()
