"""A supervisor with minimal children, as a program.

``python -m tests.server.supervisor.small_server DIR WORKERS SETTINGS``

The children open nothing. Files in DIR decide how they misbehave, so that a test can change that
while they run.
"""

from __future__ import annotations

import errno
import logging
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
from relay.server.metrics import WORKER
from relay.server.supervisor.config import SupervisorConfig
from relay.server.supervisor.roles import Launch, Role
from relay.server.supervisor.service_manager import ServiceManager
from relay.server.supervisor.supervisor import Supervisor
from relay.settings import Log, Server

PARTITIONS = 16
HEARTBEAT_S = 0.05


def worker_main(directory: Path, launch: Launch) -> int:
    if (directory / "worker-refuses").exists():
        raise StartError("no such luck")
    if (directory / "worker-is-refused-a-call").exists():
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    if (directory / "worker-dies-at-boot").exists():
        return 7
    if (directory / "worker-gets-no-memory").exists():
        raise MemoryError
    if (directory / "worker-is-killed-at-boot").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (directory / "worker-hangs-at-boot").exists():
        time.sleep(3600)
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGQUIT or not (directory / "worker-ignores-term").exists():
            stopped.append(number)

    def hang(number: int, frame: FrameType | None) -> None:
        time.sleep(3600)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGQUIT, stop)
    signal.signal(signal.SIGUSR1, hang)
    row = launch.scoreboard.row(launch.index)
    row.set("heartbeat_ns", time.monotonic_ns())
    row.add("messages_accepted")
    launch.boot.ready()
    if (directory / "worker-crashes").exists():
        return 9
    while not stopped:
        row.set("heartbeat_ns", time.monotonic_ns())
        if select.select([launch.parent_fd], [], [], HEARTBEAT_S)[0]:
            return 0
    name = signal.Signals(stopped[0]).name
    owned = [
        p
        for p in range(PARTITIONS)
        if launch.scoreboard.owner(p) == (launch.index, launch.generation)
    ]
    (directory / f"stopped-{launch.index}").write_text(
        f"{name} {row.get('messages_accepted')} {owned}"
    )
    return 0


def agent_main(directory: Path, launch: Launch) -> int:
    if (directory / "agent-refuses").exists():
        raise StartError("no key for you")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    row = launch.scoreboard.row(0)
    launch.boot.ready("fingerprint")
    while not stopped:
        row.set("heartbeat_ns", time.monotonic_ns())
        if select.select([launch.parent_fd], [], [], HEARTBEAT_S)[0]:
            return 0
    return 0


def limit_forks(directory: Path) -> None:
    """Let fork fail as at the kernel's limit of processes, while a file exists."""
    fork = os.fork

    def limited() -> int:
        if (directory / "no-fork").exists():
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = limited


def reload(directory: Path) -> None:
    """Read no settings. The supervisor is busy with it for as long as somebody likes."""
    if (directory / "reload-stops").exists():
        os.kill(os.getpid(), signal.SIGSTOP)
    logging.getLogger("relay.supervisor").warning("reloaded")


def main() -> int:
    directory, workers = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup makes the tests ignore it
    limit_forks(directory)
    server = msgspec.json.decode(sys.argv[3], type=dict[str, float])
    boot_timeout_s = server.pop("boot_timeout_s", 30.0)
    logs.set_up(Log(format="json"))
    settings = msgspec.structs.replace(Server(workers=workers), **server)
    config = SupervisorConfig(
        roles=(
            Role(
                name="agent",
                title="key agent",
                run=lambda launch: agent_main(directory, launch),
                boot_timeout_s=120,
                boot_failure_code=1,
            ),
            Role(
                name="worker",
                title="worker {index}",
                run=lambda launch: worker_main(directory, launch),
                boot_timeout_s=boot_timeout_s,
                boot_failure_code=3,
                count=workers,
                indexed=True,
                needs=("agent",),
                owns_partitions=True,
                metrics=WORKER,
            ),
        ),
        requests={},
        partitions=PARTITIONS,
        heartbeat_timeout_s=lambda: settings.worker_timeout_s,
        graceful_timeout_s=lambda: settings.graceful_timeout_s,
        age_max_s=lambda: settings.max_worker_age_s,
        spare=False,
        expedite_stop=lambda: None,
        reload=lambda: reload(directory),
        manager=ServiceManager.of(os.environ),
        on_serving=lambda texts: print(texts["agent"], flush=True),
        close_in_child=lambda: None,
    )
    supervisor = Supervisor(config)

    def look(record: logging.LogRecord) -> bool:
        """Add whether the process of a line is still in the tables when it is logged."""
        if record.msg == "child_exited":
            boards = [supervisor._boards[role.name] for role in config.roles]
            pids = {board.row(n).get("pid") for board in boards for n in range(board.workers)}
            record.tabled = vars(record)["pid"] in pids
        return True

    logging.getLogger("relay.supervisor").addFilter(look)
    try:
        return supervisor.run()
    except StartError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
