"""USR2: the version on disk takes over while clients write; or it cannot, and nothing changes.

A version is a copy of the package with some changes, started through a link, as docs/operations.md,
"Upgrading", tells an operator to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import relay as package
from relay import BlockingClient, Client, Message, State, StateChanged
from relay.store.file.format import FORMAT_VERSION
from relay.testing import RelayNotStarted
from tests.support.cluster import DEADLINE_S, Relay, relay_command, run_relay, wait_until
from tests.support.traffic import Traffic
from tests.support.versions import NEVER_STARTS, OTHER_FORMAT, Versions
from tests.system.test_ctl import asked

PRESENT_FORMAT = f"FORMAT_VERSION: Final = {FORMAT_VERSION}"
SLOW = {
    "start": ("server/control/main.py", "import gc\n", "import time; time.sleep(600)\n"),
    "worker": NEVER_STARTS,
}
LEAVES = "        self._state.leaves(child, now, self._config.graceful_timeout_s())\n"
VERSION = ("__init__.py", f'__version__ = "{package.__version__}"', '__version__ = "99.0"')


class Prober:
    """Connects repeatedly: no connection may be refused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._done = threading.Event()
        self.refused: list[OSError] = []
        self.connected = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._done.wait(0.02):
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S).close()
                self.connected += 1
            except OSError as error:
                self.refused.append(error)

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join(DEADLINE_S)
        assert self.connected
        assert self.refused == []


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path)


@contextlib.contextmanager
def running(versions: Versions, *flags: str, count: int = 2, **settings: object) -> Iterator[Relay]:
    """A relay of the current version, with two workers or as many as given."""
    data = versions.current.with_name("data")
    named = {name.replace("__", "."): value for name, value in settings.items()}
    with Relay(data, *flags, workers=count, source=versions.current, settings=named) as relay:
        yield relay


def upgrade(relay: Relay) -> None:
    """Send the signal, and wait until the next version serves, and nothing else does."""
    before, ends = set(processes(relay)), _ends(relay)
    os.kill(relay.pid, signal.SIGUSR2)
    wait_until(lambda: _ends(relay) != ends, "the upgrade")
    assert _ends(relay) == (ends[0] + 1, ends[1])
    wait_until(lambda: not before & set(processes(relay)), "nothing left of the one before")


def _ends(relay: Relay) -> tuple[int, int]:
    return len(relay.events("upgraded")), len(relay.events("upgrade_failed"))


def refusal(relay: Relay) -> str:
    """Send the signal, and return why the upgrade was refused."""
    before = len(relay.events("upgrade_failed"))
    os.kill(relay.pid, signal.SIGUSR2)
    wait_until(lambda: len(relay.events("upgrade_failed")) > before, "that it failed")
    return str(relay.events("upgrade_failed")[-1]["reason"])


def all_is_well(relay: Relay) -> bool:
    """Return True if the relay is ready, and no process is away even briefly."""
    status = asked(relay, "status")
    return bool(status["ready"]) and not status["warnings"]


def nothing_is_left(relay: Relay) -> None:
    """Wait until no process of a relay exists that has been told to end."""
    wait_until(lambda: not relay.running and not relay.pids_titled("relay:"), "the end of all")


def processes(relay: Relay) -> list[int]:
    titles = ("supervisor", "control", "key agent", "worker")
    return [pid for title in titles for pid in relay.pids_titled(f"relay: {title}")]


def settled(relay: Relay) -> list[int]:
    """Return its processes once all have their titles, including the spare worker."""
    wait_until(
        lambda: len(processes(relay)) == 5 and relay.pids_titled("relay: spare"), "all processes"
    )
    return processes(relay)


def stay(relay: Relay, before: list[int]) -> None:
    """Wait until its processes are those of before.

    The spare worker is started anew: until it sets its title, it has its supervisor's.
    """
    wait_until(lambda: processes(relay) == before, f"none but {before}")


def at_the_second_leave(action: str) -> tuple[str, str, str]:
    """Return a change: a version that does this when one of two workers has left."""
    second = f"        if len(self._state.before) == 1:\n            {action}\n"
    return ("server/supervisor/owners.py", LEAVES, second + LEAVES)


