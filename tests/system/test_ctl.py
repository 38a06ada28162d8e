"""``relay ctl`` with a real relay, as an operator uses it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import BlockingClient, RelayError
from relay.cli.process.exits import CommandError
from relay.cli.server_commands.ctl_client import Server
from relay.server.supervisor.runtime_directory import find
from tests.support.cluster import DEADLINE_S, ROOT, Relay, run_relay, wait_until
from tests.support.terminals import Terminal
from tests.support.threads import beside
from tests.support.versions import NEVER_STARTS, Versions


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of two workers with a worker timeout that no test reaches."""
    data = tmp_path_factory.mktemp("relay") / "data"
    with Relay(data, workers=2, settings={"server.worker_timeout_s": 600}) as running:
        yield running


@pytest.fixture
def relay(shared: Relay) -> Relay:
    """The shared relay without connections of earlier tests. Each test uses names and rooms of its
    own.
    """
    wait_until(lambda: not asked(shared, "connections")["items"], "all others to be gone")
    wait_until(lambda: not asked(shared, "rooms")["items"], "nobody to follow a room")
    return shared


def ctl(relay: Relay, *args: str) -> subprocess.CompletedProcess[str]:
    return run_relay("ctl", "--data", relay.data, *args)


def asked(relay: Relay, *args: str) -> Any:  # noqa: ANN401  # JSON
    """Return the answer of ``ctl``, as soon as no process of the relay is late (``in_time``)."""
    return json.loads(in_time("ctl", "--data", str(relay.data), *args, "--json"))


def in_time(*command: str) -> str:
    """Run a command of ``relay ctl``; repeat it while a process of the relay has not answered or
    sent its heartbeat. Return its output.
    """
    deadline = time.monotonic() + DEADLINE_S
    while (ended := run_relay(*command)).returncode:
        late = "status" in command or "does not answer" in ended.stderr
        if not late or time.monotonic() > deadline:
            raise AssertionError(ended.stdout + ended.stderr)
    return ended.stdout


def status_of(relay: Relay, *texts: str) -> str:
    """Return the text of ``status`` once it exits with 0, as no heartbeat is late, and contains
    these.
    """
    found: list[str] = []

    def tells() -> bool:
        ended = ctl(relay, "status")
        found[:] = [ended.stdout]
        return ended.returncode == 0 and all(text in ended.stdout for text in texts)

    wait_until(tells, f"status to be 0, with {texts}")
    return found[0]


def test_who_is_there_and_what_they_follow(relay: Relay) -> None:
    with (
        BlockingClient(relay.address, name="ann") as ann,
        BlockingClient(relay.address, name="bob") as bob,
    ):
        for client in (ann, bob):
            client.join("lobby")
        ann.join("kitchen")
        ann.post("lobby", "hello").result()

        items = asked(relay, "connections")["items"]
        assert {item["name"]: item["rooms"] for item in items} == {"ann": 2, "bob": 1}
        assert {item["peer"] for item in items} == {"127.0.0.1"}
        assert len({item["id"] for item in items}) == 2
        (only,) = asked(relay, "connections", "--room", "kitchen")["items"]
        assert only["name"] == "ann"
        (only,) = asked(relay, "connections", "--name", "bob", "--limit", "1")["items"]
        assert only["name"] == "bob"
        rooms = asked(relay, "rooms")["items"]
        assert [(room["room"], room["connections"]) for room in rooms] == [
            ("lobby", 2),
            ("kitchen", 1),
        ]
        wait_until(
            lambda: asked(relay, "rooms")["items"][0]["head"] == 2, "the message in the room"
        )
        status = asked(relay, "status")
        assert (status["ready"], status["pid"]) == (True, relay.pid)
        assert sorted(p for worker in status["workers"] for p in worker["partitions"]) == [
            *range(16)
        ]
        text = ctl(relay, "status").stdout
        assert "ready" in text
        assert "WORKER" in text
        assert "ann" in ctl(relay, "connections").stdout


def closed(relay: Relay, name: str) -> list[dict[str, Any]]:
    """Return what is listed of the ended connections of a name."""
    return [one for one in asked(relay, "closed")["items"] if one["name"] == name]


PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def documented(command: str) -> set[str]:
    """Return the documented fields of a command's JSON; fields of nested objects have a prefix."""
    row = re.search(rf"^\| `{command}`[^|]*\| (.*) \|$", PAGE, re.MULTILINE)
    assert row is not None, command
    found = set()
    for part in row.group(1).split("; "):
        head, colon, rest = re.sub(r"\([^)]*\)", "", part).partition(":")
        names = re.findall(r"`([a-z_]+)(?:\[\])?`", rest or head)
        prefix = re.findall(r"`([a-z_\[\]]+)`", head)[0] + "." if colon else ""
        found |= {prefix + name for name in names}
    return found


