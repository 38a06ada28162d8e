"""A sender: ``python -m tests.torture.sender ADDRESS NAME HISTORY LOGS SEED OPTIONS``.

OPTIONS is ``RATE[+blocking][+to=NAME.NAME...]``: messages per second, and the recipients of direct
messages, which go to its own inbox, ``@NAME`` among LOGS.

Sends until TERM, then waits for its acknowledgements and exits. Killed at any moment and started
again with the same history, it sends again what was not acknowledged, with the same ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from functools import partial
from typing import NamedTuple

from relay.client.aio import Client
from relay.client.blocking import BlockingClient
from relay.client.blocking.posts import BlockingPost
from relay.client.errors import ClientError
from relay.client.events import StateChanged, Stored
from relay.client.refusals import Refused
from tests.torture import programs
from tests.torture.programs import Role
from tests.torture.records import Acked, Failed, Process, Recorder, Sent, read_records

BURST_MAX = 20
LOOK_S = 0.2
"""How often the blocking sender looks whether it was told to stop."""


class Burst(NamedTuple):
    """So many messages to a log at once, and a pause."""

    log: str
    size: int
    rest_s: float


class Outbox:
    """What a sender sends and records: its history is its only memory."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._role = role
        self._recorder = recorder
        # Not the same choices again after each restart.
        self._chance = random.Random(f"{role.seed} {role.name} {os.getpid()}")
        self._rate = float(role.option.partition("+")[0])
        self._people = programs.people_of(role.option)
        self._last = dict.fromkeys(role.logs, 0)
        self.pending: dict[str, dict[int, None]] = {log: {} for log in role.logs}
        """For each log, what was sent and not acknowledged, when this was created."""
        for record in read_records(role.history):
            if isinstance(record, Sent):
                self._last[record.log] = record.number
                self.pending[record.log][record.number] = None
            elif isinstance(record, Acked | Failed):
                self.pending[record.log].pop(record.number, None)

    def counters(self) -> dict[str, int]:
        """Return the counter of the next send of each log that was sent to before."""
        return {
            log: min(self.pending[log], default=last + 1)
            for log, last in self._last.items()
            if last
        }

    def burst(self) -> Burst:
        """Return what to send next."""
        size = self._chance.randint(1, BURST_MAX)
        rest_s = self._chance.expovariate(self._rate / size)
        return Burst(self._chance.choice(self._role.logs), size, rest_s)

    def ending(self) -> tuple[str, ...]:
        """Return the logs to which one more message is sent when the load ends.

        A power cut may take the end of an epoch. Only a later message begins another one, and
        without that the checker must count what is missing as lost.
        """
        return tuple(self._role.logs)

    def next(self, log: str) -> int:
        """Return the number of the next message of a log; it is recorded."""
        self._last[log] += 1
        number = self._last[log]
        digest = programs.digest_of(self.body(log, number))
        self._recorder.write(Sent(log, number, digest))
        return number

    def target(self, log: str, number: int) -> str:
        """Return where a message goes: in the own inbox, each number has one recipient."""
        return f"@{programs.recipient(self._people, number)}" if log.startswith("@") else log

    def body(self, log: str, number: int) -> bytes:
        """Return a message: the same one whenever it is sent again."""
        return programs.body_of(self._role.name, log, number, self._role.seed)

    def stored(self, log: str, number: int, stored: Stored) -> None:
        """Record an acknowledgement."""
        self._recorder.write(Acked(log, number, stored.epoch.hex(), stored.seq))

    def failed(self, log: str, number: int, error: ClientError) -> None:
        """Record a refusal. The end of a client is none: its sends are repeated."""
        if isinstance(error, Refused):
            self._recorder.write(Failed(log, number, f"{type(error).__name__}: {error}"))


