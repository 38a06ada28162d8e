"""The users that a relay's processes run as if it is started as root; the supervisor stays root.

The supervisor acts as the owner of the data and runtime directories when it works in them
(``lowered``), since a compromised worker can put links there. Its children give up root
permanently: the key agent for a user of its own, once it has read the key (``become_agent``), the
others for the relay's (``become_server``).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import StartError, UsageError
from relay.server.keys.key_files import KEY_FILES
from relay.server.system import prctl
from relay.settings import SAME_USER

_CAPABILITIES: Final = {"CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""The capabilities needed: for changing to other users, and ending their processes."""
_STATUS: Final = Path("/proc/self/status")
UID_MAX: Final = 2**32 - 2
"""The next number stands for no user."""


class User(NamedTuple):
    """A user of this machine."""

    name: str
    uid: int
    gid: int


class Separation:
    """The users that the processes run as."""

    def __init__(self, server: User | None = None, agent: User | None = None) -> None:
        """Take the users.

        Args:
            server: of the relay; None: all processes run as the user who started it.
            agent: of the key agent; None: the same as the others.
        """
        self.server = server
        self.agent = agent or server

    @property
    def server_uid(self) -> int:
        """Of all processes except supervisor and key agent."""
        return os.geteuid() if self.server is None else self.server.uid

    @contextlib.contextmanager
    def lowered(self) -> Iterator[None]:
        """Within the context, have only the rights of the relay's user."""
        with _effective(self.server):
            yield

    def become_server(self) -> None:
        """Become the relay's user permanently."""
        _become(self.server)

    def become_agent(self) -> None:
        """Become the key agent's user permanently."""
        _become(self.agent)

    def prepare(self, data: Path) -> None:
        """Create the data directory for the relay's user; refuse one of another user.

        Raises:
            StartError: it cannot be created, or something in it has another owner; the message has
                the commands to correct that.
        """
        user = self.server
        if user is None:
            return
        _check_capabilities()
        self._check_program()
        try:
            if not data.exists():
                data.mkdir(mode=0o700)
                os.chown(data, user.uid, user.gid)
                return
            logs = data / "logs"
            inner = [*logs.iterdir(), logs] if logs.is_dir() else []
            wrong = next((p for p in (data, *inner) if p.lstat().st_uid != user.uid), None)
            own = [data / name for name in KEY_FILES]
            readable = next((p for p in own if p.exists() and p.stat().st_uid != 0), None)
        except OSError as error:
            raise StartError(
                f"data directory: {error.filename}: {error.strerror or error}"
            ) from None
        found = wrong or readable
        if found is None:
            return
        where = shlex.quote(str(data))
        raise StartError(
            f"{found} belongs to uid {found.stat().st_uid}. With server.user the data is the "
            f"relay's ({user.name}), and the key root's alone; run: "
            f"chown -R {user.uid}:{user.gid} {where} && chown 0:0 {where}/server.*"
        )

    def _check_program(self) -> None:
        """Check that the relay's user can read the program: modules are imported later."""
        for user in (self.server, self.agent):
            for path in (os.__file__, __file__, sys.executable):
                with _effective(user):
                    readable = os.access(path, os.R_OK, effective_ids=True)
                if not readable and user is not None:
                    raise StartError(
                        f"server.user: {user.name} cannot read {path}: install Relay and Python "
                        "where that user may"
                    )


def resolve(server: str, agent: str) -> Separation:
    """Return the users according to the settings ``server.user`` and ``server.agent_user``.

    Raises:
        UsageError: no such user, one of them is root, both are the same, or the first is missing.
        StartError: this process is not root, and cannot change users.
    """
    if server == SAME_USER:
        if agent != SAME_USER:
            raise UsageError("server.agent_user is set, and server.user is not")
        return Separation()
    main = _user("server.user", server)
    other = _user("server.agent_user", agent) if agent != SAME_USER else None
    if other is not None and other.uid == main.uid:
        raise UsageError("server.user and server.agent_user must be two different users")
    if os.geteuid() != 0:
        if main.uid == os.geteuid() and other is None:
            return Separation()  # this is the case already
        raise StartError(
            "server.user and server.agent_user need a start as root: this process runs as uid "
            f"{os.geteuid()}"
        )
    return Separation(main, other)


def _check_capabilities() -> None:
    """Raise StartError if this root lacks capabilities, as in some containers."""
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
        has = int(status.partition("\nCapEff:")[2].split(maxsplit=1)[0], 16)
    except (OSError, ValueError, IndexError):
        return  # a failure will be reported later
    if missing := [name for name, bit in _CAPABILITIES.items() if not has >> bit & 1]:
        raise StartError(
            f"server.user: this root has no {', '.join(missing)}: grant it (in a container: "
            "--cap-add), or start the relay as its user and leave server.user out"
        )


@contextlib.contextmanager
def as_owner_of(path: Path) -> Iterator[None]:
    """As root, have the rights of a directory's owner within the context; otherwise do nothing."""
    owner = None
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            status = path.stat()
            owner = User("", status.st_uid, status.st_gid)
    with _effective(owner if owner is not None and owner.uid else None):
        yield


def _user(setting: str, text: str) -> User:
    if text.isdecimal() and (len(text) > len(str(UID_MAX)) or int(text) > UID_MAX):
        raise UsageError(f"{setting}: the number of a user is at most {UID_MAX}, not {text[:20]}")
    try:
        found = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except KeyError:
        if not text.isdecimal():
            raise UsageError(f"{setting}: there is no user {text!r} on this machine") from None
        return _not_root(setting, User(text, int(text), int(text)))  # as in a container
    return _not_root(setting, User(found.pw_name, found.pw_uid, found.pw_gid))


def _not_root(setting: str, user: User) -> User:
    if user.uid == 0 or user.gid == 0:
        raise UsageError(f"{setting}: {user.name} is root, or of root's group")
    return user


@contextlib.contextmanager
def _effective(user: User | None) -> Iterator[None]:
    if user is None:
        yield
        return
    groups = os.getgroups()
    try:
        os.setgroups([])
        os.setegid(user.gid)
        os.seteuid(user.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _become(user: User | None) -> None:
    """Give up root. The kernel then forgets to end this process with its parent: tell it again."""
    if user is None:
        return
    parent = os.getppid()
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    prctl.die_with_parent(parent)
    with contextlib.suppress(OSError):
        os.setresuid(0, 0, 0)
        raise AssertionError("root was not given up")