@pytest.mark.parametrize("rolls", [True, False], ids=["workers", "switch"])
def test_forth_and_back_while_people_write(versions: Versions, *, rolls: bool) -> None:
    with running(versions) as relay:
        with Traffic(relay) as traffic, Prober(relay.port):
            versions.install("next", VERSION, *(() if rolls else (OTHER_FORMAT,)))
            upgrade(relay)
            (ready,) = relay.events("upgrade_ready")
            assert (ready["worker_by_worker"], ready["formats_differ"]) == (
                (True, []) if rolls else (False, ["bus"])
            )
            traffic.goes_on("with the next version")
            assert any(traffic.resumed.values()), "tickets of the previous version are accepted"
            status = asked(relay, "status")
            assert (status["version"], status["ready"]) == ("99.0", True)
            assert len(relay.worker_pids()) == 2
            versions.install("present")
            back = run_relay("ctl", "--data", relay.data, "upgrade")
            assert back.returncode == 0, back.stderr
            assert f"relay {package.__version__} (" in back.stdout
            assert ") has taken over from 99.0 (" in back.stdout
            traffic.goes_on("with the version from before")
            assert asked(relay, "status")["version"] == package.__version__
            wait_until(lambda: len(processes(relay)) == 5, "nothing left of the others")
            relay.kill_worker()
            traffic.goes_on("with another worker")
        # The process started by the operator is the parent of the serving one: signals are passed
        # on.
        os.kill(relay.pid, signal.SIGHUP)
        wait_until(lambda: relay.events("reloaded"), "a reload")
        assert relay.stop() == 0
        assert not relay.events("child_killed")
        assert not relay.events("partition_new_epochs")
        assert not any(line["level"] == "error" for line in _lines(relay))
        assert not list((relay.data / "run").rglob("*.sock"))


@pytest.mark.parametrize("workers", [1, 3])
def test_each_client_is_sent_away_once(versions: Versions, workers: int) -> None:
    """By its worker, to a worker of the next version; counters include the previous workers'."""

    async def people(relay: Relay) -> list[int]:
        online, resumed = [0] * 8, 0
        listening = asyncio.Event()

        async def listen(number: int, client: Client) -> None:
            async for event in client:
                if isinstance(event, StateChanged) and event.state is State.ONLINE:
                    online[number] += 1
                    listening.set()

        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            tasks, clients = [], []
            for number in range(len(online)):
                client = Client(relay.address, name=f"~p{number}")
                clients.append(client)
                await stack.enter_async_context(client)
                await client.join("lobby")
                await client.send("lobby", "here")
                tasks.append(group.create_task(listen(number, client)))
            await asyncio.to_thread(upgrade, relay)
            async with asyncio.timeout(DEADLINE_S):
                while min(online) < 2:
                    listening.clear()
                    await listening.wait()
            assert (await client.who("lobby")).members
            resumed = sum(client.statistics["resumptions"] for client in clients)
            for task in tasks:
                task.cancel()
        assert resumed, "tickets of the previous version are accepted"
        return online

    with running(versions, count=workers, server__worker_timeout_s=600) as relay:
        versions.install("next", VERSION)
        online = asyncio.run(people(relay))
        assert online == [2] * len(online), "at the first login, and once more"
        assert asked(relay, "status")["messages_accepted"] == len(online)
        assert relay.stop() == 0


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("__import__('os')._exit(9)", "it ended with exit code 9"),
        ("__import__('signal').raise_signal(15)", "it was told to stop (SIGTERM)"),
    ],
    ids=["dies", "told"],
)
def test_its_end_in_the_middle(versions: Versions, action: str, reason: str) -> None:
    """One of two workers has left when the new version dies, or somebody ends it: the running one
    goes on with two.
    """
    with running(versions) as relay:
        with Traffic(relay) as traffic, Prober(relay.port):
            versions.install("dies", VERSION, at_the_second_leave(action))
            assert refusal(relay) == reason
            wait_until(lambda: len(relay.worker_pids()) == 2, "another worker")
            traffic.goes_on("with workers of the version that stayed")
            wait_until(lambda: all_is_well(relay), "that all is well")
            wait_until(lambda: relay.pids_titled("relay: spare"), "a spare process, as before")
            assert asked(relay, "status")["version"] == package.__version__
            left = len(relay.events("child_leaving"))
            assert asked(relay, "restart") == {"workers": 2}
            wait_until(lambda: len(relay.events("child_leaving")) == left + 2, "a restart")
            traffic.goes_on("with others in their places")
            versions.install("present")
            upgrade(relay)
            traffic.goes_on("with the next version after all")
        wait_until(lambda: len(processes(relay)) == 5, "nothing left of the others")
        assert relay.stop() == 0
        assert not relay.events("partition_unavailable")