class Sender:
    """On asyncio."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._role = role
        self._recorder = recorder
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Send until told to stop; connect anew if the client ends."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopped.set)
        finished = False
        while not finished:
            outbox = Outbox(self._role, self._recorder)
            client = await programs.connect(self._role, self._recorder, outbox.counters())
            watching = asyncio.ensure_future(self._watch(client))
            with contextlib.suppress(ClientError):
                await self._send_all(client, outbox)
                await client.flush()
                finished = True
            programs.note_totals(self._recorder, client.statistics)
            await client.close(0)
            with contextlib.suppress(ClientError):
                await watching

    async def _watch(self, client: Client) -> None:
        async for event in client:
            if isinstance(event, StateChanged):
                programs.note_state(self._recorder, event)

    async def _send_all(self, client: Client, outbox: Outbox) -> None:
        for log, pending in outbox.pending.items():
            for number in pending:
                await self._post(client, outbox, log, number)
        while not self._stopped.is_set():
            burst = outbox.burst()
            for _ in range(burst.size):
                await self._post(client, outbox, burst.log, outbox.next(burst.log))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(burst.rest_s):
                    await self._stopped.wait()
        for log in outbox.ending():
            await self._post(client, outbox, log, outbox.next(log))

    async def _post(self, client: Client, outbox: Outbox, log: str, number: int) -> None:
        future = await client.post(outbox.target(log, number), outbox.body(log, number))
        future.add_done_callback(partial(_answered, outbox, log, number))


def _answered(outbox: Outbox, log: str, number: int, future: asyncio.Future[Stored]) -> None:
    try:
        outbox.stored(log, number, future.result())
    except ClientError as error:
        outbox.failed(log, number, error)


class BlockingSender:
    """On the blocking client."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._role = role
        self._recorder = recorder
        self._stopped = False
        self._posted: list[tuple[str, int, BlockingPost]] = []

    def run(self) -> None:
        """Send until told to stop; connect anew if the client ends."""
        signal.signal(signal.SIGTERM, self._stop)
        finished = False
        while not finished:
            outbox = Outbox(self._role, self._recorder)
            client = programs.connect_blocking(self._role, self._recorder, outbox.counters())
            with contextlib.suppress(ClientError):
                self._send_all(client, outbox)
                client.flush()
                finished = True
            self._collect(client, outbox)
            programs.note_totals(self._recorder, client.statistics)
            client.close(0)
            self._posted.clear()

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _send_all(self, client: BlockingClient, outbox: Outbox) -> None:
        for log, pending in outbox.pending.items():
            for number in pending:
                self._post(client, outbox, log, number)
        while not self._stopped:
            burst = outbox.burst()
            for _ in range(burst.size):
                self._post(client, outbox, burst.log, outbox.next(burst.log))
            rested_at = time.monotonic() + burst.rest_s
            while not self._stopped and (left := rested_at - time.monotonic()) > 0:
                client.pump(min(left, LOOK_S))
                self._collect(client, outbox)
        for log in outbox.ending():
            self._post(client, outbox, log, outbox.next(log))

    def _post(self, client: BlockingClient, outbox: Outbox, log: str, number: int) -> None:
        pending = client.post(outbox.target(log, number), outbox.body(log, number))
        self._posted.append((log, number, pending))
        self._collect(client, outbox)

    def _collect(self, client: BlockingClient, outbox: Outbox) -> None:
        """Record the outcomes and the states that have come."""
        open_still: list[tuple[str, int, BlockingPost]] = []
        for posted in self._posted:
            log, number, pending = posted
            if not pending.done():
                open_still.append(posted)
            elif (error := pending.exception()) is not None:
                outbox.failed(log, number, error)
            else:
                outbox.stored(log, number, pending.result())
        self._posted = open_still
        with contextlib.suppress(ClientError):  # the sends report it, too
            while (event := client.next_event(0.0)) is not None:
                if isinstance(event, StateChanged):
                    programs.note_state(self._recorder, event)


def main() -> None:
    """Run one process of a sender."""
    role = programs.parse_role()
    programs.hasten()
    recorder = Recorder(role.history)
    recorder.write(Process(os.getpid()))
    if "blocking" in role.option:
        BlockingSender(role, recorder).run()
    else:
        asyncio.run(Sender(role, recorder).run())
    recorder.write(Process(os.getpid(), ends=True))


if __name__ == "__main__":
    main()