def fields(document: dict[str, Any]) -> set[str]:
    """Return the fields that an answer has."""
    found = set()
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found |= {f"{key}[].{below}" for below in value[0]}
        elif isinstance(value, dict) and key == "disk":
            found |= {f"{key}.{below}" for below in value}
        else:
            found.add(key)
    return found


def test_what_programs_are_told_is_documented(relay: Relay) -> None:
    with (
        BlockingClient(relay.address, name="fay") as fay,
        BlockingClient(relay.address, name="gil") as gil,
    ):
        for client in (fay, gil):
            client.join("yard")
            client.send("yard", "hello")
        kicked = asked(relay, "kick", "--name", "gil")
        assert fields(kicked) == documented("kick")
        wait_until(lambda: closed(relay, "gil"), "the end of the other")
        wait_until(lambda: not asked(relay, "connections", "--name", "gil")["items"], "no trace")
        for command, *rest in (
            ("status",), ("connections",), ("rooms",), ("users",), ("closed",), ("reload",),
            ("reindex",), ("user show", "fay"), ("room show", "yard"), ("log-level", "info"),
            ("workers", "2"),
        ):  # fmt: skip
            assert fields(asked(relay, *command.split(), *rest)) == documented(command), command
        assert asked(relay, "connections", "--limit", "1")["more"] == 0
        fay.join("attic")
        assert asked(relay, "rooms", "--limit", "1")["more"] == 1
        assert "1 more; --limit" in ctl(relay, "rooms", "--limit", "1").stdout
        assert "--after " in ctl(relay, "users", "--limit", "1").stdout


def test_a_kick_is_final_for_the_client_and_remembered(relay: Relay) -> None:
    with BlockingClient(relay.address, name="kim") as kim:
        kim.join("market")
        (item,) = asked(relay, "connections")["items"]
        assert asked(relay, "kick", item["id"])["kicked"] == 1
        with pytest.raises(RelayError, match="operator"):
            kim.post("market", "still here?").result()
    wait_until(lambda: not asked(relay, "connections")["items"], "the end of its connection")
    wait_until(lambda: closed(relay, "kim"), "its entry")
    [found] = closed(relay, "kim")
    assert (found["reason"], found["id"]) == ("kicked", item["id"])
    assert "kicked" in ctl(relay, "closed").stdout
    again = ctl(relay, "kick", item["id"])
    assert (again.returncode, again.stderr) == (1, "relay: no such connection\n")
    assert ctl(relay, "kick").returncode == 2
    by_name = ctl(relay, "kick", "kim")
    assert by_name.returncode == 2
    assert "'kim' is not the ID of a connection, like 3-17; for a name, give --name" in " ".join(
        by_name.stderr.split()
    )


def test_the_log_level_of_all_processes(relay: Relay) -> None:
    before = len(relay.log)

    def debug_lines() -> list[str]:
        lines = relay.log[before:]
        return [line for line in lines if '"level": "debug"' in line and "session" in line]

    assert asked(relay, "log-level", "debug") == {"level": "debug", "before": "info"}

    def seen() -> bool:
        run_relay("send", relay.address, "log", text="hello\n")
        return bool(debug_lines())

    wait_until(seen, "a line of a worker at level debug")
    assert asked(relay, "log-level", "error")["before"] == "debug"
    assert ctl(relay, "log-level", "loud").returncode == 2
    assert asked(relay, "log-level", "info")["before"] == "error"


