"""``python -X dev -W error``: no command leaves a resource open, or uses a deprecated function."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from relay import BlockingClient
from tests.support.cluster import COMMAND_S, DEADLINE_S, Relay, relay_command
from tests.support.terminals import Terminal


def strict(*args: str | Path) -> list[str]:
    """The command line under Python's development mode, with warnings as errors."""
    python, *rest = relay_command(*args)
    return [python, "-X", "dev", "-W", "error", *rest]


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        ("--help", "", 0),
        ("serve --check-config --data DATA", "", 0),
        ("send ADDRESS strict --name warned", "one\ntwo\n", 0),
        ("send 127.0.0.1:1 strict x --timeout 0.2", "", 1),
        ("tail 127.0.0.1:1 strict", "", 1),
        ("tail PLACE strict --known-servers DATA/known", "", 2),
        ("history ADDRESS strict --name warned", "", 0),
        ("room list ADDRESS --name warned", "", 0),
        ("room kick ADDRESS strict nobody-here --name warned", "", 1),
        ("account show ADDRESS --name warned", "", 0),
        ("device list ADDRESS --name warned", "", 0),
        ("export ADDRESS --name warned", "", 0),
        ("alias list", "", 0),
        ("config check -", "[server]\n", 0),
        ("key show --data RELAY", "", 0),
        ("ctl --data RELAY status", "", 0),
        ("backup create DATA/backup --data RELAY", "", 0),
        ("data export --data RELAY", "", 0),
    ],
)
def test_to_its_end(relay: Relay, tmp_path: Path, arguments: str, text: str, code: int) -> None:
    with BlockingClient(relay.address, name="~first") as first:
        first.send("strict", "for its history")
    places = {
        "ADDRESS": relay.address,
        "PLACE": f"127.0.0.1:{relay.port}",
        "DATA": str(tmp_path),
        "RELAY": str(relay.data),
    }
    line = [re.sub("[A-Z]{3,}", lambda found: places[found[0]], word) for word in arguments.split()]
    done = subprocess.run(
        strict(*line),
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == code
    told = _without_times(done.stderr)
    assert _clean(told)
    assert told or code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_tail_when_it_is_stopped(relay: Relay, room: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        strict("tail", relay.address, room, "--since", "0", "--name", "warned"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        send = strict("send", relay.address, room, "x", "--name", "warned")
        subprocess.run(send, check=True, timeout=COMMAND_S)
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(number)
        _, told = process.communicate(timeout=DEADLINE_S)
    assert _without_times(told) == ""


@pytest.mark.parametrize("keys", ["\x04", "\x03"])
def test_chat_at_a_terminal(relay: Relay, room: str, keys: str) -> None:
    with Terminal(program=strict("chat", relay.address, room, "--name", "anna")) as anna:
        anna.shows(f"{room}>")
        anna.press("hello\r")
        anna.shows("anna| ")
        anna.press(keys)
        anna.ends()
    assert _clean(anna.text)


def _clean(text: str) -> bool:
    return not any(word in text for word in ("Warning", "Traceback", "ignored in"))


def _without_times(text: str) -> str:
    """Leave out what asyncio reports in this mode of callbacks that take more than 0.1 s, as any
    does on a busy machine.
    """
    return re.sub(r"Executing .* took [0-9.]+ seconds\r?\n", "", text)