def test_the_end_of_the_one_before_in_the_middle(versions: Versions) -> None:
    """It and its workers are killed after one of two has left: the new version goes on."""
    with running(versions) as relay:
        with Traffic(relay) as traffic:
            kills = "__import__('os').kill(__import__('os').getppid(), 9)"
            versions.install("kills", VERSION, at_the_second_leave(kills))
            before = set(processes(relay))
            os.kill(relay.pid, signal.SIGUSR2)
            wait_until(lambda: relay.events("upgraded"), "that the next one serves")
            traffic.goes_on("with the next one")
        wait_until(lambda: not before & set(processes(relay)), "the end of those before")
        assert asked(relay, "status")["version"] == "99.0"
        os.kill(int(relay.events("upgraded")[0]["pid"]), signal.SIGTERM)
        nothing_is_left(relay)
        assert relay.events("stopped")


def test_a_stop_in_the_middle(versions: Versions) -> None:
    """Workers of both versions leave as in any stop."""
    with running(versions) as relay, BlockingClient(relay.address, name="alice") as alice:
        assert alice.send("lobby", "hello").seq == 2
        stops = "__import__('os').kill(__import__('os').getppid(), 15)"
        versions.install("stops", VERSION, at_the_second_leave(stops))
        os.kill(relay.pid, signal.SIGUSR2)
        nothing_is_left(relay)
        assert relay.stop() == 0
        assert not relay.events("child_killed")
        assert not relay.events("upgrade_failed")


def test_what_has_to_wait_until_it_is_over(versions: Versions) -> None:
    """A stopped worker does not leave: until it does, no other operation changes the workers."""
    with running(versions, server__worker_timeout_s=600) as relay:
        versions.install("next", VERSION)
        stopped = relay.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        os.kill(relay.pid, signal.SIGUSR2)
        wait_until(lambda: len(relay.worker_pids()) == 4, "workers of both")
        for command in (("restart",), ("workers", "3"), ("reload",)):
            ended = run_relay("ctl", "--data", relay.data, *command)
            assert (ended.returncode, ended.stderr) == (
                1, "relay: an upgrade is under way; try again when it is over\n",
            )  # fmt: skip
        again = run_relay("ctl", "--data", relay.data, "upgrade")
        assert (again.returncode, again.stderr) == (1, "relay: an upgrade is under way\n")
        os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: relay.events("upgraded"), "the upgrade")
        assert relay.stop() == 0


def test_a_reload_while_it_gets_ready(versions: Versions) -> None:
    """It has read the settings already, and reads them again."""
    config = versions.current.with_name("relay.toml")
    released = versions.current.with_name("go-on")
    config.write_text("[limits]\nrooms_per_minute = 61\n")
    waits = (
        f"import gc, os, time\nwhile not os.path.exists({str(released)!r}):\n    time.sleep(0.05)\n"
    )
    with running(versions, "--config", str(config)) as relay:
        versions.install("waits", ("server/control/main.py", "import gc\n", waits))
        os.kill(relay.pid, signal.SIGUSR2)
        wait_until(lambda: len(relay.events("agent_ready")) == 2, "its key agent")
        config.write_text("[limits]\nrooms_per_minute = 62\n")
        changed = {"limits.rooms_per_minute": "61 -> 62"}
        assert asked(relay, "reload") == {"changed": changed}
        wait_until(lambda: len(relay.events("reloaded")) == 2, "that both have read them")
        released.touch()
        wait_until(lambda: relay.events("upgraded"), "the upgrade")
        assert [event["changed"] for event in relay.events("reloaded")] == [changed, changed]
        assert asked(relay, "reload") == {"changed": {}}
        assert relay.stop() == 0


def _lines(relay: Relay) -> list[dict[str, object]]:
    names = ("boot_failed", "process_failed", "upgrade_lost", "bus_socket_replaced")
    return [line for name in names for line in relay.events(name)]


CANNOT_TAKE_OVER = (
    (("server/startup/start.py", "import gc\n", "import gcc\n"), "No module named 'gcc'"),
    (("server/worker/process/main.py", "import uvloop\n", "import uvlop\n"), "worker"),
    (("server/control/main.py", "import gc\n", "import gcc\n"), "control cannot start"),
    (
        ("store/file/format.py", PRESENT_FORMAT, "FORMAT_VERSION: Final = 99"),
        "an upgrade changes no data: make a backup, stop it, and start this one",
    ),
    (
        ("server/supervisor/handover.py", "FORMAT: Final = 1", "FORMAT: Final = 99"),
        "hands over in format 1, and this one takes 99: stop it, and start this one",
    ),
)


