"""Workers are added, removed and replaced while clients write: no loss, no refused connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from relay import BlockingClient, Client, Gap, Message
from tests.support.cluster import Relay, run_relay, wait_until
from tests.support.traffic import ROOMS, Traffic


def ctl(relay: Relay, *args: str) -> Any:  # noqa: ANN401  # JSON
    ended = run_relay("ctl", "--data", relay.data, *args, "--json")
    # Exit status 1: a worker that has just been started does not answer yet.
    assert ended.returncode in ((0, 1) if args == ("status",) else (0,)), ended.stderr
    return json.loads(ended.stdout)


def owners(relay: Relay) -> dict[int, list[int]]:
    return {w["worker"]: w["partitions"] for w in ctl(relay, "status")["workers"]}


def test_more_and_fewer_workers(tmp_path: Path) -> None:
    with Relay(tmp_path / "data", workers=2) as relay, Traffic(relay) as traffic:
        assert ctl(relay, "workers", "4") == {"workers": 4, "before": 2}
        wait_until(lambda: [len(p) for p in owners(relay).values()] == [4] * 4, "four homes")
        traffic.goes_on("with four workers")
        os.kill(relay.pid, signal.SIGTTOU)
        wait_until(lambda: [len(p) for p in owners(relay).values()] == [6, 5, 5], "three homes")
        traffic.goes_on("with three workers")
        ctl(relay, "workers", "1")
        wait_until(lambda: owners(relay) == {0: list(range(16))}, "one home")
        assert len(relay.worker_pids()) == 1
        os.kill(relay.pid, signal.SIGTTOU)
        wait_until(lambda: relay.events("resize_refused"), "that there is always one")
        assert relay.events("resize_refused")[0]["reason"] == "workers: from 1 to 256, not 0"
        traffic.goes_on("with one worker")
        os.kill(relay.pid, signal.SIGTTIN)
        wait_until(lambda: [len(p) for p in owners(relay).values()] == [8, 8], "two homes again")
        traffic.goes_on("with two workers again")
        refused = run_relay("ctl", "--data", relay.data, "workers", "1000")
        assert (refused.returncode, refused.stderr) == (
            1,
            "relay: workers: from 1 to 256, not 1000\n",
        )
        assert not relay.events("partition_unavailable")
        assert not relay.events("partition_new_epochs")


@pytest.mark.parametrize("workers", [1, 2])
def test_all_workers_are_replaced(tmp_path: Path, workers: int) -> None:
    """A single worker has no other to hand over to: its clients wait for the next one."""
    with Relay(tmp_path / "data", workers=workers) as relay, Traffic(relay) as traffic:
        before = set(relay.worker_pids())
        assert ctl(relay, "restart") == {"workers": workers}
        wait_until(
            lambda: len(now := set(relay.worker_pids())) == workers and not now & before,
            "other workers",
        )
        traffic.goes_on("with the first others")
        shares = [16 // workers] * workers
        wait_until(lambda: [len(p) for p in owners(relay).values()] == shares, "even shares")
        traffic.goes_on("with other workers")
        assert not relay.events("partition_new_epochs")
        wait_until(lambda: len(relay.events("child_exited")) == workers, "the end of the others")
        assert {event["how"] for event in relay.events("child_exited")} == {"exit code 0"}


def test_an_old_worker_is_replaced(tmp_path: Path) -> None:
    with (
        Relay(tmp_path / "data", workers=2, settings={"server.max_worker_age_s": 1}) as relay,
        Traffic(relay) as traffic,
    ):
        wait_until(lambda: len(relay.events("child_leaving")) >= 3, "workers that leave")
        traffic.goes_on("with young workers")


def test_presence_and_names_go_with_their_home(tmp_path: Path) -> None:
    """The new home knows who is in a room, and that a guest's name is taken, and later free."""
    with Relay(tmp_path / "data", workers=1) as relay:
        with (
            BlockingClient(relay.address, name="~ann") as ann,
            BlockingClient(relay.address, name="~bob") as bob,
        ):
            for client in (ann, bob):
                for room in ROOMS:
                    client.join(room)
            ctl(relay, "workers", "4")
            wait_until(lambda: [len(p) for p in owners(relay).values()] == [4] * 4, "four homes")
            for room in ROOMS:

                def both(room: str = room) -> bool:
                    return {m.name for m in ann.who(room).members} == {"~ann", "~bob"}

                wait_until(both, f"both in {room}")
        ctl(relay, "workers", "1")
        wait_until(lambda: owners(relay) == {0: list(range(16))}, "one home")
        with BlockingClient(relay.address, name="~ann") as ann:
            assert ann.send("lobby", "the name is free again").seq == 2


def test_a_spare_takes_the_place_of_a_killed_worker(tmp_path: Path) -> None:
    with Relay(tmp_path / "data", workers=2) as relay, Traffic(relay) as traffic:
        spare = relay.only("relay: spare")
        relay.kill_worker()
        assert spare in relay.worker_pids(), "it is in the place"
        traffic.goes_on("with the spare")
        os.kill(relay.only("relay: spare"), signal.SIGKILL)
        wait_until(lambda: relay.events("spare_exited"), "its end")
        relay.kill_worker()
        traffic.goes_on("without a spare")
        wait_until(lambda: relay.pids_titled("relay: spare"), "another spare")


async def test_clients_are_shared_again_with_a_worker_that_was_added(tmp_path: Path) -> None:
    """They resume there: each reads every message once."""
    settings = {"server.rebalance_s": 1}
    with Relay(tmp_path / "data", workers=1, settings=settings) as relay:
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(Client(relay.address, name=f"reader{number}"))
                for number in range(24)
            ]
            for client in clients:
                await client.join("lobby")
            ctl(relay, "workers", "2")

            def loads() -> list[int]:
                return [worker["connections"] for worker in ctl(relay, "status")["workers"]]

            sent = 0
            deadline = asyncio.get_running_loop().time() + 60
            while (await asyncio.to_thread(loads)) not in ([12, 12], [13, 11], [11, 13]):
                assert asyncio.get_running_loop().time() < deadline, loads()
                sent += 1
                await clients[0].send("lobby", str(sent))
            for client in clients:
                read: list[int] = []
                while len(read) < sent:
                    event = await anext(client)
                    assert not isinstance(event, Gap)
                    if isinstance(event, Message):
                        read.append(int(event.text))
                assert read == list(range(1, sent + 1))
        assert relay.events("rebalancing")
