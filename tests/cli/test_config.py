"""``relay config``: write a settings file, check it, show the effective settings."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tomllib
from pathlib import Path

from tests.support.cluster import COMMAND_S, relay_command, run_relay


def test_from_nothing_to_a_file_that_serves(tmp_path: Path) -> None:
    """As a user does: init, edit, check, show."""
    file = tmp_path / "relay.toml"
    assert run_relay("config", "init", file).returncode == 0
    assert set(tomllib.loads(file.read_text())) >= {"server", "store", "limits", "log"}
    file.write_text(file.read_text().replace("#workers = 0", "workers = 3"))

    checked = run_relay("config", "check", file)
    assert (checked.returncode, checked.stdout, checked.stderr) == (
        0,
        "The settings are valid.\n",
        "",
    )
    line = file.read_text().split("\n").index("workers = 3") + 1
    shown = run_relay(
        "config", "show", env={"RELAY_CONFIG": str(file), "RELAY_LOG__LEVEL": "debug"}
    )
    lines = shown.stdout.splitlines()
    assert f"server.workers = 3  # {file}:{line}" in lines
    assert 'log.level = "debug"  # RELAY_LOG__LEVEL' in lines
    assert 'store.durability = "process"  # default' in lines
    as_json = json.loads(run_relay("config", "show", "--json", file).stdout)
    assert as_json["server.workers"] == {"value": 3, "source": f"{file}:{line}"}
    assert as_json["server.bind"] == {"value": ["127.0.0.1:7475"], "source": "default"}


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("mine")
    ended = run_relay("config", "init", file)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"relay: {file}: exists and is not overwritten")
    assert file.read_text() == "mine"
    assert run_relay("config", "init").stdout.startswith("# Settings of a relay")


def test_a_file_that_cannot_be_written_completely_is_removed(tmp_path: Path) -> None:
    """As on a full disk: that is no mistake in the command."""
    file = tmp_path / "relay.toml"
    command = shlex.join(relay_command("config", "init", file))
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -f 1; exec {command}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (ended.returncode, ended.stderr) == (1, f"relay: {file}: File too large\n")
    assert not file.exists()


def test_a_dash_is_standard_input_and_output() -> None:
    printed = run_relay("config", "init", "-").stdout
    assert printed == run_relay("config", "init").stdout
    assert not Path("-").exists()
    settings = printed.replace("#workers = 0", "workers = 3")
    assert run_relay("config", "check", "-", text=settings).returncode == 0
    line = settings.split("\n").index("workers = 3") + 1
    shown = run_relay("config", "show", "-", text=settings).stdout
    assert f"server.workers = 3  # /dev/stdin:{line}" in shown.splitlines()


def test_check_tells_every_mistake(tmp_path: Path) -> None:
    """The same lines as ``relay serve``, which does not start."""
    file = tmp_path / "relay.toml"
    file.write_text("[server]\nwrokers = 1\nbind = ['x']\n")
    checked = run_relay("config", "check", file, env={"RELAY_LOG__LEVEL": "loud"})
    assert checked.returncode == 2
    assert checked.stderr.splitlines() == [
        f"relay: {file}:2: server.wrokers: no such setting; did you mean server.workers?",
        (
            f"relay: {file}:3: server.bind: expected HOST:PORT with a port from 0 to 65535 or "
            'unix:PATH, not "x"'
        ),
        (
            "relay: RELAY_LOG__LEVEL: log.level: expected one of debug, info, warning, error,"
            ' not "loud"'
        ),
    ]
    served = run_relay("serve", "--config", file, env={"RELAY_LOG__LEVEL": "loud"})
    assert (served.returncode, served.stderr) == (2, checked.stderr)
    missing = run_relay("config", "check", tmp_path / "none.toml")
    assert missing.returncode == 2
    assert (
        missing.stderr
        == f"relay: {tmp_path}/none.toml: cannot be read: No such file or directory\n"
    )
