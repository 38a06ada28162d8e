"""``relay serve``: its output, its errors, and its exit codes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import DEADLINE_S, Relay, relay_command, run_relay


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return Relay(tmp_path / "data", workers=2)


def refused(*args: str | Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run ``relay serve``, which must not start. Return its exit code and its one-line error."""
    ended = run_relay("serve", *args, env={"RELAY_LOG__LEVEL": "warning", **(env or {})})
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("Usage: ")]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("relay: ")
    return ended.returncode, lines[0].removeprefix("relay: ")


def test_announcement_titles_and_the_table(relay: Relay) -> None:
    with relay:
        assert relay.address in relay.announced[1]
        assert relay.announced[-1].endswith(f"chat {relay.address}")
        assert len(relay.worker_pids()) == 2
        assert relay.agent() is not None
        assert Path(f"/proc/{relay.pid}/cmdline").read_bytes().startswith(b"relay: supervisor")
        table = relay.events("workers")[-1]["workers"]
        assert [worker["partitions"][:2] for worker in table] == [[0, 2], [1, 3]]
        assert sum(len(worker["partitions"]) for worker in table) == 16
        assert len({worker["generation"] for worker in table}) == 2
        mode = (relay.data / "server.key").stat().st_mode
        assert mode & 0o777 == 0o600


def test_nobody_else_reads_what_is_stored(relay: Relay) -> None:
    with relay:
        modes = relay.modes()
        assert any(path.suffix == ".sqlite" for path in modes)
        assert [path for path, mode in modes.items() if mode & 0o077] == []


def test_what_is_in_use(relay: Relay, tmp_path: Path) -> None:
    with relay:
        code, line = refused("--data", relay.data, "--bind", "127.0.0.1:0")
        assert code == 1
        assert "in use" in line
        assert str(relay.pid) in line
        where = f"127.0.0.1:{relay.port}"
        code, line = refused("--data", tmp_path / "other", "--bind", where)
        assert code == 1
        assert line.startswith(f"cannot listen on {where}: the port is in use")


def test_a_key_file_open_to_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Relay(data):
        pass
    key = data / "server.key"
    key.chmod(0o644)
    code, line = refused("--data", data, "--bind", "127.0.0.1:0")
    assert (code, line) == (
        1,
        f"key file {key} is open to others (mode 0644); run: chmod 600 {key}",
    )


@pytest.mark.parametrize(
    ("args", "env", "message"),
    [
        (["--nonsense"], {}, "No such option"),
        (["--bind", "7475"], {}, "--bind: server.bind: expected HOST:PORT"),
        (["--workers", "some"], {}, "--workers: server.workers: expected a whole number"),
        (["--workers", "-1"], {}, "--workers: server.workers: expected a whole number from 0"),
        (["--config", "/nonexistent"], {}, "/nonexistent: cannot be read"),
        ([], {"RELAY_SERVER__WROKERS": "1"}, "did you mean RELAY_SERVER__WORKERS?"),
    ],
)
def test_wrong_use(args: list[str], env: dict[str, str], message: str) -> None:
    code, line = refused(*args, env=env)
    assert code == 2
    assert message in line


def test_check_and_print(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[server]\nworkers = 3\n")
    data = tmp_path / "data"
    shown = run_relay(
        "serve", "--config", file, "--print-config", "--data", data,
        env={"RELAY_LOG__LEVEL": "debug"},
    )  # fmt: skip
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert f"server.workers = 3  # {file}:2" in lines
    assert f'store.data = "{data}"  # --data' in lines
    assert 'log.level = "debug"  # RELAY_LOG__LEVEL' in lines
    assert 'store.durability = "process"  # default' in lines
    checked = run_relay("serve", "--config", file, "--check-config", "--data", data)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert not data.exists()
    file.write_text("[server]\nbind = ['nowhere']\n")
    assert refused("--config", file, "--check-config")[0] == 2


def test_nothing_is_loaded_before_the_fork(tmp_path: Path) -> None:
    """A fork copies the state of a loop, a thread, OpenSSL or SQLite: none may exist."""
    script = (
        "import os, sys, threading\n"
        "from relay.cli.main import main\n"
        "fork, supervisor = os.fork, os.getpid()\n"
        "def show():\n"
        "    if os.getpid() == supervisor:\n"
        "        print(threading.active_count(), *sorted(sys.modules), flush=True)\n"
        "    return fork()\n"
        "os.fork = show\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, "serve", "--bind", "127.0.0.1:0", "--data", tmp_path],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        forks = []
        for line in process.stdout:
            words = line.split()
            if "relay.server.supervisor.supervisor" in words:
                forks.append((words[0], set(words[1:])))
            if len(forks) == 4:  # control, key agent, worker and spare worker
                break
        process.terminate()
        process.stdout.read()
    assert process.returncode == 0
    assert len(forks) == 4
    forbidden = {"asyncio", "uvloop", "apsw", "cryptography", "ssl", "_ssl", "sqlite3"}
    for threads, modules in forks:
        assert threads == "1"
        assert not {name.split(".")[0] for name in modules} & forbidden
    assert "relay.server.worker.process.before_fork" in forks[2][1]


def test_a_closed_stdout_does_not_end_it(tmp_path: Path) -> None:
    """``relay serve | head -1``, after head has exited."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    process = subprocess.Popen(
        relay_command(
            "serve",
            "--bind",
            "127.0.0.1:0",
            "--data",
            tmp_path,
            "--workers",
            "1",
            "--control",
            "off",
        ),
        stdout=write_fd,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_fd)
    assert process.stderr is not None
    with process, process.stderr:
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "announcement_unread":
                with socket.create_connection(_address(process.pid), timeout=60):
                    process.terminate()
        assert process.wait(DEADLINE_S) == 0
        assert event["event"] == "stopped"


def _address(pid: int) -> tuple[str, int]:
    [listening] = [c for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]
    return listening.laddr.ip, listening.laddr.port
