"""A supervisor with tiny children, as a program: ``python -m tests.server.supervisor.plant DIR N``.

The children open nothing. What they do wrong is decided by files in DIR, so that a test can change
it while they run.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import msgspec

from relay.errors import StartError
from relay.server import logs
from relay.server.context import AgentContext, WorkerContext
from relay.server.supervisor.supervisor import Plant, Supervisor
from relay.settings import Log, Server, Settings

PARTITIONS = 16
HEARTBEAT_S = 0.05


def worker_main(context: WorkerContext) -> int:
    directory = context.data
    if (directory / "worker-says-no").exists():
        os.write(context.ready_fd, b"E no such luck\n")
        return 3
    if (directory / "worker-dies-at-boot").exists():
        return 7
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGQUIT or not (directory / "worker-is-deaf").exists():
            stopped.append(number)

    def hang(number: int, frame: FrameType | None) -> None:
        time.sleep(3600)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGQUIT, stop)
    signal.signal(signal.SIGUSR1, hang)
    row = context.scoreboard.row(context.index)
    row.set("heartbeat_ns", time.monotonic_ns())
    row.add("accepted")
    os.write(context.ready_fd, b"R\n")
    if (directory / "worker-crashes").exists():
        return 9
    while not stopped:
        row.set("heartbeat_ns", time.monotonic_ns())
        if select.select([context.parent_fd], [], [], HEARTBEAT_S)[0]:
            return 0
    name = signal.Signals(stopped[0]).name
    owned = [
        p
        for p in range(PARTITIONS)
        if context.scoreboard.owner(p) == (context.index, context.generation)
    ]
    (directory / f"stopped-{context.index}").write_text(f"{name} {row.get('accepted')} {owned}")
    return 0


def agent_main(context: AgentContext) -> int:
    if (context.key_path.parent / "agent-says-no").exists():
        os.write(context.ready_fd, b"E no key for you\n")
        return 3
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    row = context.scoreboard.row(0)
    os.write(context.ready_fd, b"R fingerprint\n")
    while not stopped:
        row.set("heartbeat_ns", time.monotonic_ns())
        if select.select([context.parent_fd], [], [], HEARTBEAT_S)[0]:
            return 0
    return 0


def limit_forks(directory: Path) -> None:
    """Let fork fail as the kernel does at its limit of processes, while a file says so."""
    fork = os.fork

    def limited() -> int:
        if (directory / "no-fork").exists():
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = limited


def main() -> int:
    directory, workers = Path(sys.argv[1]), int(sys.argv[2])
    limit_forks(directory)
    server = msgspec.json.decode(sys.argv[3], type=dict[str, float])
    logs.set_up(Log(format="json"))
    plant = Plant(
        settings=Settings(server=msgspec.structs.replace(Server(workers=workers), **server)),
        listeners=(),
        data=directory,
        runtime=directory,
        key_path=directory / "server.key",
        boot_id="boot",
        partitions=PARTITIONS,
        worker_main=worker_main,
        agent_main=agent_main,
        announce=lambda fingerprint: print(fingerprint, flush=True),
        close_in_child=lambda: None,
    )
    try:
        return Supervisor(plant).run()
    except StartError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
