"""Count a worker's instructions for a message, or for a client that comes back by ticket:
``python -m benchmarks.instructions``, with ``--returns`` for the latter.

Needs valgrind (callgrind). Instructions do not depend on what else the machine does, so small
changes can be seen; they say nothing of the kernel, of caches, or of waiting. A whole worker runs
in this process, as in ``benchmarks.micro.test_message``: bytes of a sender in, one turn, bytes out.
The clients read nothing meanwhile. callgrind makes a process fifty times slower, so clocks are
late: a room with many members pauses between its messages, and has fewer deliveries.
Several rooms take turns, as in the benchmark of small rooms; then the sender is in none of them.

Clients that return are those of the storms (``benchmarks.load.crowd``), in a process of their own
that valgrind does not see, over real sockets: handshake by ticket, login, and a room that they
resume. All come at once, and the loop and its reads and writes are counted as well. With
``--logins-per-message`` the room talks meanwhile, by the number of those who are back, not by a
clock: what a return costs then tells how that grows with their number.

In a checkout without ``relay/`` (``make compiled-checkout``) it counts the compiled build.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.load import payload
from benchmarks.load.crowd import Arrive, Crowd, Leave, Plan, Prepare, names
from benchmarks.measure.machine import HOST
from relay.compiled import build
from relay.server.worker.delivery.stream import Stream
from relay.wire.envelopes import Send
from relay.wire.packing import pack
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

WARMING: Final = 100
"""Messages before counting begins: what is made once is made by then."""
TALK_S: Final = 0.002
"""How often to look how many have logged in."""
OUT: Final = "RELAY_CALLGRIND_OUT"
"""Set in the process that valgrind runs."""


def main() -> int:
    """Run this program again under valgrind, and print what it counted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument("--members", type=int, default=1, help="the sender is the first (1)")
    parser.add_argument("--rooms", type=int, default=1, help="with so many members each (1)")
    parser.add_argument("--per-record", type=int, default=1, help="messages in a record (1)")
    parser.add_argument("--messages", type=int, default=100, help="that are counted (100)")
    parser.add_argument("--returns", type=int, help="count so many returning clients instead")
    parser.add_argument("--missed", type=int, default=0, help="messages that they missed (0)")
    parser.add_argument(
        "--logins-per-message", type=int, default=0, help="a message for so many who return (none)"
    )
    parser.add_argument("--functions", type=int, default=30, help="to name (30)")
    options = parser.parse_args()
    if OUT in os.environ:
        asyncio.set_event_loop(loop := uvloop.new_event_loop())
        counting = _count_messages(options) if options.returns is None else _count_returns(options)
        loop.run_until_complete(counting)
        sys.stdout.flush()
        os._exit(0)  # what ends a cluster is of no interest, and slow here
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "callgrind.out")
        subprocess.run(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}",
             sys.executable, "-m", "benchmarks.instructions", *sys.argv[1:]],
            env=os.environ | {OUT: str(out)}, check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        listed = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", str(out)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    lines = re.findall(r"^ *([\d,]+) \(.*?\) +(\S.*)$", listed, re.MULTILINE)
    number, what = options.returns, "return"
    if number is None:
        number, what = options.messages // options.per_record * options.per_record, "message"
    counted = [(int(count.replace(",", "")) // number, name) for count, name in lines]
    print(f"{build()}: {counted[0][0]:,} instructions for a {what}; with what they call:")
    for count, name in counted[1 : options.functions + 1]:
        print(f"{count:10,}  {name.rpartition(':')[2].partition(' [')[0]}")
    return 0


async def _count_messages(options: argparse.Namespace) -> None:
    logs = [f"room{number}" for number in range(options.rooms)]
    per_record: int = options.per_record
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory), 1)
        await cluster.__aenter__()
        worker = cluster.workers[0]
        worker.stop_periodic_work()  # nothing but messages from here on
        sender = await TestClient.login(worker, "sender")
        for log in logs:
            for number in range(options.members):
                if number or len(logs) > 1:
                    member = await TestClient.login(worker, f"{log}member{number}")
                    await member.join(log)
                else:
                    await sender.join(log)
        stream = cluster.session("sender").stream
        counters = dict.fromkeys(logs, 0)
        warming = max(WARMING, 2 * len(logs)) // per_record
        counted = options.messages // per_record
        records: list[bytes] = []
        for log in itertools.islice(itertools.cycle(logs), warming + counted):
            first = counters[log] + 1
            counters[log] += per_record
            some = [Send(log, first + n, 0, "", bytes(200)) for n in range(per_record)]
            records.append(sender.sealed(b"".join(map(pack, some))))
        gc.collect()
        gc.freeze()
        _send(worker, stream, records[:warming])
        _instrument("on")
        _send(worker, stream, records[warming:])
        _instrument("off")
        assert worker.parts.home.writer.publishing.accepted == (warming + counted) * per_record


def _send(worker: Worker, stream: Stream, records: list[bytes]) -> None:
    turn = worker.parts.turn
    for record in records:
        stream.data_received(record)
        turn.run()


async def _count_returns(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory), 1)
        await cluster.__aenter__()
        worker = cluster.workers[0]
        log = "room0"
        members = [await TestClient.login(worker, f"member{n}") for n in range(options.members)]
        for member in members:
            await member.join(log)
        members[0].send_envelopes(Send(log, 1, 0, "", payload.make(1, time.monotonic_ns())))
        await members[0].acked(log, 1)
        sessions = worker.parts.connections.sessions
        with Crowd(Plan((HOST, worker.port), log, names(options.returns))) as crowd:

            async def obey(order: Arrive | Leave | Prepare) -> int:
                return (await asyncio.to_thread(crowd.obey, order)).resumed

            resumed = 0
            for _ in range(2):  # the second time it is a return: what is made once is made then
                resumed = await obey(Arrive())
                await obey(Leave())
                await until(lambda: len(sessions) == len(members), "the clients' end")
            for number in range(2, options.missed + 2):
                body = payload.make(number, time.monotonic_ns())
                members[0].send_envelopes(Send(log, number, 0, "", body))
                await members[0].acked(log, number)
            await obey(Prepare())
            worker.stop_periodic_work()  # nothing but returns from here on
            gc.collect()
            gc.freeze()
            talking = asyncio.create_task(_talk(worker, members[0], log, options))
            _instrument("on")
            resumed = await obey(Arrive()) - resumed
            _instrument("off")
            talking.cancel()
        assert resumed == options.returns


async def _talk(worker: Worker, sender: TestClient, log: str, options: argparse.Namespace) -> None:
    """Send a message to all whenever some more clients have logged in."""
    admission, each = worker.parts.services.budgets.admission, options.logins_per_message
    due, counter = admission.authenticated + each, options.missed + 1
    while each:
        await asyncio.sleep(TALK_S)
        while admission.authenticated >= due:
            due, counter = due + each, counter + 1
            body = payload.make(counter, time.monotonic_ns())
            sender.send_envelopes(Send(log, counter, 0, "", body))


def _instrument(state: str) -> None:
    subprocess.run(
        ["callgrind_control", "-i", state, str(os.getpid())], check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    sys.exit(main())
