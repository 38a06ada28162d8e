"""Run the commands of docs/operations.md as they are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from relay import BlockingClient
from relay.cli.main import relay as program
from tests.support.cluster import COMMAND_S, ROOT, Relay, run_relay, wait_until
from tests.support.versions import Versions
from tests.support.watching import Watcher
from tests.system.test_ctl import in_time

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PROGRAMS = ("relay", "curl", "mv", "ln", "python3", "/opt/relay/0.2.0/bin/pip")
RUNBOOKS = (
    "The key is lost, or stolen", "Restore", "Upgrade, and back", "An attack", "A slow client",
)  # fmt: skip
ON_A_RELAY = (*RUNBOOKS, "Monitoring", "Administration", "Changing and replacing workers")
OTHERWISE = (
    "Start", "The server's key", "Settings", "Upgrading", "Backup", "A refused partition",
    "Export and import",
)  # fmt: skip
"""Headings whose commands have a test of their own."""
NO_COMMANDS = {
    "Separate users": "lines of a settings file",
    "Processes": "a list",
    "In a container": "there is no podman",
    "Compiled or interpreted": "CI runs make test-compiled",
    "What clients notice": "CI runs make drill",
}
EXAMPLES = ("relay: ", "scrape_configs:", "  - job_name", "    static_configs", "rule_files")


def commands(heading: str) -> list[str]:
    """Return the lines of code below a heading, up to the next heading, without comments."""
    found = [line[4:] for line in section(heading).splitlines() if line.startswith("    ")]
    lines = [line.partition("  #")[0].rstrip() for line in found if not line.startswith(EXAMPLES)]
    return [line for line in lines if line]


def test_every_command_is_run_by_a_test() -> None:
    headings = re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)
    with_code = {heading for heading in headings if commands(heading)}
    assert with_code == {*ON_A_RELAY, *OTHERWISE, *NO_COMMANDS}
    for heading in (*ON_A_RELAY, *OTHERWISE):
        for line in commands(heading):
            assert line.startswith(tuple(f"{one} " for one in PROGRAMS)), line


OTHERS_RUN = {"drain", "restart", "upgrade", "workers"}
"""Except those of the table of ``relay ctl``, whose commands are in blocks of code as well."""
OWN_WORDS = {
    "ACTION NAME": "show alice", "ACTION ROOM ...": "show lobby", "--name NAME": "--name carol",
    "BACKUP": "/backups/by-ctl", "LEVEL": "info",
}  # fmt: skip


def section(heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    [text] = re.findall(rf"\n##+ {re.escape(heading)}\n(.*?)(?=\n##+ |\Z)", PAGE, re.DOTALL)
    return str(text)


def of_the_table(taken: str) -> list[str]:
    """Return the commands of the table of ``relay ctl``; ``taken``: the id of a connection."""
    rows = re.findall(r"^\| `relay (ctl .*?)` \|", section("Administration"), re.MULTILINE)
    found = [f"ctl {one.removeprefix('ctl ')}" for row in rows for one in row.split("`, `")]
    for word, own in {**OWN_WORDS, "ID": taken}.items():
        found = [re.sub(rf" {re.escape(word)}$", f" {own}", one) for one in found]
    return [
        f"relay {one} --data /var/lib/relay" for one in found if one.split()[1] not in OTHERS_RUN
    ]


def test_what_the_text_names_exists() -> None:
    """Each command and option that is named outside of a block of code."""
    text = "\n".join(line for line in PAGE.splitlines() if not line.startswith("    "))
    named = re.findall(r"`(relay [a-z-].*?)`", text)
    assert len(named) > 50
    for line in named:
        command: click.Command = program
        for word in line.split()[1:]:
            if word.startswith("--"):
                known = {option for one in command.params for option in one.opts}
                assert word in known, line
            elif isinstance(command, click.Group) and re.fullmatch(r"[a-z-]+", word):
                found = command.get_command(click.Context(command), word)
                assert found is not None, line
                command = found


class Operator:
    """A shell whose paths differ from those of the page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data, self.backups = directory / "relay", directory / "backups"
        self.backups.mkdir()
        self.places = {
            "/var/lib/relay": str(self.data),
            "/backups": str(self.backups),
            "/etc/relay.toml": str(directory / "relay.toml"),
            "/opt/relay": str(directory / "opt"),
        }
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def there(self, line: str) -> str:
        """Replace the page's paths in a line by those of this test."""
        for place, here in self.places.items():
            line = line.replace(place, here)
        return line

    def run(self, line: str) -> str:
        """Run a line; return its output."""
        words = self.there(line).split()
        if words[:2] == ["relay", "ctl"] and '"' not in line:
            return in_time(*words[1:])
        if words[0] == "relay" and words[1] != "data" and '"' not in line:
            done = run_relay(*words[1:])  # a fork of a process that has imported the program
        else:
            done = subprocess.run(
                ["sh", "-c", self.there(line)],
                cwd=self.directory, env=self.environment, capture_output=True, text=True,
                check=False, timeout=COMMAND_S,
            )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def serve(self, line: str) -> None:
        """Run a server until it has printed its address, on free ports."""
        line = self.there(line).replace("0.0.0.0:7475", "0.0.0.0:0")
        environment = {**self.environment, "RELAY_CONTROL__BIND": "127.0.0.1:0"}
        with subprocess.Popen(
            ["sh", "-c", f"exec {line}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as server:  # fmt: skip
            assert server.stdout is not None
            assert any("relay://" in told for told in server.stdout)
            server.terminate()
            assert server.wait(COMMAND_S) == 0


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def relay(operator: Operator) -> Iterator[Relay]:
    """A running relay."""
    control = operator.directory / "control.sock"
    with Relay(operator.data, workers=2, settings={"control.bind": "127.0.0.1:0"}) as relay:
        operator.places["127.0.0.1:7476"] = Watcher(relay).address
        operator.places["/run/relay/control.sock"] = str(control)
        yield relay


@pytest.mark.parametrize("heading", ON_A_RELAY)
def test_on_a_relay_that_runs(operator: Operator, relay: Relay, heading: str) -> None:
    with (
        BlockingClient(relay.address, name="alice") as alice,
        BlockingClient(relay.address, name="carol") as carol,
        BlockingClient(relay.address, name="mallory"),
    ):
        carol.send("lobby", "kept")
        operator.run("relay backup create /backups/2026-11-26 --data /var/lib/relay")
        if heading in RUNBOOKS:
            alice.send("lobby", "kept")
        for line in commands(heading):
            if "--unix-socket" in line:
                relay.stop()
                on_socket = {"control.bind": f"unix:{operator.places['/run/relay/control.sock']}"}
                with Relay(operator.data, settings=on_socket):
                    operator.run(line)
                relay.start()
                continue
            operator.run(line)
            if line.endswith(" drain"):
                wait_until(lambda: not relay.running, "the end of the relay")
        if not relay.running:
            relay.stop()
            relay.start()
        assert carol.send("lobby", "and on it goes").seq > 1


def test_the_table_of_ctl(operator: Operator, relay: Relay) -> None:
    """The other commands of the table."""
    with (
        BlockingClient(relay.address, name="alice") as alice,
        BlockingClient(relay.address, name="carol") as carol,
    ):
        carol.send("lobby", "kept")
        alice.join("lobby")
        listed = operator.run("relay ctl connections --name alice --json --data /var/lib/relay")
        [connection] = json.loads(listed)["items"]
        lines = of_the_table(connection["id"])
        assert len(lines) == 15, lines
        for line in lines:
            operator.run(line)


def test_start(operator: Operator) -> None:
    for line in commands("Start"):
        operator.serve(line)


def test_settings(operator: Operator) -> None:
    init, check, serve = commands("Settings")
    operator.run(init)
    operator.run(check)
    settings = operator.directory / "relay.toml"
    operator.environment["RELAY_STORE__DATA"] = str(operator.data)
    operator.environment["RELAY_SERVER__BIND"] = "127.0.0.1:0"
    assert settings.stat().st_size > 1000
    operator.serve(serve)


def test_the_servers_key(operator: Operator, relay: Relay) -> None:
    show, new, rotate = (f"{line} --data /var/lib/relay" for line in commands("The server's key"))
    before = operator.run(show)
    operator.run(new)
    relay.stop()
    operator.run(f"{rotate} --yes")  # for a change without the weeks of announcement
    assert operator.run(show) != before


def test_backups_and_what_goes_out_and_in(operator: Operator, relay: Relay) -> None:
    with BlockingClient(relay.address, name="alice") as alice:
        alice.send("lobby", "kept")
    (operator.directory / "irc.log").write_text(
        "--- Log opened Tue Nov 26 09:00:00 2024\n09:01 < bob> hello\n"
    )
    parts = ("Backup", "A refused partition", "Export and import")
    for line in [line for part in parts for line in commands(part)]:
        if "import" in line and relay.running:
            relay.stop()
        elif "export" in line and not relay.running:
            relay.stop()
            relay.start()
        operator.run(line)
        if " drain" in line:
            wait_until(lambda: not relay.running, "the end of the relay")
    assert (operator.directory / "lobby.jsonl").read_text().count("kept") == 1


def test_upgrading(operator: Operator) -> None:
    """The environment and the link are real; the package is this checkout's."""
    venv, install, link, upgrade = commands("Upgrading")
    versions = Versions(operator.directory / "versions")
    opt = operator.directory / "opt"
    opt.mkdir()
    operator.run(venv)
    wheel = install.split()[-1]
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(
        [*build, "--directory", str(operator.directory)],
        cwd=ROOT, check=True, capture_output=True, timeout=COMMAND_S,
    )  # fmt: skip
    [built] = operator.directory.glob("*.whl")
    # Without dependencies: they would come from the package index, and CI installs them.
    operator.run(
        install.replace("install", "install --no-deps --no-index").replace(wheel, str(built))
    )
    operator.run(link)
    assert (opt / "current" / "bin" / "relay").exists()
    with Relay(operator.data, workers=2, source=versions.current) as relay:
        before = relay.worker_pids()
        operator.run(upgrade)
        wait_until(lambda: not set(before) & set(relay.worker_pids()), "other workers alone")