def test_versions_that_cannot_take_over(versions: Versions) -> None:
    """One after the other: each is refused for its reason, and the relay goes on as before."""
    with running(versions) as relay:
        before = settled(relay)
        with Traffic(relay) as traffic, Prober(relay.port):
            for number, (change, reason) in enumerate(CANNOT_TAKE_OVER):
                versions.install(f"broken{number}", change)
                assert reason in refusal(relay)
                if number == 0:
                    ended = run_relay("ctl", "--data", relay.data, "upgrade")
                    assert ended.returncode == 1
                    assert "not upgraded, the relay continues as before: " in ended.stderr
                    assert reason in ended.stderr
                versions.install("present")  # or a replaced worker would be of this version
                traffic.goes_on("as before")
                stay(relay, before)
        assert asked(relay, "status")["ready"]
        assert relay.stop() == 0


def test_settings_that_it_refuses(versions: Versions) -> None:
    config = versions.current.with_name("relay.toml")
    config.write_text("")
    with running(versions, "--config", str(config)) as relay:
        before = settled(relay)
        config.write_text("[server]\nwrokers = 3\n")
        assert "wrokers: no such setting; did you mean server.workers?" in refusal(relay)
        elsewhere = config.with_name("elsewhere")
        config.write_text(f'[server]\nruntime = "{elsewhere}"\n')
        assert "server.runtime changes only with a restart" in refusal(relay)
        stay(relay, before)
        config.write_text("[limits]\nrooms_per_minute = 77\n")
        upgrade(relay)


def test_who_may_register_changes_with_the_upgrade_alone(versions: Versions) -> None:
    """It is stored in the data directory, which a version that cannot take over does not change."""
    closed = ("server/registration.py", "wanted = settings.registration", 'wanted = "closed"')
    broken = ("server/worker/process/main.py", "import uvloop\n", "import uvlop\n")
    with running(versions) as relay:
        record = relay.data / "accounts.toml"
        before = record.read_text()
        versions.install("broken", closed, broken)
        assert "worker" in refusal(relay)
        assert record.read_text() == before
        assert 'registration = "open"' in before
        versions.install("closed", closed)
        upgrade(relay)
        assert 'registration = "closed"' in record.read_text()
        assert [line["registration"] for line in relay.events("registration_changed")] == ["closed"]


def test_its_end_before_it_was_ready(versions: Versions) -> None:
    """It is killed, or the running server dies: nothing of the failed version is left."""
    with running(versions) as relay:
        before = settled(relay)
        versions.install("slow", SLOW["start"])
        for kill_old in (False, True):
            os.kill(relay.pid, signal.SIGUSR2)
            count = 1 + kill_old
            wait_until(lambda: len(relay.events("upgrade_began")) == count, "its begin")  # noqa: B023
            pid = int(relay.events("upgrade_began")[-1]["pid"])
            wait_until(lambda: len(relay.events("agent_ready")) == 1 + count, "its key agent")  # noqa: B023
            os.kill(relay.pid, signal.SIGUSR2)
            wait_until(lambda: len(relay.events("upgrade_refused")) == count, "one at a time")  # noqa: B023
            os.kill(relay.pid if kill_old else pid, signal.SIGKILL)
            if not kill_old:
                wait_until(lambda: relay.events("upgrade_failed"), "that it failed")
                # Its children end with it, perhaps a moment later.
                wait_until(lambda: processes(relay) == before, "the end of what it had started")
        nothing_is_left(relay)
        versions.install("present")
        relay.kill()
        relay.start()
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.send("lobby", "hello").seq == 2


@pytest.mark.parametrize("slow", SLOW)
def test_a_stop_while_it_gets_ready(versions: Versions, slow: str) -> None:
    """It is not an error of the next version, and whoever waits for that does not wait longer."""
    with running(versions) as relay:
        versions.install("slow", SLOW[slow])
        command = relay_command("ctl", "--data", relay.data, "upgrade")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as asks:
            wait_until(lambda: len(relay.events("agent_ready")) == 2, "its key agent")
            os.kill(relay.pid, signal.SIGTERM)
            _, told = asks.communicate(timeout=DEADLINE_S)
        assert told in {
            f"relay: not upgraded: the relay {why}\n" for why in ("is stopping", "has ended")
        }
        assert asks.returncode == 1
        nothing_is_left(relay)
        assert relay.stop() == 0
        assert not relay.events("upgrade_failed")


