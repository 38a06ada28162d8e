"""A reader: ``python -m tests.torture.reader ADDRESS NAME HISTORY LOGS SEED OPTIONS``.

Follows its logs until TERM. Killed at any moment and started again with the same history, it
resumes at the last entry in it. OPTIONS, joined by "+":

- ``plain``: none of the below
- ``late``: begins at the head instead of at the first entry
- ``trusting``: checks nothing (``trusting``)
- ``small``: holds few events, so that the library itself must stop reading and fall behind
- ``sleepy``: takes no event for a while, now and then
- ``blocking``: uses the blocking client
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time

from relay.client import event_queue
from relay.client.aio import Client
from relay.client.blocking import BlockingClient
from relay.client.errors import ClientError
from relay.client.refusals import Refused
from tests.torture import programs, trusting
from tests.torture.notebook import Notebook
from tests.torture.programs import Role
from tests.torture.records import Process, Recorder

SMALL_EVENTS = 64
SLEEP_S_MAX = 1.5
SLEEP_IN = 2000
"""A sleepy reader sleeps after one event in so many."""
LOOK_S = 0.2
"""How often the blocking reader looks whether it was told to stop."""


class Sleep:
    """When a sleepy reader sleeps."""

    def __init__(self, role: Role) -> None:
        self._sleepy = "sleepy" in role.option
        # Not the same choices again after each restart.
        self._chance = random.Random(f"{role.seed} {role.name} {os.getpid()}")

    def next(self) -> float:
        """Return how long to sleep after an event."""
        if self._sleepy and not self._chance.randrange(SLEEP_IN):
            return self._chance.uniform(0, SLEEP_S_MAX)
        return 0.0


class Reader:
    """On asyncio."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._role = role
        self._recorder = recorder
        self._sleep = Sleep(role)

    async def run(self) -> None:
        """Read until told to stop; connect anew if the client ends."""
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        while not stopped.is_set():
            client = await programs.connect(self._role, self._recorder)
            reading = asyncio.ensure_future(self._read(client))
            stopping = asyncio.ensure_future(stopped.wait())
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            stopping.cancel()
            with contextlib.suppress(ClientError, asyncio.CancelledError):
                await reading
            programs.note_totals(self._recorder, client.statistics)
            await client.close(0)

    async def _read(self, client: Client) -> None:
        notebook = Notebook(self._role, self._recorder)
        for log in self._role.logs:
            try:
                notebook.joined(await client.join(log, **notebook.start(log)))
            except Refused as error:
                notebook.refused(log, error)
                raise
        async for event in client:
            notebook.note(event)
            if pause_s := self._sleep.next():
                await asyncio.sleep(pause_s)


class BlockingReader:
    """On the blocking client."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._role = role
        self._recorder = recorder
        self._sleep = Sleep(role)
        self._stopped = False

    def run(self) -> None:
        """Read until told to stop; connect anew if the client ends."""
        signal.signal(signal.SIGTERM, self._stop)
        while not self._stopped:
            client = programs.connect_blocking(self._role, self._recorder)
            with contextlib.suppress(ClientError):
                self._read(client)
            programs.note_totals(self._recorder, client.statistics)
            client.close(0)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _read(self, client: BlockingClient) -> None:
        notebook = Notebook(self._role, self._recorder)
        for log in self._role.logs:
            try:
                notebook.joined(client.join(log, **notebook.start(log)))
            except Refused as error:
                notebook.refused(log, error)
                raise
        while not self._stopped:
            event = client.next_event(LOOK_S)
            if event is not None:
                notebook.note(event)
                time.sleep(self._sleep.next())


def main() -> None:
    """Run one process of a reader."""
    role = programs.parse_role()
    programs.hasten()
    options = role.option.split("+")
    if "trusting" in options:
        trusting.install()
    if "small" in options:
        event_queue.EVENTS_MAX = SMALL_EVENTS  # type: ignore[misc]
    recorder = Recorder(role.history)
    recorder.write(Process(os.getpid()))
    if "blocking" in options:
        BlockingReader(role, recorder).run()
    else:
        asyncio.run(Reader(role, recorder).run())
    recorder.write(Process(os.getpid(), ends=True))


if __name__ == "__main__":
    main()
