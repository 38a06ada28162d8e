"""The listening sockets: names on disk that disappear, and names that remain at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from relay.server.privileges import Separation, User
from relay.server.supervisor.listener import bind_unix, format_bound
from relay.server.supervisor.service_manager import GivenSockets
from relay.server.supervisor.sockets import AGAIN_S, Sockets
from tests.server.supervisor.test_handover import _hand_over as no_handover

OTHER = 12345
NONE_GIVEN = GivenSockets((), None)


class Place:
    """Sockets at two paths for clients, at a port, and at one for metrics, with a clock."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.one, self.other, self.control = (directory / name for name in ("a", "b", "c"))
        self.sockets = Sockets(NONE_GIVEN, lambda: self.now)
        binds = (f"unix:{self.one}", "127.0.0.1:0", f"unix:{self.other}")
        self.sockets.bind(binds, f"unix:{self.control}", contextlib.nullcontext)

    def close(self, *, shared: bool = False) -> None:
        if self.sockets.clients[0].fileno() >= 0:
            self.sockets.close(contextlib.nullcontext, shared=shared)

    @property
    def there(self) -> set[str]:
        """Return the names that lead to a listening socket."""
        return {path.name for path in (self.one, self.other, self.control) if answers(path)}


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except OSError:
            return False
    return True


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return what was logged since the last call, and for which name."""
    found = [(line.message, Path(vars(line)["path"]).name) for line in caplog.records]
    caplog.clear()
    return found


@pytest.fixture(autouse=True)
def _all_events(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay.supervisor")


def test_a_name_that_is_gone_is_made_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    first, port, second = place.sockets.clients
    assert not place.sockets.renew_clients()
    assert not place.sockets.renew_control()
    place.one.unlink()
    assert not place.sockets.renew_control()
    assert place.sockets.renew_clients()
    again, *same = place.sockets.clients
    assert same == [port, second], "the others stay as they are"
    assert first.fileno() == -1, "nobody can connect to the old socket, which holds a descriptor"
    assert not again.getblocking()
    assert place.one.stat().st_mode & 0o777 == 0o600
    assert place.there == {"a", "b", "c"}
    place.control.unlink()
    assert not place.sockets.renew_clients()
    assert place.sockets.renew_control()
    assert place.there == {"a", "b", "c"}
    assert events(caplog) == [("listener_replaced", "a"), ("listener_replaced", "c")]
    for _ in range(2):
        assert not place.sockets.renew_clients()
        assert not place.sockets.renew_control()
    place.one.unlink()
    assert place.sockets.renew_clients(), "as often as it is removed"


def test_each_name_that_cannot_be_had_waits_for_itself_alone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory in its place is logged at once and again later; other names are not delayed."""
    before = place.sockets.clients
    for path in (place.one, place.control):
        path.unlink()
        path.mkdir()
    assert not place.sockets.renew_clients()
    assert not place.sockets.renew_control()
    assert events(caplog) == [("listener_failed", "a"), ("listener_failed", "c")]
    assert place.sockets.clients == before, "connections in its backlog are still served"
    assert before[0].fileno() >= 0
    place.now = AGAIN_S / 2
    place.other.unlink()
    assert place.sockets.renew_clients()
    assert events(caplog) == [("listener_replaced", "b")]
    place.one.rmdir()
    assert not place.sockets.renew_clients(), "not yet"
    place.now = AGAIN_S
    assert place.sockets.renew_clients()
    assert not place.sockets.renew_control()
    assert events(caplog) == [("listener_replaced", "a"), ("listener_failed", "c")]
    place.control.rmdir()
    place.now = 2 * AGAIN_S
    assert place.sockets.renew_control()
    assert place.there == {"a", "b", "c"}


