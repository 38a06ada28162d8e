"""A program on a pseudo-terminal of its own: press keys, look at every byte it writes."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from pathlib import Path
from typing import Any, Self

from tests.support.cluster import DEADLINE_S, fitting, relay_command, wait_until
from tests.support.loaded import RELAY, Forked

COLUMNS = 80
LINES = 24


class Terminal:
    """``relay``, or another program; ``written`` has all that it wrote to its terminal."""

    def __init__(
        self,
        *args: str,
        env: dict[str, str] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        program: list[str] | None = None,
    ) -> None:
        self.written = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        plain = {"TERM": "xterm"}
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        environment = inherited | plain | (env or {})
        files = (slave if stdin is None else stdin, slave if stdout is None else stdout, slave)
        self.process: subprocess.Popen[bytes] | Forked
        if program is None and (has_loaded := fitting(args, environment)):
            self.process = has_loaded.start(
                RELAY, args, environment, Path.cwd(), files, session=True, terminal=True
            )
        else:
            self.process = subprocess.Popen(
                program or relay_command(*args),
                stdin=files[0],
                stdout=files[1],
                stderr=files[2],
                env=environment,
                preexec_fn=take_terminal,
            )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 65_536):
                self.written += data
        except OSError:  # EIO: the command has ended
            pass

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE_S)
        os.close(self._master)

    @property
    def text(self) -> str:
        """What was written so far, as text."""
        return self.written.decode("utf-8", "replace")

    def press(self, keys: str) -> None:
        """Type keys; Enter is a carriage return. Wait for a prompt first, or Ctrl-D is lost."""
        self.press_bytes(keys.encode())

    def press_bytes(self, keys: bytes) -> None:
        """Type what need not be text."""
        os.write(self._master, keys)

    @property
    def modes(self) -> list[Any]:
        """Of the terminal, as ``termios.tcgetattr`` has them."""
        return termios.tcgetattr(self._master)

    def shows(self, text: str) -> None:
        """Wait until a text was written."""
        try:
            wait_until(lambda: text in self.text, f"{text!r} on the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.text!r}") from None

    def ends(self) -> int:
        """Wait for the end of the command and of its output; return the exit code."""
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code