def test_drain_ends_the_relay(tmp_path: Path) -> None:
    """``relay ctl top`` keeps running: the relay may come back."""
    with Relay(tmp_path / "data", workers=2) as relay:
        with Terminal("ctl", "--data", str(relay.data), "top", "--interval", "0.2") as terminal:
            terminal.shows("q ends")
            assert asked(relay, "drain") == {"pid": relay.pid}
            wait_until(lambda: not relay.running, "its end")
            terminal.shows("no relay runs with the data directory")
            terminal.press("q")
            assert terminal.ends() == 0
        ended = ctl(relay, "status")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"relay: no relay runs with the data directory {relay.data}; ")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A short directory for sockets: their paths are limited to 107 bytes; pytest's may be
    longer.
    """
    with tempfile.TemporaryDirectory(prefix="relay-ctl-") as directory:
        yield Path(directory)


def test_it_is_found_by_its_data_wherever_its_sockets_are(tmp_path: Path, short_path: Path) -> None:
    """Also when the relay was started with a flag instead of a setting. Options go before or
    after.
    """
    runtime, data = short_path / "sockets", tmp_path / "data"
    with Relay(data, "--runtime", str(runtime)) as relay:
        for args in (("--data", data, "status"), ("status", "--data", data)):
            assert f"pid {relay.pid}" in run_relay("ctl", *args).stdout
        by_socket = run_relay("ctl", "status", "--socket", runtime / "ctl.sock")
        assert f"pid {relay.pid}" in by_socket.stdout
        with pytest.raises(
            CommandError, match=rf"runs \(process {relay.pid}\), but nobody answers"
        ):
            Server(tmp_path / "none", data).ask("status")
        copy = tmp_path / "copy"
        copy.mkdir(0o700)
        # other runtime directories come and go meanwhile
        for name in ("format", "lock", "runtime"):
            shutil.copy2(data / name, copy / name, follow_symlinks=False)
        ended = run_relay("ctl", "--data", copy, "drain")
        assert (ended.returncode, ended.stderr.partition(";")[0]) == (
            1, f"relay: no relay runs with the data directory {copy}",
        )  # fmt: skip
        (data / "lock").unlink()  # it is still found
        assert f"pid {relay.pid}" in run_relay("ctl", "--data", data, "status").stdout
    assert not (data / "runtime").is_symlink()
    with Relay(data) as relay:
        assert f"pid {relay.pid}" in run_relay("ctl", "--data", data, "status").stdout


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--data={0}/none", "no relay runs there: there is no directory {0}/none; name its data"),
        ("--data={0}", "no relay runs there: {0} is not a relay's data directory; name its data"),
        ("--socket={0}/none", "no relay answers at {0}/none; without --socket it is found by"),
    ],
)
def test_where_none_is(tmp_path: Path, option: str, why: str) -> None:
    ended = run_relay("ctl", "status", option.format(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("relay: " + why.format(tmp_path))


def test_a_worker_that_hangs_is_named(relay: Relay) -> None:
    """The other workers answer."""
    stopped = relay.worker_pids()[1]
    os.kill(stopped, signal.SIGSTOP)
    try:  # other tests use this relay as well
        told = (1, "relay: worker 1: it does not answer\n")
        # On a busy machine, another one may be late once.
        wait_until(
            lambda: ((ended := ctl(relay, "connections")).returncode, ended.stderr) == told,
            "the worker to be named",
        )
        wait_until(lambda: "hangs" in ctl(relay, "status").stdout, "its state")
        # Not at once: readiness gives it three seconds.
        wait_until(lambda: ctl(relay, "status").returncode == 1, "the relay not to be ready")
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: ctl(relay, "status").returncode == 0, "it to go on")


def test_a_suspended_supervisor_does_nothing_that_was_given_up(relay: Relay) -> None:
    """The request waits in its socket, longer than the operator."""
    os.kill(relay.pid, signal.SIGSTOP)
    try:
        ended = ctl(relay, "workers", "3")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "the supervisor does not answer: it is not known whether it was done" in ended.stderr
    finally:
        os.kill(relay.pid, signal.SIGCONT)
    wait_until(lambda: relay.events("request_refused"), "the request to be seen")
    assert asked(relay, "workers", "2") == {"workers": 2, "before": 2}


def test_a_worker_that_starts_is_missed_only_for_its_partitions(tmp_path: Path) -> None:
    """As during a restart or an upgrade. Its code on the disk ends in a sleep."""
    versions = Versions(tmp_path)
    settings = {"server.spare_worker": False, "server.worker_timeout_s": 600}
    data = tmp_path / "data"
    with Relay(data, workers=2, source=versions.current, settings=settings) as relay:
        with BlockingClient(relay.address, name="ann") as ann:
            ann.join("lobby")
            ann.send("lobby", "hello")
        versions.install("slow", NEVER_STARTS)
        assert asked(relay, "workers", "3") == {"workers": 3, "before": 2}
        for command in ("connections", "rooms", "closed", "top", "users", "invitations", "reindex"):
            ended = ctl(relay, command, "--json")
            assert (ended.returncode, ended.stderr) == (0, ""), command
        assert [user["name"] for user in asked(relay, "users")["items"]] == ["ann"]
        states = [worker["state"] for worker in asked(relay, "status")["workers"]]
        assert states == ["running", "running", "starting"]

        os.kill(relay.worker_pids()[1], signal.SIGKILL)  # the next one does not start either
        wait_until(lambda: relay.events("child_exited"), "its end")
        ended = ctl(relay, "users")
        assert (ended.returncode, ended.stderr) == (
            1, f"relay: no worker has the partitions {list(range(1, 16, 2))} now\n",
        )  # fmt: skip
        assert ctl(relay, "closed").returncode == 0


def test_top(relay: Relay) -> None:
    """It prints once if stdout is not a terminal; on a terminal it refreshes until q."""
    stop = threading.Event()

    def talk() -> None:
        with BlockingClient(relay.address, name="tom") as tom:
            tom.join("square")
            while not stop.wait(0.02):
                tom.post("square", "hello").result()

    with beside(talk, stop=stop):
        rooms: list[dict[str, Any]] = []

        def busy() -> bool:
            rooms[:] = asked(relay, "top", "--interval", "0.5")["rooms"]
            return bool(rooms)

        wait_until(busy, "a busy room")
        (room,) = rooms
        assert (room["room"], room["connections"]) == ("square", 1)
        assert room["messages_per_s"] > 0
        with Terminal("ctl", "--data", str(relay.data), "top", "--interval", "0.2") as terminal:
            terminal.shows("BUSIEST ROOM")
            terminal.shows("square")
            terminal.press("q")
            assert terminal.ends() == 0
        with Terminal("ctl", "--data", str(relay.data), "top", "--interval", "0.2") as terminal:
            terminal.shows("BUSIEST ROOM")
            terminal.process.terminate()
            assert terminal.ends() == -signal.SIGTERM
            assert "\x1b[?1049l" in terminal.text, "the alternate screen is left"


def test_top_tells_that_what_it_shows_is_old(relay: Relay) -> None:
    (control,) = relay.pids_titled("relay: control")
    with Terminal("ctl", "--data", str(relay.data), "top", "--interval", "0.2") as terminal:
        terminal.shows("q ends")
        os.kill(control, signal.SIGSTOP)
        try:
            # of "no answer for": only the changed part of a line is written
            terminal.shows("answer")
            assert "within" not in terminal.text, "it exited before its timeout"
            terminal.press("q")
            assert terminal.ends() == 0
        finally:
            os.kill(control, signal.SIGCONT)


def test_garbage_costs_its_sender_alone(relay: Relay) -> None:
    path = find("", relay.data) / "ctl.sock"
    for garbage in (b"", b"\n", b"[]\n", b'{"do": 1}\n', b'{"do": "status"', b"\xff" * 100_000):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect(str(path))
            try:
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                with sock.makefile("rb") as answers:
                    line = answers.read()
            except (ConnectionResetError, BrokenPipeError):
                line = b""
        assert not line or "error" in json.loads(line), garbage
    assert asked(relay, "status")["ready"]


def test_sockets_that_a_cleaner_removes_come_back(relay: Relay) -> None:
    runtime = find("", relay.data)
    for path in (runtime / "ctl.sock", *(runtime / "ctl").iterdir()):
        path.unlink()
    wait_until(lambda: ctl(relay, "connections").returncode == 0, "all sockets again")


def test_a_requests_connection_is_named_by_its_worker_and_by_its_home(tmp_path: Path) -> None:
    # some rooms have their home at the other worker
    rooms = {f"room-{number}" for number in range(8)}
    with Relay(tmp_path / "data", workers=2, settings={"log.level": "debug"}) as relay:
        with BlockingClient(relay.address, name="ann") as ann:
            for room in rooms:
                ann.create_room(room, "public")
            (item,) = asked(relay, "connections", "--name", "ann")["items"]

        def named(event: str) -> set[str]:
            lines = relay.events(event)
            return {line["log"] for line in lines if line["connection"] == item["id"]}

        wait_until(lambda: rooms <= named("request_asked"), "the log of who asks")
        wait_until(lambda: rooms <= named("request_answered"), "the log of who answers")
        wait_until(lambda: rooms == named("room_changed"), "the changes")
        logins = relay.events("logged_in")
        assert (item["id"], "ann") in {(line["connection"], line["handle"]) for line in logins}
        ctl(relay, "user", "disable", "ann")

        def disabled() -> list[dict[str, Any]]:
            return [e for e in relay.events("account_changed") if e["change"] == "disabled"]

        wait_until(disabled, "the change of the account")
        (changed,) = disabled()
        assert (changed["connection"], changed["by"]) == ("ctl", "operator")
