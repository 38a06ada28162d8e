"""A connection in a forked child refuses every operation: a nonce must not be used twice."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

from relay.errors import ForkedConnection
from relay.wire.cipher import Padded
from relay.wire.phases import LEGAL, Phase, Side
from tests.support.cluster import ROOT
from tests.support.pair import established, in_phase

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


def fork_in_c() -> int:
    """Fork as a library in C does: without Python's fork handlers."""
    return int(ctypes.PyDLL(None).fork())


def in_child(check: Callable[[], None], forked: Callable[[], int] = os.fork) -> None:
    """Run a check in a forked child; fail when it fails."""
    pid = forked()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:  # noqa: BLE001  # whatever it was, the child must not go on
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("forked", [os.fork, fork_in_c], ids=["by Python", "in C"])
@pytest.mark.parametrize("side", Side)
def test_open_connections(side: Side, forked: Callable[[], int]) -> None:
    """Every method raises; and the parent's stream is not affected."""
    if forked is fork_in_c and not sys.platform.startswith("linux"):
        pytest.skip("this kernel empties no pages")
    pair = established()
    mine = pair.client if side is Side.CLIENT else pair.server
    theirs = pair.server if side is Side.CLIENT else pair.client
    connection = mine.connection
    idle = established().server.connection
    waiting = theirs.connection.seal(b"for the parent", 0.0)
    connection.send(b"from the parent", 0.0)

    def check() -> None:
        calls: list[Callable[[], object]] = [
            lambda: connection.send(b"x", 0.0),
            lambda: connection.seal(b"x", 0.0),
            lambda: idle.send_cipher.seal_padded(Padded(b"x"), 0.0),
            lambda: connection.ping(b"x", 0.0),
            lambda: connection.close(2000, 0.0),
            lambda: connection.receive_data(waiting, 0.0),
            lambda: connection.data_to_send(),
            lambda: connection.handle_deadline(1e9),
        ]
        for call in calls:
            with pytest.raises(ForkedConnection):
                call()
        connection.abort("the child is done with it")
        assert connection.data_to_send() == b""

    in_child(check, forked)
    mine.take(waiting)
    theirs.take(mine.give())
    assert mine.received == [b"for the parent"]
    assert theirs.received == [b"from the parent"]


@pytest.mark.parametrize(
    ("phase", "side"),
    [
        (phase, side)
        for phase in LEGAL
        for side in Side
        if phase.value.startswith(side.value) and LEGAL[phase]
    ],
)
def test_handshakes_under_way(phase: Phase, side: Side) -> None:
    """The child would compute the same keys as its parent."""
    peer, following = in_phase(phase, side)

    def check() -> None:
        with pytest.raises(ForkedConnection):
            peer.connection.receive_data(following, 0.0)
        assert peer.connection.data_to_send() == b""

    in_child(check)


def test_connections_made_in_the_child() -> None:
    """They work there, also in a child of a child."""

    def check() -> None:
        established().run()
        in_child(lambda: established().run())

    in_child(check)


FIRST = """
import os, sys
if "relay" in sys.modules:
    sys.exit("too late")

def in_child():
    try:
        print(pair.client.connection.seal(b"x", 0.0).hex())
    except Exception as error:
        print(type(error).__name__)
    sys.stdout.flush()

os.register_at_fork(after_in_child=in_child)
from tests.support.pair import established
pair = established()
if not os.fork():
    os._exit(0)
os.wait()
pair.client.connection.seal(b"x", 0.0)
"""


def test_who_asked_python_first_is_refused_as_well() -> None:
    """Python runs the registered fork handlers in that order."""
    run = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert (run.stdout, run.stderr) == ("ForkedConnection\n", "")
