"""Which users the sockets of ``relay ctl`` answer."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.server.line_server import LineServer, Question

ASK = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
try:
    sock.sendall(b'{"do": "tell"}\\n')
    print(sock.makefile("rb").readline().decode(), end="")
except ConnectionError:
    pass
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user may enter; pytest's own are root's."""
    directory = Path(tempfile.mkdtemp(prefix="relay-lines-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def path(open_directory: Path) -> AsyncIterator[Path]:
    """A socket that any user may connect to."""

    async def tell(_: Question) -> str:
        return "the secret"

    path = open_directory / "ctl.sock"
    lines = LineServer({"tell": tell})
    server = await asyncio.start_unix_server(lines.serve, path)
    os.chmod(path, 0o666)  # noqa: PTH101, S103
    yield path
    server.close()


async def answer(path: Path, uid: int) -> str:
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, str(path), str(uid), stdout=asyncio.subprocess.PIPE
    )
    found, _ = await asking.communicate()
    assert asking.returncode == 0
    return found.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
async def test_only_root_and_the_servers_own_user_are_answered(path: Path) -> None:
    """Whatever the permissions of the directories above are."""
    assert "the secret" in await answer(path, 0)
    assert "the secret" not in await answer(path, 54_321)
    os.seteuid(54_321)  # the server's user
    try:
        own = asyncio.open_unix_connection(path)
        reader, writer = await own
        writer.write(b'{"do": "tell"}\n')
        assert "the secret" in (await reader.readline()).decode()
        writer.close()
        os.seteuid(0)
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, str(path), "0", stdout=asyncio.subprocess.PIPE
        )
        stranger = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, str(path), "54322", stdout=asyncio.subprocess.PIPE
        )
        os.seteuid(54_321)
        assert b"the secret" in (await asking.communicate())[0], "root, at another user's server"
        assert b"the secret" not in (await stranger.communicate())[0]
    finally:
        os.seteuid(0)
