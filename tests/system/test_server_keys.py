"""A real server whose key changes: announced, unannounced, encrypted; as clients see it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from relay import BlockingClient, Client
from relay.client.account_calls import Devices
from relay.client.aio.thread import in_thread
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.devices.key_files import KeyFiles
from relay.client.errors import ServerKeyMismatch
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from relay.testing import RelayNotStarted
from tests.support.cluster import ROOT, Relay, relay_command, run_relay, until, wait_until
from tests.support.programs import run_program
from tests.support.terminals import Terminal


def policy_in(home: Path) -> KeyPolicy:
    return KeyPolicy(KnownServers(home / "known"), keys=KeyFiles(home / "keys"))


def key_command(command: str, data: Path, *more: str) -> str:
    ended = run_relay("key", command, "--data", str(data), *more)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def fingerprint_in(text: str, what: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(what)]
    return line.removeprefix(what).split()[0]


async def test_an_announced_change_is_followed_by_everybody(tmp_path: Path) -> None:
    """Connected or not at the time of the change, with both clients, and with their accounts."""
    data, home = tmp_path / "data", tmp_path / "home"
    with Relay(data, workers=2) as relay:
        first = relay.address.partition("//")[2].partition("@")[0]
        bind, plain = f"127.0.0.1:{relay.port}", f"relay://127.0.0.1:{relay.port}"
        known = policy_in(home).known
        known.pin("127.0.0.1", relay.port, first)
        alice = Client(plain, name="alice", register=True, key_policy=policy_in(home))
        await alice.connect()
        with BlockingClient(plain, name="bob", register=True, key_policy=policy_in(home)) as bob:
            await alice.send("lobby", "before")
            second = fingerprint_in(key_command("new", data), "next key")
            await until(lambda: known.lineage().following == {first: second}, "alice was told")
            bob.send("lobby", "before, too")
        with BlockingClient(plain, name="bob", key_policy=policy_in(home)) as bob:
            bob.send("lobby", "told at the login")
        assert relay.stop() == 0
    key_command("rotate", data, "--yes")
    shown = key_command("show", data)
    assert fingerprint_in(shown, "key") == second
    assert fingerprint_in(shown, "server id") == first
    with Relay(data, workers=2, bind=bind) as relay:
        assert relay.address == f"relay://{second}@{bind}"
        await until(lambda: alice.statistics["logins"] >= 2, "alice is back by herself")
        assert alice.server_fingerprint == second
        assert alice.server_id == first
        await alice.send("lobby", "after")
        assert known.lineage().followed == {first: second}
        with BlockingClient(plain, name="bob", key_policy=policy_in(home)) as bob:
            bob.send("lobby", "after, too")
            # A client written from docs/protocol.md alone registers under the server's id, too.
            page, key = ROOT / "examples" / "from_the_page.py", tmp_path / "page"
            said = relay.address, "stranger", "lobby", "from the page"
            done = await asyncio.create_subprocess_exec(sys.executable, page, *said, key)
            assert await done.wait() == 0
            # Chains are keyed by the server's id: its key may have changed since.
            spare = DeviceKey.generate()
            bob.add_device(spare)
            bob.remove_device(public_text(spare.public))
            assert [one.removed for one in bob.devices().devices] == [False, True]
            bob.block("alice")
            assert any(isinstance(found, Devices) for found in bob.export())
        await alice.approve_device(public_text(DeviceKey.generate().public))
        assert len((await alice.devices("bob")).devices) == 2
        await alice.close()
        # A new client meets the server with its second key, and stores its own keys under the id.
        other = policy_in(tmp_path / "other")
        with BlockingClient(relay.address, name="carol", register=True, key_policy=other) as carol:
            carol.send("lobby", "hello")
        with BlockingClient(relay.address, name="carol", key_policy=other) as carol:
            assert carol.server_id == first
        keys_of_new_machines_are_found(relay.address, tmp_path, other)
        assert relay.stop() == 0


def keys_of_new_machines_are_found(address: str, tmp_path: Path, carols: KeyPolicy) -> None:
    """Keys created before the first connection, to a server with its second key.

    The server's id, under which keys are stored, was not known at that time.
    """
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)

    def at(machine: str) -> dict[str, str]:
        home = tmp_path / machine
        return {
            "RELAY_KEYS": str(home / "keys"),
            "RELAY_KNOWN_SERVERS": str(home / "known"),
            "RELAY_KEY_PASSPHRASE": str(secret),
            "RELAY_REGISTER": "",
        }

    def done(machine: str, *args: str, text: str = "") -> str:
        ended = run_relay(*args, text=text, env=at(machine))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    told = done("desk", "register", address, "--name", "dora", "--passphrase")
    assert Path(told.rpartition(" is ")[2].strip()).exists()
    done("desk", "send", address, "lobby", "hi")
    with BlockingClient(address, name="carol", key_policy=carols) as carol:
        paper = carol.add_recovery_key()
        with subprocess.Popen(
            relay_command("device", "request", address, "--name", "carol"),
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | at("phone"),
        ) as request:
            assert request.stdout is not None
            carol.approve_device(request.stdout.readline().split()[-1])
            assert "is now a device of carol" in request.stdout.read()
    done("phone", "send", address, "lobby", "from the phone")
    done("tablet", "device", "restore", address, "--name", "carol", text=f"{paper}\n")
    done("tablet", "send", address, "lobby", "from the tablet")


async def test_of_two_announcements_the_last_one_counts(tmp_path: Path) -> None:
    """Clients that connected meanwhile follow; others get an error and lose no account.

    Whoever has stolen the old key, and serves at the old address, gets no client that has followed.
    """
    data = tmp_path / "data"
    homes = {name: tmp_path / name for name in ("alice", "early", "late", "never")}
    with Relay(data, workers=2) as relay:
        first = relay.address.partition("//")[2].partition("@")[0]
        bind, plain = f"127.0.0.1:{relay.port}", f"relay://127.0.0.1:{relay.port}"
        for home in homes.values():
            policy_in(home).known.pin("127.0.0.1", relay.port, first)

        def visit(name: str) -> None:
            policy = policy_in(homes[name])
            with BlockingClient(plain, name=name, register=True, key_policy=policy) as client:
                client.send("lobby", f"{name} is here")
                assert client.server_id == first

        alice = Client(plain, name="alice", register=True, key_policy=policy_in(homes["alice"]))
        await alice.connect()
        visit("never")
        second = fingerprint_in(key_command("new", data), "next key")
        known = policy_in(homes["alice"]).known
        await until(lambda: known.lineage().following == {first: second}, "the first one")
        await in_thread(partial(visit, "early"))
        third = fingerprint_in(key_command("new", data, "--replace"), "next key")
        await until(lambda: known.lineage().following == {first: third}, "the second one")
        await in_thread(partial(visit, "late"))
        assert relay.stop() == 0
    key_command("rotate", data, "--yes")
    with Relay(data, workers=2, bind=bind) as relay:
        await until(lambda: alice.statistics["logins"] >= 2, "alice is back by herself")
        assert alice.server_fingerprint == third
        await in_thread(partial(visit, "late"))
        told = run_relay(  # a script with the new address that the operator has published
            "send", relay.address, "lobby", "x", "--name", "never",
            env={
                "RELAY_KNOWN_SERVERS": str(homes["never"] / "known"), "RELAY_REGISTER": "",
                "RELAY_KEYS": str(homes["never"] / "keys"),
            },
        )  # fmt: skip
        assert told.returncode == 3, "the pin differs from the address"
        told = run_relay(
            "send", relay.address, "lobby", "x", "--name", "never",
            env={
                "RELAY_KNOWN_SERVERS": str(tmp_path / "no pin"), "RELAY_REGISTER": "",
                "RELAY_KEYS": str(homes["never"] / "keys"),
            },
        )  # fmt: skip
        assert told.returncode == 1
        assert f"* relay-followed-key-v1 {first} {third}" in told.stderr
        for name in ("early", "never"):
            with pytest.raises(ServerKeyMismatch):
                await in_thread(partial(visit, name))
            known = policy_in(homes[name]).known
            with known.path.open("a") as file:
                file.write(f"* relay-followed-key-v1 {first} {third}\n")
            await in_thread(partial(visit, name))
        assert relay.stop() == 0
    thief = tmp_path / "thief"
    with Relay(thief):
        pass
    (data / "server.key.old").replace(thief / "server.key")
    (thief / "server.id").write_text(f"{first}\n")
    with Relay(thief, bind=bind) as relay:
        assert relay.address == f"relay://{first}@{bind}"
        with pytest.raises(ServerKeyMismatch):
            await alice.send("lobby", "x")
        for name in homes:
            with pytest.raises(ServerKeyMismatch):
                await in_thread(partial(visit, name))
    await alice.close()


async def test_an_unannounced_change_is_refused(tmp_path: Path) -> None:
    """With an error of its own; the data directory keeps its id, so that the operator can vouch for
    it.
    """
    data, home = tmp_path / "data", tmp_path / "home"
    with Relay(data) as relay:
        first = relay.address.partition("//")[2].partition("@")[0]
        bind, plain = f"127.0.0.1:{relay.port}", f"relay://127.0.0.1:{relay.port}"
        policy_in(home).known.pin("127.0.0.1", relay.port, first)
        with BlockingClient(plain, name="bob", register=True, key_policy=policy_in(home)) as bob:
            bob.send("lobby", "before")
    (data / "server.key").rename(data / "stolen")
    with Relay(data, "--new-identity", bind=bind) as relay:
        second = relay.address.partition("//")[2].partition("@")[0]
        with pytest.raises(ServerKeyMismatch):
            BlockingClient(plain, name="bob", key_policy=policy_in(home)).connect()
        refused = run_relay(
            "send", plain, "lobby", "x", "--name", "bob",
            env={"RELAY_KNOWN_SERVERS": str(home / "known"), "RELAY_KEYS": str(home / "keys")},
        )  # fmt: skip
        assert refused.returncode == 3
        line = f"* relay-followed-key-v1 {first} {second}"
        assert line in refused.stderr
        with (home / "known").open("a") as file:
            file.write(f"{line}\n")
        with BlockingClient(plain, name="bob", key_policy=policy_in(home)) as bob:
            assert bob.server_id == first, "an account was lost"
            bob.send("lobby", "after")


def test_a_key_that_was_put_there_by_hand_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Relay(data):
        pass
    with Relay(tmp_path / "other"):
        pass
    (tmp_path / "other" / "server.key").replace(data / "server.key")
    with pytest.raises(RelayNotStarted, match="another key"), Relay(data):
        pass


def test_keys_are_changed_only_where_that_is_meant(tmp_path: Path) -> None:
    data = tmp_path / "data"
    nothing = run_relay("key", "show", "--data", str(data))
    assert nothing.returncode == 1
    assert "no key" in nothing.stderr
    with Relay(data) as relay:
        key_command("new", data)
        again = run_relay("key", "new", "--data", str(data))
        assert again.returncode == 1
        assert "already" in again.stderr
        running = run_relay("key", "rotate", "--data", str(data), "--yes")
        assert running.returncode == 1
        assert "in use" in running.stderr
        wait_until(lambda: relay.events("child_replaced"), "the agent to be replaced")
    early = run_relay("key", "rotate", "--data", str(data))
    assert early.returncode == 2
    assert "or give --yes" in early.stderr
    assert len(early.stderr.splitlines()) == 1
    with Terminal("key", "rotate", "--data", str(data)) as terminal:
        terminal.shows("Change now?")
        terminal.press("n\r")
        assert terminal.ends() == 1, '"no" was taken for an interrupt'
        assert "nothing was changed" in terminal.text
    with Terminal("key", "rotate", "--data", str(data)) as terminal:
        terminal.shows("Change now?")
        before = (data / "server.key").read_bytes()
        key_command("new", data, "--replace")
        terminal.press("y\r")
        assert terminal.ends() == 1, "it rotated to a key that was not confirmed"
        assert "replaced meanwhile" in terminal.text
        assert (data / "server.key").read_bytes() == before
    assert (data / "server.key.next").exists()
    for name in ("server.key", "server.key.next", "server.id"):
        assert (data / name).stat().st_mode & 0o777 == 0o600
    before = (data / "server.key").read_bytes()
    for name in ("server.id", "server.key"):
        path, mounted = data / name, tmp_path / f"mounted {name}"
        path.rename(mounted)
        path.symlink_to(mounted)
        linked = run_relay("key", "rotate", "--data", str(data), "--yes")
        assert linked.returncode == 1
        assert f"{path} is a symbolic link" in linked.stderr
        assert path.is_symlink(), "the symbolic link of the user was replaced"
        assert (data / "server.key").read_bytes() == before, "half of it was done"
        assert (data / "server.key.next").exists()


def test_an_encrypted_key(tmp_path: Path) -> None:
    """From a file and from a descriptor; a missing or wrong passphrase is a one-line error."""
    data, secret = tmp_path / "data", tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    settings: dict[str, object] = {"server.key_passphrase": str(secret)}
    with Relay(data, settings=settings) as relay:
        address = relay.address
        relay.kill_agent()
        sent = run_relay("send", address, "lobby", "by the next agent")
        assert sent.returncode == 0, sent.stderr
    assert b"ENCRYPTED" in (data / "server.key").read_bytes()
    env = {"RELAY_SERVER__KEY_PASSPHRASE": str(secret)}
    assert run_relay("key", "new", "--data", str(data), env=env).returncode == 0
    assert b"ENCRYPTED" in (data / "server.key.next").read_bytes()
    with pytest.raises(RelayNotStarted, match="there is no passphrase for it"), Relay(data):
        pass
    launcher = (
        "import os, tempfile\n"
        "read_fd, write_fd = os.pipe()\n"
        "os.write(write_fd, b'correct horse')\nos.close(write_fd)\n"
        "os.dup2(read_fd, 9)\nos.set_inheritable(9, True)"
    )
    settings = {"server.key_passphrase": "fd:9"}
    with Relay(data, settings=settings, launcher=launcher) as relay:
        assert relay.address.partition("@")[0] == address.partition("@")[0]
        relay.kill_agent()
        for pid in relay.worker_pids():
            held = []
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # closed since: the worker serves
                    held.append(str(fd.readlink()))
            assert held
            assert not any("relay-passphrase" in one for one in held)
    secret.write_text("wrong\n")
    settings = {"server.key_passphrase": str(secret)}
    with (
        pytest.raises(RelayNotStarted, match="passphrase is wrong"),
        Relay(data, settings=settings),
    ):
        pass
    secret.chmod(0o644)
    with pytest.raises(RelayNotStarted, match="open to others"), Relay(data, settings=settings):
        pass


NOTHING_CAN_BE_WRITTEN = """
import resource, sys
from relay.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
sys.exit(main(sys.argv[1:]))
"""


def test_with_a_full_disk_the_key_is_not_changed(tmp_path: Path) -> None:
    """Not one of its files: otherwise the relay would refuse to start with what is there."""
    data = tmp_path / "data"
    with Relay(data) as relay:
        assert relay.stop() == 0
    following = fingerprint_in(key_command("new", data), "next key")
    before = key_command("show", data)
    failed = run_program(NOTHING_CAN_BE_WRITTEN, "key", "rotate", "--yes", "--data", data)
    assert failed.returncode == 1, failed
    assert "server.id cannot be written (write): File too large" in failed.stderr
    assert key_command("show", data) == before
    assert not [path for path in data.iterdir() if path.name.endswith(".new")]
    key_command("rotate", data, "--yes")
    assert fingerprint_in(key_command("show", data), "key") == following
    with Relay(data) as relay:
        assert following in relay.address
        assert relay.stop() == 0


KILLED_IN_THE_EXCHANGE = """
import os, sys
from relay.cli.main import main
from relay.server.offline import server_keys
server_keys.sync_directory = lambda _: os._exit(9)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("lineage", [True, False])
def test_killed_in_the_exchange_the_server_keeps_its_id(tmp_path: Path, lineage: bool) -> None:
    """Also if nothing tells its id but its key, as in a directory of an older version."""
    data = tmp_path / "data"
    with Relay(data) as relay:
        first = relay.address.partition("//")[2].partition("@")[0]
        assert relay.stop() == 0
    following = fingerprint_in(key_command("new", data), "next key")
    if not lineage:
        (data / "server.id").unlink()
    killed = run_program(KILLED_IN_THE_EXCHANGE, "key", "rotate", "--yes", "--data", data)
    assert killed.returncode == 9, killed
    told = "add its fingerprint there as the last line"
    with pytest.raises(RelayNotStarted, match=told), Relay(data):
        pass
    with (data / "server.id").open("a") as file:
        file.write(f"{following}\n")
    with Relay(data) as relay:
        assert following in relay.address
        assert relay.stop() == 0
    assert fingerprint_in(key_command("show", data), "server id") == first