def test_its_end_after_it_got_everything(versions: Versions) -> None:
    """No process serves any more: the old one logs that, and can still be told to hurry."""
    told = "        if takeover.step is Step.GONE:\n"
    dies = ("server/supervisor/succession.py", told, "        os._exit(9)\n" + told)
    with running(versions, server__worker_timeout_s=600) as relay:
        versions.install("dies", dies, OTHER_FORMAT)
        stopped = relay.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)  # so that this one does not end by itself
        os.kill(relay.pid, signal.SIGUSR2)
        wait_until(lambda: relay.events("upgrade_lost"), "the end of the next one")
        assert relay.events("upgrade_lost")[0]["how"] == "exit code 9"
        os.kill(relay.pid, signal.SIGTERM)
        wait_until(lambda: relay.events("stopping"), "that it has heard")
        assert relay.stop() == 1
        versions.install("present")
        relay.start()
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.send("lobby", "hello").seq == 2


def test_the_service_manager_is_told_who_serves(versions: Versions, tmp_path: Path) -> None:
    """Then the old process ends: systemd knows the new main process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        data = tmp_path / "data"
        launcher = f"import os\nos.environ.update(NOTIFY_SOCKET={str(tmp_path / 'notify')!r})"
        with Relay(data, workers=2, source=versions.current, launcher=launcher) as relay:
            assert manager.recv(4096).decode() == "READY=1\nSTATUS=serving"
            started = relay.pid
            os.kill(started, signal.SIGUSR2)
            told = manager.recv(4096).decode()
            assert told.startswith("MAINPID=")
            main = int(told.removeprefix("MAINPID="))
            assert manager.recv(4096).decode() == "READY=1\nSTATUS=serving"
            wait_until(lambda: not relay.running, "the end of the one from before")
            assert asked(relay, "status")["pid"] == main
            with BlockingClient(relay.address, name="alice") as alice:
                assert alice.send("lobby", "hello").seq == 2
            os.kill(main, signal.SIGTERM)
            nothing_is_left(relay)
            assert relay.events("stopped")


def test_a_unix_socket_and_a_passphrase_from_a_descriptor(versions: Versions) -> None:
    """The socket's name stays; the passphrase read from the pipe is handed over."""
    path = versions.current.with_name("relay.sock")
    passphrase = (
        "import os\nr, w = os.pipe()\nos.write(w, b'correct horse')\nos.close(w)\n"
        "os.dup2(r, 9)\nos.set_inheritable(9, True)"
    )
    with Relay(
        versions.current.with_name("data"),
        "--bind",
        f"unix:{path}",
        source=versions.current,
        settings={"server.key_passphrase": "fd:9", "server.proxies": "unix"},
        launcher=passphrase,
    ) as relay:
        upgrade(relay)
        upgrade(relay)
        relay.kill_agent()
        assert path.is_socket()
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.send("lobby", "hello").seq == 2
        assert relay.stop() == 0
        assert not path.exists()


def test_another_format_and_back_again(versions: Versions) -> None:
    """As "Upgrading" describes: backup, stop, next version; and back, with the backup."""
    data = versions.current.with_name("data")
    backup, aside = data.with_name("backup"), data.with_name("aside")
    begin = "    if found == 0:\n        connection.execute(TABLES)"
    as_it_is = (
        f"    if found == {FORMAT_VERSION}:\n"
        '        pragma(connection, "user_version=99")\n        return\n'
    )
    other_format = (
        ("store/file/format.py", PRESENT_FORMAT, "FORMAT_VERSION: Final = 99"),
        ("store/file/format.py", ", FORMAT_VERSION)", f", {FORMAT_VERSION}, FORMAT_VERSION)"),
        ("store/file/schema.py", begin, as_it_is + begin),
    )
    relay = Relay(data, workers=2, source=versions.current)
    with relay:
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.send("lobby", "before").seq == 2
            versions.install("next", *other_format)
            assert "an upgrade changes no data" in refusal(relay)
            made = run_relay("backup", "create", backup, "--data", data)
            assert made.returncode == 0, made.stderr
            relay.stop()
            relay.start()
            assert alice.send("lobby", "in the other format").seq == 3
        relay.stop()
        versions.install("present")
        with pytest.raises(RelayNotStarted, match="has format 99; this Relay reads"):
            relay.start()
        data.rename(aside)
        restored = run_relay("backup", "restore", backup, "--data", data)
        assert restored.returncode == 0, restored.stderr
        relay.start()
        with BlockingClient(relay.address, name="bob") as bob:
            bob.join("lobby")
            read = [e.body for e in bob.history("lobby").entries if isinstance(e, Message)]
            assert read == [b"before"]
        relay.stop()
