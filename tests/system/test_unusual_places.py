"""A relay in unusual environments: docs/operations.md, "Unusual environments"."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from relay import BlockingClient, Message
from tests.support.cluster import (
    COMMAND_S,
    DEADLINE_S,
    Relay,
    relay_command,
    wait_until,
)
from tests.support.namespaces import NAMESPACES
from tests.support.refused_calls import CAN_BE_REFUSED, NOT_NEEDED, refusing
from tests.system.test_ctl import asked, status_of
from tests.system.test_environment import limit, refuse, start_refused

AS_NOBODY = """
import os, sys
who = ['--map-user=54321', '--map-group=54321']  # whom no password file knows
os.execvp('unshare', ['unshare', '-U', *who, *sys.argv[1:]])
"""
NO_HOME = (
    "import os\n"
    "[os.environ.pop(n, None) for n in ('HOME', 'USER', 'LOGNAME', 'XDG_RUNTIME_DIR', 'TMPDIR')]\n"
)
READ_ONLY_TMP = """
import os, sys
steps = 'mount --bind /tmp /tmp && mount --bind {0} {0} && mount -o remount,bind,ro /tmp'
os.execvp('unshare', ['unshare', '-m', 'sh', '-c', steps + ' && exec "$@"', 'sh', *sys.argv[1:]])
"""
BARE = """
import os, sys
steps = 'mount -t tmpfs none /sys && mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3'
steps += ' && mount -t tmpfs none /proc && ! ls /proc/* /dev/shm /dev/urandom 2>/dev/null'
os.execvp('unshare', ['unshare', '-m', 'sh', '-c', steps + ' && exec "$@"', 'sh', *sys.argv[1:]])
"""
AS_PROCESS_1 = """
import os, sys
os.execvp('unshare', ['unshare', '--fork', '--pid', '--mount-proc', '--kill-child', *sys.argv[1:]])
"""
SHIFTED = """
import time
from pathlib import Path
_time, _time_ns, _shift = time.time, time.time_ns, Path({shift!r})
time.time = lambda: _time() + float(_shift.read_text())
time.time_ns = lambda: _time_ns() + int(float(_shift.read_text()) * 1e9)
"""


NAMED = ("accept4", "connect", "fdatasync", "ftruncate", "getrandom", "pwrite64")


def goes_on(relay: Relay) -> None:
    """Check that it serves, replaces a killed worker, answers ``relay ctl``, and stops cleanly."""
    with BlockingClient(relay.address, name="alice") as alice:
        assert alice.send("lobby", "hello").seq == 2
        relay.kill_worker()
        assert alice.send("lobby", "again").seq == 3
    status_of(relay)


@pytest.mark.parametrize(
    ("launcher", "name"),
    [
        (NO_HOME, "data"),
        pytest.param(NO_HOME + AS_NOBODY, "data", marks=NAMESPACES),
        # Its sockets would be in the temporary directory: the next candidate is used.
        pytest.param(NO_HOME + READ_ONLY_TMP, "long" * 25, marks=NAMESPACES),
        # Neither /proc nor /sys, and of /dev the null device alone.
        pytest.param(NO_HOME + BARE, "data", marks=NAMESPACES),
    ],
    ids=["no home", "no passwd entry", "read-only tmp", "bare"],
)
def test_it_serves_as_anywhere(tmp_path: Path, launcher: str, name: str) -> None:
    launcher = launcher.replace("{0}", str(tmp_path))
    with Relay(tmp_path / name, workers=2, launcher=launcher) as relay:
        goes_on(relay)
        assert relay.stop() == 0


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it was reaped meanwhile
        return False


@NAMESPACES
def test_as_process_1(tmp_path: Path) -> None:
    """As in a container: it reaps orphans, ends on TERM, and stays process 1 after an upgrade."""
    with Relay(tmp_path / "data", workers=2, launcher=AS_PROCESS_1) as relay:
        first = relay.only("relay: supervisor")
        namespace = Path(f"/proc/{first}/status").read_text()
        assert namespace.partition("NSpid:")[2].split("\n")[0].split()[-1] == "1"
        goes_on(relay)
        orphan = "import os, time\nif os.fork() == 0:\n    time.sleep(0.1)\n    os._exit(0)"
        inside = ["nsenter", "-t", str(first), "-p", sys.executable, "-c", orphan]
        subprocess.run(inside, check=True)
        wait_until(lambda: not any(map(is_zombie, relay.children())), "no zombie")
        os.kill(first, signal.SIGUSR2)
        wait_until(lambda: relay.events("upgraded"), "the upgrade")
        wait_until(lambda: relay.pids_titled("relay: parent") == [first], "that it is the parent")
        with BlockingClient(relay.address, name="bob") as bob:
            assert bob.send("lobby", "after it").seq == 4
        os.kill(first, signal.SIGTERM)
        wait_until(lambda: not relay.running, "the end of all")
        assert relay.stop() == 0
        assert relay.events("stopped")


@NAMESPACES
def test_process_1_is_stopped_while_it_begins(tmp_path: Path) -> None:
    """The kernel does not deliver a signal to process 1 before it has a handler."""
    settings = tmp_path / "relay.toml"
    os.mkfifo(settings)
    command = [*relay_command("serve", "--config", str(settings)), "--data", str(tmp_path / "data")]
    with subprocess.Popen(["unshare", "--fork", "--pid", "--kill-child", *command]) as outer:
        try:
            with settings.open("wb", buffering=0):  # once it reads there
                (first,) = psutil.Process(outer.pid).children()
                first.terminate()
                assert outer.wait(DEADLINE_S) == 128 + signal.SIGTERM
        finally:
            outer.kill()


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """By days, forward and back: order, delivery, sessions and tickets do not depend on the wall
    clock.
    """
    site = tmp_path / "site"
    site.mkdir()
    shift = site / "shift"  # workers open no file that appears beside their data
    shift.write_text("0")
    (site / "sitecustomize.py").write_text(SHIFTED.format(shift=str(shift)))
    launcher = (
        "import os\n"
        f"os.environ['PYTHONPATH'] = {str(site)!r} + os.pathsep + os.environ['PYTHONPATH']"
    )
    with (
        Relay(tmp_path / "data", workers=2, launcher=launcher) as relay,
        BlockingClient(relay.address, name="alice") as alice,
        BlockingClient(relay.address, name="bob") as bob,
    ):
        bob.join("lobby")
        for number, seconds in enumerate(("0", "-200000", "0", "400000")):
            new = shift.with_suffix(".new")
            new.write_text(seconds)
            new.rename(shift)
            assert alice.send("lobby", str(number)).seq == number + 2
            while not isinstance(event := bob.next_event(DEADLINE_S), Message):
                pass
            assert (event.seq, event.body) == (number + 2, str(number).encode())
            assert 0 <= asked(relay, "status")["uptime_s"] < 100_000
        for index in range(2):
            relay.kill_worker(index)
        assert alice.send("lobby", "with another worker").seq == 6
        assert alice.statistics["resumptions"], "with a ticket of four days ago, by that clock"
        with BlockingClient(relay.address, name="carol") as carol:
            carol.join("lobby", since=0)
            times: list[int] = []
            while len(times) < 5:
                event = carol.next_event(DEADLINE_S)
                times += [event.time_ms] if isinstance(event, Message) else []
            assert times == sorted(times), "displayed times go backwards"
        assert [e["reason"] for e in relay.events("child_killed")] == []


WITHOUT_IPV6 = """
import subprocess, sys
from relay import BlockingClient
from relay.testing import RelayNotStarted, RelayServer
with RelayServer(bind="0.0.0.0:0", settings={"accounts.guests": True}) as relay:
    # The name has an address of each family, of which one leads nowhere.
    with BlockingClient(relay.address.replace("127.0.0.1", "localhost"), name="~ann") as ann:
        assert ann.send("lobby", "hello").seq == 2
