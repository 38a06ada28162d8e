"""Count the instructions that a message takes in a worker: ``python -m benchmarks.instructions``

Needs valgrind (callgrind). Instructions do not depend on what else the machine does, so small
changes can be seen; they say nothing of the kernel, of caches, or of waiting. A whole worker runs
in this process, as in ``benchmarks.micro.test_message``: bytes of a sender in, one turn, bytes out.
The clients read nothing meanwhile. callgrind makes a process fifty times slower, so clocks are
late: a room with many members rests between its messages, and its deliveries are fewer.

In a checkout without ``relay/`` (``make compiled-checkout``) it counts the compiled build.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import uvloop

from relay.compiled import build
from relay.server.worker.delivery.stream import Stream
from relay.wire.envelopes import Send
from relay.wire.packing import pack
from tests.support.workers import Cluster, TestClient, Worker

WARMING: Final = 100
"""Messages before counting begins: what is made once is made by then."""
OUT: Final = "RELAY_CALLGRIND_OUT"
"""Set in the process that valgrind runs."""


def main() -> int:
    """Run this program again under valgrind, and print what it counted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument("--members", type=int, default=1, help="the sender is the first (1)")
    parser.add_argument("--messages", type=int, default=100, help="that are counted (100)")
    parser.add_argument("--functions", type=int, default=30, help="to name (30)")
    options = parser.parse_args()
    if OUT in os.environ:
        asyncio.set_event_loop(loop := uvloop.new_event_loop())
        loop.run_until_complete(_count(options.members, options.messages))
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
    counted = [(int(count.replace(",", "")) // options.messages, name) for count, name in lines]
    print(f"{build()}: {counted[0][0]:,} instructions for a message; with what they call:")
    for count, name in counted[1 : options.functions + 1]:
        print(f"{count:10,}  {name.rpartition(':')[2].partition(' [')[0]}")
    return 0


async def _count(members: int, messages: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory), 1)
        await cluster.__aenter__()
        worker = cluster.workers[0]
        for task in worker._tasks:
            task.cancel()  # nothing but messages from here on
        sender = await TestClient.login(worker, "sender")
        if members:
            await sender.join("lobby")
        for number in range(1, members):
            member = await TestClient.login(worker, f"member{number}")
            await member.join("lobby")
        stream = cluster.session("sender").stream
        records = [
            sender.sealed(pack(Send("lobby", counter, 0, "", bytes(200))))
            for counter in range(1, WARMING + messages + 1)
        ]
        gc.collect()
        gc.freeze()
        _send(worker, stream, records[:WARMING])
        _instrument("on")
        _send(worker, stream, records[WARMING:])
        _instrument("off")
        assert worker.parts.home.publishing.accepted == WARMING + messages


def _send(worker: Worker, stream: Stream, records: list[bytes]) -> None:
    turn = worker.parts.turn
    for record in records:
        stream.data_received(record)
        turn.run()


def _instrument(state: str) -> None:
    subprocess.run(
        ["callgrind_control", "-i", state, str(os.getpid())], check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    sys.exit(main())
