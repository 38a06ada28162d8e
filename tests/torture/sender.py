"""A sender: ``python -m tests.torture.sender ADDRESS NAME HISTORY LOGS SEED RATE``.

Sends until TERM, then waits for its acknowledgements and ends. Killed at any moment and started
again with the same history, it sends again what was not acknowledged, under the same ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from functools import partial

from relay.client.aio import Client
from relay.client.errors import ClientError, Refused
from relay.client.events import StateChanged, Stored
from tests.torture import programs
from tests.torture.programs import Role
from tests.torture.records import Acked, Failed, Process, Recorder, Sent, read_records

BURST_MAX = 20


class Outbox:
    """For each log, what was sent and not acknowledged: the sender's memory."""

    def __init__(self, role: Role) -> None:
        self.last = dict.fromkeys(role.logs, 0)
        self.pending: dict[str, dict[int, None]] = {log: {} for log in role.logs}
        for record in read_records(role.history):
            if isinstance(record, Sent):
                self.last[record.log] = record.number
                self.pending[record.log][record.number] = None
            elif isinstance(record, Acked | Failed):
                self.pending[record.log].pop(record.number, None)

    def counters(self) -> dict[str, int]:
        """Return the counter of the next send of each log that was sent to before."""
        return {
            log: min(self.pending[log], default=last + 1) for log, last in self.last.items() if last
        }


class Sender:
    """See the module's docstring."""

    def __init__(self, role: Role, recorder: Recorder) -> None:
        self._role = role
        self._recorder = recorder
        self._stop = asyncio.Event()
        # Not the same choices again after each restart.
        self._chance = random.Random(f"{role.seed} {role.name} {os.getpid()}")

    async def run(self) -> None:
        """Send until told to stop; connect anew if the client ends."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        while True:
            outbox = Outbox(self._role)
            client = await programs.connect(self._role, self._recorder, outbox.counters())
            watching = asyncio.ensure_future(self._watch(client))
            with contextlib.suppress(ClientError):
                await self._send_all(client, outbox)
                await client.flush()
                programs.note_totals(self._recorder, client)
                await client.close()
                await watching
                return
            programs.note_totals(self._recorder, client)
            await client.close(0)
            with contextlib.suppress(ClientError):
                await watching

    async def _watch(self, client: Client) -> None:
        async for event in client:
            if isinstance(event, StateChanged):
                programs.note_state(self._recorder, client, event)

    async def _send_all(self, client: Client, outbox: Outbox) -> None:
        for log, pending in outbox.pending.items():
            for number in pending:
                await self._post(client, log, number)
        rate = float(self._role.option)
        while not self._stop.is_set():
            log = self._chance.choice(self._role.logs)
            burst = self._chance.randint(1, BURST_MAX)
            for _ in range(burst):
                outbox.last[log] += 1
                number = outbox.last[log]
                digest = programs.digest_of(self._body(log, number))
                self._recorder.write(Sent(log, number, digest))
                await self._post(client, log, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.expovariate(rate / burst)):
                    await self._stop.wait()

    def _body(self, log: str, number: int) -> bytes:
        return programs.body_of(self._role.name, log, number, self._role.seed)

    async def _post(self, client: Client, log: str, number: int) -> None:
        future = await client.post(log, self._body(log, number))
        future.add_done_callback(partial(self._answered, log, number))

    def _answered(self, log: str, number: int, future: asyncio.Future[Stored]) -> None:
        try:
            stored = future.result()
        except ClientError as error:
            if isinstance(error, Refused):
                self._recorder.write(Failed(log, number, f"{type(error).__name__}: {error}"))
        else:
            self._recorder.write(Acked(log, number, stored.epoch.hex(), stored.seq))


def main() -> None:
    """Run one process of a sender."""
    role = programs.parse_role()
    programs.hasten()
    recorder = Recorder(role.history)
    recorder.write(Process(os.getpid()))
    asyncio.run(Sender(role, recorder).run())
    recorder.write(Process(os.getpid(), ends=True))


if __name__ == "__main__":
    main()