def test_a_directory_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The relay does not know its owner and mode: the operator has to create it."""
    directory = tmp_path / "run"
    directory.mkdir()
    place = Place(directory)
    for path in (place.one, place.other, place.control):
        path.unlink()
    directory.rmdir()
    assert not place.sockets.renew_clients()
    assert not place.sockets.renew_control()
    assert events(caplog) == [("listener_failed", name) for name in ("a", "b", "c")]
    directory.mkdir()
    place.now = AGAIN_S
    assert place.sockets.renew_clients()
    assert place.sockets.renew_control()
    assert place.there == {"a", "b", "c"}
    place.close()
    assert not any(directory.iterdir())


def test_what_another_program_has_there_is_its_own(place: Place) -> None:
    """A file or another program's socket there is neither replaced nor removed at the end."""
    place.one.unlink()
    place.other.unlink()
    place.other.write_text("another's")
    place.control.unlink()
    place.control.write_text("another's")
    with bind_unix(place.one) as theirs:
        assert not place.sockets.renew_clients()
        assert not place.sockets.renew_control()
        place.close()
        assert answers(place.one)
        assert theirs.fileno() >= 0
    assert place.other.read_text() == place.control.read_text() == "another's"


def test_names_at_the_end(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.close(shared=True)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b", "c"], (
        "of the next version"
    )
    place = Place(tmp_path)
    place.close()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [False, True], ids=["bound", "given"])
def test_those_that_were_handed_over(tmp_path: Path, kept: bool) -> None:
    """The next version maintains the names that its predecessor has bound, and only those."""
    before = Place(tmp_path)
    handover = msgspec.structs.replace(
        no_handover(0, ""),
        listeners=[os.dup(sock.fileno()) for sock in before.sockets.clients],
        listeners_kept=kept,
        control=os.dup(before.sockets.control.fileno()) if before.sockets.control else None,
        control_kept=kept,
    )
    os.close(handover.stderr)
    after = Sockets.handed_over(handover)
    before.close(shared=True)
    assert not after.renew_clients()
    assert not after.renew_control()
    assert all(not sock.getblocking() for sock in after.clients)
    before.one.unlink()
    before.control.unlink()
    assert after.renew_clients() is not kept
    assert after.renew_control() is not kept
    assert before.there == ({"b"} if kept else {"a", "b", "c"})
    after.close(contextlib.nullcontext, shared=False)
    assert [path.name for path in tmp_path.iterdir()] == (["b"] if kept else [])


def test_sockets_that_were_given_stay_as_they_are(tmp_path: Path) -> None:
    """Their names belong to the service manager at all times."""
    one, control = bind_unix(tmp_path / "one"), bind_unix(tmp_path / "control")
    sockets = Sockets(GivenSockets((one,), control))
    sockets.bind(("127.0.0.1:0",), "off", contextlib.nullcontext)
    assert (sockets.clients, sockets.control) == ((one,), control)
    (tmp_path / "one").unlink()
    (tmp_path / "control").unlink()
    assert not sockets.renew_clients()
    assert not sockets.renew_control()
    (tmp_path / "one").write_text("the service manager's")
    sockets.close(contextlib.nullcontext, shared=False)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("name", [f"\0relay-test-{os.getpid()}", ""], ids=["abstract", "any"])
def test_a_given_socket_without_a_path(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(name)
        given.listen()
        sockets = Sockets(GivenSockets((given,), None))
        sockets.bind((), "off", contextlib.nullcontext)
        shown = given.getsockname().decode().replace("\0", "@")
        assert format_bound(given) == f"unix:{shown}"
        assert not sockets.renew_clients()
        sockets.clients_kept = False
        assert not sockets.renew_clients(), "its directory is not reported as missing"
        sockets.close(contextlib.nullcontext, shared=False)
        assert given.fileno() == -1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_makes_names_as_whoever_has_the_directory() -> None:
    """Links in it are not followed with root's permissions."""
    with tempfile.TemporaryDirectory() as name:  # only root may enter pytest's directories
        os.chown(name, OTHER, OTHER)
        path = Path(name) / "control"
        sockets = Sockets(NONE_GIVEN)
        sockets.bind(("127.0.0.1:0",), f"unix:{path}", Separation(User("", OTHER, OTHER)).lowered)
        assert path.stat().st_uid == OTHER
        path.unlink()
        assert sockets.renew_control()
        assert path.stat().st_uid == OTHER
        sockets.close(contextlib.nullcontext, shared=False)