try:
    with RelayServer(bind="[::1]:0"):
        pass
except RelayNotStarted as refused:
    print(str(refused).splitlines()[-1])
"""


@NAMESPACES
def test_a_machine_without_ipv6() -> None:
    """Only loopback exists, and no IPv6 address."""
    sysctl = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
    become = f'ip link set lo up && {{ [ ! -e {sysctl} ] || echo 1 > {sysctl}; }} && exec "$@"'
    ended = subprocess.run(
        ["unshare", "-n", "sh", "-c", become, "sh", sys.executable, "-c", WITHOUT_IPV6],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "cannot listen on [::1]:0: " in ended.stdout
    assert "this machine has no" in ended.stdout


@CAN_BE_REFUSED
def test_system_calls_that_a_container_refuses(tmp_path: Path) -> None:
    """System calls with a fallback: the relay serves, and upgrades.

    The error is EPERM, unlike that of a kernel without the call.
    """
    launcher = refusing(errno.EPERM, *NOT_NEEDED)
    with Relay(tmp_path / "data", workers=2, launcher=launcher) as relay:
        goes_on(relay)
        with BlockingClient(relay.address, name="bob") as bob:
            os.kill(relay.pid, signal.SIGUSR2)
            wait_until(lambda: relay.events("upgraded"), "the upgrade")
            assert bob.send("lobby", "after it").seq == 4
        assert relay.stop() == 0


@pytest.mark.parametrize("count", [8, 20, 64])
def test_few_descriptors(tmp_path: Path, count: int) -> None:
    """Nothing is opened before the limit is checked."""
    line = refuse(limit(count), "--data", tmp_path / "data", "--workers", "2", "--control", "off")
    assert line.startswith(f"relay: the limit on open files is {count}: a worker needs 3")
    assert "raise it (ulimit -Hn, LimitNOFILE)" in line


@CAN_BE_REFUSED
@pytest.mark.parametrize(
    "call", ["epoll_create1", "epoll_ctl", "eventfd2", "socketpair", "pipe2", "clone", *NAMED]
)
def test_a_system_call_without_which_there_is_no_relay(tmp_path: Path, call: str) -> None:
    """Whichever process needs it first: one line, without a traceback. Where libraries would say
    something else, the call is tried before, and named.
    """
    launcher = refusing(errno.EPERM, call)
    line, events = start_refused(launcher, "--data", tmp_path / "data", "--control", "off")
    assert line.startswith("relay: ")
    assert len(line.splitlines()) == 1
    assert "Operation not permitted: a filter of system calls refuses" in line
    assert (f"the system call {call}: " in line) == (call in NAMED)
    assert not [event for event in events if event["level"] in ("error", "critical")]


@CAN_BE_REFUSED
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("accept4", errno.ENOSYS),  # Python would use accept instead; uvloop has no other way
        ("access", errno.EPERM),  # Python says that the directory is not writable
        ("access", errno.ENOSYS),
        ("umask", errno.EPERM),  # Python tells the number of an earlier error
    ],
)
def test_a_refused_call_that_looks_like_something_else(
    tmp_path: Path, call: str, error: int
) -> None:
    line = refuse(refusing(error, call), "--data", tmp_path / "data", "--control", "off")
    assert line.startswith("relay: ")
    assert len(line.splitlines()) == 1
    assert f"{call}: " in line
    assert "a filter of system calls refuses something that Relay needs" in line


@CAN_BE_REFUSED
def test_a_process_that_a_library_ends_for_a_refused_call(tmp_path: Path) -> None:
    """libuv calls abort: all that is known is the signal."""
    launcher = refusing(errno.EPERM, "epoll_pwait")
    line, _ = start_refused(launcher, "--data", tmp_path / "data", "--control", "off")
    last = line.splitlines()[-1]
    assert "it ended with signal SIGABRT before it was ready: a library ended it" in last
    assert "a filter of system calls refuses" in last


@CAN_BE_REFUSED
def test_the_limit_on_watched_sockets(tmp_path: Path) -> None:
    """All processes of a user share fs.epoll.max_user_watches, 4 % of the memory by default."""
    launcher = refusing(errno.ENOSPC, "epoll_ctl")
    line, events = start_refused(launcher, "--data", tmp_path / "data", "--control", "off")
    assert line.count("\n") == 1
    assert "No space left on device (sysctl fs.epoll.max_user_watches)" in line
    assert not [event for event in events if event["level"] in ("error", "critical")]


@CAN_BE_REFUSED
def test_a_file_system_that_makes_nothing_durable(tmp_path: Path) -> None:
    """As some network and FUSE ones: the first file that must be durable tells it."""
    launcher = refusing(errno.EINVAL, "fsync", "fdatasync")
    line = refuse(launcher, "--data", tmp_path / "data", "--control", "off")
    assert line.startswith("relay: data directory: ")
    assert "its file system cannot make files durable (Invalid argument): use another one" in line
    assert len(line.splitlines()) == 1


def test_files_of_200_kb(tmp_path: Path) -> None:
    """The limit on file sizes applies to shared memory as well."""
    small = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
    line = refuse(small, "--data", tmp_path / "data", "--control", "off")
    assert "relay: shared memory of " in line
    assert "File too large: raise the limit on the size of files (ulimit -f" in line
