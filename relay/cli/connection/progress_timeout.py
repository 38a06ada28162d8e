"""How long a command waits for the server, for ``--timeout``."""

from __future__ import annotations

import asyncio


class ProgressTimeout:
    """A limit for each wait for progress by the server; waits for input do not count."""

    def __init__(self, limit_s: float | None) -> None:
        """Allow ``limit_s`` without any progress; None: no limit."""
        self.limit_s = limit_s
        self._timeout: asyncio.Timeout | None = None
        """None before the first use; each ``async with`` has its own."""
        self._outstanding = 0

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout(None)
        self._outstanding = 0
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        """End.

        Raises:
            TimeoutError: the limit was reached, and ``exhausted`` is true from then on.
        """
        assert self._timeout is not None
        await self._timeout.__aexit__(*exc)  # type: ignore[arg-type]

    @property
    def exhausted(self) -> bool:
        """True once the limit was reached."""
        return self._timeout is not None and self._timeout.expired()

    def begin(self) -> None:
        """Something is now pending at the server."""
        self._outstanding += 1
        if self._outstanding == 1:
            self._restart()

    def done(self, _: object = None) -> None:
        """The server has completed one of the pending things."""
        self._outstanding -= 1
        self._restart()

    def _restart(self) -> None:
        if self._timeout is None or self.limit_s is None or self.exhausted:
            return
        now = asyncio.get_running_loop().time()
        try:
            self._timeout.reschedule(now + self.limit_s if self._outstanding else None)
        except RuntimeError:
            return  # the context has ended: futures that are cancelled at the end
