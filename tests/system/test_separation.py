"""What a compromised worker of a real server can reach, for each way to start the server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from signal import SIGKILL

import psutil
import pytest

from relay.errors import UsageError
from relay.server import privileges
from relay.server.system import landlock
from relay.settings import SAME_USER
from relay.testing import RelayNotStarted
from tests.support.cluster import Relay, run_relay, wait_until

RELAY, AGENT = 54_321, 54_322
"""User ids without a name, as in a container."""


def _public_python() -> str | None:
    """Return a Python of this version that any user may run, or None."""
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        way = Path(candidate).resolve()
        if way.exists() and all(parent.stat().st_mode & 0o001 for parent in way.parents):
            return candidate
    return None


PYTHON = _public_python()
ROOT_ONLY = pytest.mark.skipif(
    os.geteuid() != 0 or PYTHON is None, reason="it changes users, who must be able to run Python"
)
SECRET = ("server.key", "server.key.next", "server.id", "passphrase")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that any user may enter; pytest's own is root's."""
    path = Path(tempfile.mkdtemp(prefix="relay-separation-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def server(
    data: Path, settings: Mapping[str, object], fault: str = "", launcher: str = ""
) -> Relay:
    """A relay of two workers that other users can run."""
    python = PYTHON or sys.executable
    return Relay(data, workers=2, settings=settings, fault=fault, launcher=launcher, python=python)


def passphrase_in(home: Path) -> Path:
    """A passphrase file in a directory of its own, which the sandbox has to allow."""
    directory = home / "etc"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    return directory / "passphrase"


def settings_with(home: Path, **more: object) -> dict[str, object]:
    secret = passphrase_in(home)
    if not secret.exists():
        secret.write_text("correct horse\n")
        secret.chmod(0o600)
    return {
        "server.key_passphrase": str(secret), "server.sandbox": True, "server.key_bits": 2048,
        **more,
    }  # fmt: skip


def tried(relay: Relay, home: Path) -> dict[str, str]:
    """Return what the last worker to start has tried: all other processes exist by then."""
    wait_until(lambda: len(relay.events("taken_over")) >= 2, "both workers to have tried it")
    relay.kill_worker()
    wait_until(lambda: len(relay.events("taken_over")) >= 3, "another worker")
    found: dict[str, str] = relay.events("taken_over")[-1]["tried"]
    assert found
    return found


def all_refused(found: dict[str, str], *names: str) -> None:
    for name in names:
        assert found[name].startswith("refused"), (name, found[name])


def memory_is_closed(found: dict[str, str]) -> None:
    others = [name.removeprefix("memory of ") for name in found if name.startswith("memory of ")]
    assert {"supervisor", "key agent", "control"} < set(others)
    assert any(name.startswith("worker") for name in others)
    for name in others:
        all_refused(found, f"memory of {name}", f"vm_readv {name}", f"ptrace {name}")
        all_refused(found, f"environment of {name}", f"descriptor of {name}")
        all_refused(found, *(f"{secret} by {name}" for secret in SECRET))


def key_is_closed(found: dict[str, str]) -> None:
    for name in SECRET:
        all_refused(found, f"read {name}", f"write {name}", f"cut {name}")
        assert "No such file" not in found[f"read {name}"]
        all_refused(found, f"read the link of {name}")


def uids_of(relay: Relay) -> dict[str, int]:
    return {
        " ".join(child.cmdline()).removeprefix("relay: ").partition(" (")[0].strip(): child.uids()[
            0
        ]
        for child in [psutil.Process(relay.pid), *relay.children()]
    }


def gains_nothing(relay: Relay) -> set[str]:
    """Return the processes with no_new_privs."""
    found = set()
    for child in relay.children():
        if "NoNewPrivs:\t1" in Path(f"/proc/{child.pid}/status").read_text():
            title = " ".join(child.cmdline()).removeprefix("relay: ")
            found.add(title.partition(" (")[0].strip())
    return found


def groups_of(relay: Relay) -> dict[str, set[int]]:
    """Return by process all its groups: real, effective, saved and supplementary."""
    found = {}
    for child in relay.children():
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        name = " ".join(child.cmdline()).removeprefix("relay: ").partition(" (")[0].strip()
        found[name] = {
            int(group)
            for line in lines
            if line.startswith(("Gid:", "Groups:"))
            for group in line.split()[1:]
        }
    return found


def rotated_once(data: Path, settings: dict[str, object]) -> None:
    """Rotate the key, so that all kinds of key files exist."""
    env = {"RELAY_SERVER__KEY_PASSPHRASE": str(settings["server.key_passphrase"])}
    made = run_relay("key", "new", "--data", str(data), env=env)
    assert made.returncode == 0, made.stderr


@ROOT_ONLY
@pytest.mark.parametrize("sandbox", [True, False], ids=["with sandbox", "users alone"])
def test_users_of_their_own(home: Path, sandbox: bool) -> None:
    """Started as root, with both users: workers reach neither the key nor others' memory."""
    data = home / "data"
    users = {"server.user": RELAY, "server.agent_user": AGENT}
    settings = settings_with(home, **users, **{"server.sandbox": sandbox})
    with server(data, settings):
        pass
    rotated_once(data, settings)
    fault = f"taken-over={passphrase_in(home)}"
    with server(data, settings, fault=fault) as relay:
        wait_until(lambda: uids_of(relay).get("spare") == RELAY, "a spare that is not root")
        assert uids_of(relay) == {
            "supervisor": 0, "control": RELAY, "key agent": AGENT, "worker 0": RELAY,
            "worker 1": RELAY, "spare": RELAY,
        }  # fmt: skip
        wait_until(
            lambda: gains_nothing(relay) == set(uids_of(relay)) - {"supervisor"},
            "none of them to gain privileges",
        )
        for name, ids in groups_of(relay).items():
            assert ids == ({AGENT} if name == "key agent" else {RELAY}), (name, "root's group")
        found = tried(relay, home)
        key_is_closed(found)
        if sandbox:
            memory_is_closed(found)
        for other in ("key agent", "supervisor"):
            all_refused(found, *(f"{what} {other}" for what in ("memory of", "ptrace", "signal")))
        all_refused(found, "root")
        sent = run_relay("send", relay.address, "lobby", "it serves")
        assert sent.returncode == 0, sent.stderr
        relay.kill_agent()
        sent = run_relay("send", relay.address, "lobby", "by the next agent")
        assert sent.returncode == 0, sent.stderr
        # Its socket is in a directory of the relay's user: the agent cannot create it again
        # itself.
        if sandbox:
            next((data / "run").glob("agent.*.sock")).unlink()
        else:  # the workers create the directory again
            shutil.rmtree(data / "run")
        wait_until(lambda: len(relay.events("agent_ready")) >= 3, "one with a socket")
        relay.kill_worker()
        sent = run_relay("send", relay.address, "lobby", "by a worker that had to find it")
        assert sent.returncode == 0, sent.stderr
        assert relay.stop() == 0
    owners = {path.name: path.stat().st_uid for path in data.iterdir()}
    assert {owners[name] for name in ("server.key", "server.key.next", "server.id")} == {0}
    assert {owners[name] for name in ("logs", "format", "lock")} == {RELAY}


GIVE_UP = f"""
import ctypes, os
from relay.server.privileges import Separation, User
os.setgroups([0, 4])
given = Separation(User("", {RELAY}, {RELAY}), User("", {AGENT}, {AGENT}))
with given.lowered():
    print(os.getgroups(), os.getegid(), os.geteuid())
{{become}}
print(os.getgroups(), os.getresgid(), os.getresuid())
number = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
print(number.value)
"""


def test_a_user_of_roots_group_is_as_good_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever root's group may write, a compromised worker could write."""
    entry = pwd.struct_passwd(("ops", "x", RELAY, 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    with pytest.raises(UsageError, match="of root's group"):
        privileges.resolve("ops", SAME_USER)


WITHOUT = """
import ctypes
for capability in {numbers}:
    assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
"""


@ROOT_ONLY
@pytest.mark.parametrize(
    ("numbers", "names"), [([5], "CAP_KILL"), ([6, 7], "CAP_SETGID, CAP_SETUID")]
)
def test_a_root_that_may_not_do_what_is_needed(home: Path, numbers: list[int], names: str) -> None:
    """Otherwise it would notice when a worker hangs that it cannot kill it."""
    launcher = WITHOUT.format(numbers=numbers)
    with pytest.raises(RelayNotStarted, match=f"this root has no {names}: grant it"):
        server(home / "data", {"server.user": RELAY}, launcher=launcher).__enter__()


@ROOT_ONLY
@pytest.mark.parametrize(("who", "uid"), [("server", RELAY), ("agent", AGENT)])
def test_no_group_of_root_is_kept(who: str, uid: int) -> None:
    """The starting user may be in several groups: ``adm`` reads logs, ``disk`` reads every block
    device.

    And a child that has changed its user still dies with the supervisor.
    """
    program = GIVE_UP.format(become=f"given.become_{who}()")
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    all_three = (uid,) * 3
    assert ended.stdout == f"[] {RELAY} {RELAY}\n[] {all_three} {all_three}\n{SIGKILL:d}\n"


@ROOT_ONLY
@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
def test_one_user_with_landlock(home: Path) -> None:
    """Not started as root: all processes have one user, and the same accesses are refused."""
    home.chmod(0o777)
    data = home / "data"
    settings = settings_with(home)
    os.chown(passphrase_in(home), RELAY, RELAY)
    launcher = f"import os; os.setgroups([]); os.setgid({RELAY}); os.setuid({RELAY})"
    with server(data, settings, launcher=launcher):
        pass
    for name in ("server.key", "server.id"):
        shutil.copy2(data / name, data / "server.key.next")
    os.chown(data / "server.key.next", RELAY, RELAY)
    shutil.copy2(data / "server.key", data / "server.key.next")
    fault = f"taken-over={passphrase_in(home)}"
    with server(data, settings, fault=fault, launcher=launcher) as relay:
        assert set(uids_of(relay).values()) == {RELAY}
        # the kernel gives these files to root: the process is not dumpable
        for pid in relay.pids_titled("relay: "):
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
        found = tried(relay, home)
        key_is_closed(found)
        memory_is_closed(found)
        all_refused(found, "root")
        if landlock.abi() >= 6:
            all_refused(found, "signal key agent", "signal supervisor")
        sent = run_relay("send", relay.address, "lobby", "it serves")
        assert sent.returncode == 0, sent.stderr


@ROOT_ONLY
def test_without_the_sandbox_the_same_worker_reaches_it(home: Path) -> None:
    """The attempts are real: without a sandbox they succeed."""
    home.chmod(0o777)
    data = home / "data"
    settings = settings_with(home, **{"server.sandbox": False})
    os.chown(passphrase_in(home), RELAY, RELAY)
    launcher = f"import os; os.setgroups([]); os.setgid({RELAY}); os.setuid({RELAY})"
    fault = f"taken-over={passphrase_in(home)}"
    with server(data, settings, fault=fault, launcher=launcher) as relay:
        found = tried(relay, home)
        for name in (
            "read server.key", "read passphrase", "memory of control", "ptrace control",
            "environment of control", "descriptor of control", "server.key by control",
        ):  # fmt: skip
            assert found[name].startswith("done"), (name, found[name])
        all_refused(found, "memory of key agent", "ptrace key agent")


@ROOT_ONLY
def test_a_directory_of_an_older_owner_is_refused_with_what_mends_it(home: Path) -> None:
    data = home / "data"
    with server(data, {}) as relay:
        sent = run_relay("send", relay.address, "lobby", "by root")
        assert sent.returncode == 0, sent.stderr
    settings = {"server.user": RELAY, "server.agent_user": AGENT}
    with pytest.raises(RelayNotStarted) as refused, server(data, settings):
        pass
    command = str(refused.value).partition("run: ")[2].splitlines()[0].partition('"')[0]
    assert command.startswith("chown -R")
    subprocess.run(["/bin/sh", "-c", command.rstrip("}")], check=True)
    with server(data, settings) as relay:
        read = run_relay("history", relay.address, "lobby", "-n", "1")
        assert "by root" in read.stdout, read.stderr
        assert (data / "server.key").stat().st_uid == 0
    log = next((data / "logs").iterdir())
    os.chown(log, AGENT, AGENT)
    with pytest.raises(RelayNotStarted, match=f"{log.name} belongs to uid 54322"):
        server(data, settings).__enter__()
    os.chown(log, RELAY, RELAY)
    os.chown(data / "server.key", RELAY, RELAY)
    with pytest.raises(RelayNotStarted, match=r"server\.key belongs to uid 54321"):
        server(data, settings).__enter__()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"server.agent_user": AGENT}, "server.user is not"),
        ({"server.user": "nobody-of-this-name"}, "there is no user"),
        ({"server.user": "root"}, "is root"),
        ({"server.user": RELAY, "server.agent_user": RELAY}, "must be two different users"),
        ({"server.user": 2**32 - 1}, "is at most 4294967294"),
        ({"server.user": RELAY, "server.agent_user": "9" * 5000}, "is at most 4294967294"),
    ],
)
def test_users_that_separate_nothing(
    tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(RelayNotStarted, match=reason):
        Relay(tmp_path / "data", settings=settings).__enter__()
    assert not (tmp_path / "data").exists()


@ROOT_ONLY
def test_who_is_not_root_cannot_change_users(home: Path) -> None:
    home.chmod(0o777)
    launcher = f"import os; os.setgroups([]); os.setgid({RELAY}); os.setuid({RELAY})"
    with pytest.raises(RelayNotStarted, match="need a start as root"):
        server(home / "data", {"server.user": AGENT}, launcher=launcher).__enter__()
    with server(home / "data", {"server.user": RELAY}, launcher=launcher) as relay:
        assert set(uids_of(relay).values()) == {RELAY}


def test_what_is_beside_a_key_elsewhere_is_needed(tmp_path: Path) -> None:
    """With the key in /etc, a worker may read other files there; beside the data it does not need
    to.
    """
    for name in ("etc/relay/key", "etc/hosts", "lib/data/format", "lib/backup", "above"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lib/data/key").symlink_to(tmp_path / "etc/relay/key")
    found = landlock.beside([tmp_path / "lib/data/key"], tmp_path / "lib/data")
    assert set(found) == {tmp_path / name for name in ("etc/relay", "etc/relay/key", "etc/hosts")}
    assert landlock.beside([tmp_path / "lib/data/other"], tmp_path / "lib/data") == []


@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
def test_landlock_forbids_files_and_nothing_beside_them(tmp_path: Path) -> None:
    """By name, by link, by a replaced directory, and for files that do not exist yet."""
    (tmp_path / "deep" / "data").mkdir(parents=True)
    key, other = tmp_path / "deep" / "data" / "key", tmp_path / "deep" / "data" / "other"
    key.write_text("secret")
    other.write_text("open")
    other.with_name("beside").write_text("of no use to it")
    (tmp_path / "way").symlink_to(tmp_path / "deep")
    (tmp_path / "deep" / "data" / "logs").mkdir()
    script = f"""
import os
from pathlib import Path
from relay.server.system.landlock import forbid
from relay.server.system.prctl import no_new_privileges
base = Path({str(tmp_path)!r})
no_new_privileges()
assert forbid([base / "way/data/key", base / "deep/data/later"], [base / "way/data/other"])
def refused(action):
    try:
        action()
    except OSError:
        return True
    return False
key = base / "deep/data/key"
assert refused(key.read_bytes) and refused((base / "way/data/key").read_bytes)
assert refused(lambda: key.open("r+b")) and refused(lambda: key.open("ab"))
assert refused(lambda: os.link(key, base / "deep/data/logs/link"))
assert refused(lambda: key.rename(base / "deep/data/logs/moved"))
os.rename(key, base / "deep/data/renamed")
assert refused((base / "deep/data/renamed").read_bytes)
assert refused(lambda: (base / "deep/data/later").write_bytes(b"x"))
assert (base / "deep/data/other").read_text() == "open"
assert refused((base / "deep/data/beside").read_text)
(base / "deep/data/logs/new").write_text("here as ever")
assert (base / "deep/data/logs/new").read_text()
import relay.wire.identity, sqlite3
"""
    subprocess.run([sys.executable, "-c", script], check=True)
