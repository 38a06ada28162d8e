"""``relay ctl top`` on a terminal: refreshed until q is pressed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from prompt_toolkit.application import Application
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import HSplit, Layout, Window
from prompt_toolkit.layout.controls import FormattedTextControl

from relay.cli.console.tables import Item, duration, top_lines
from relay.cli.process.exits import Exit
from relay.errors import RelayError
from relay.terminal.job_control import JobControl
from relay.terminal.key_modes import KeyModes
from relay.terminal.text import harmless

LATE_S: Final = 2.0
"""If an answer takes longer, what is shown is marked as old."""


def show(ask: Callable[[], Item], interval_s: float) -> int:
    """Show answers, requested every so many seconds, until q or Ctrl-C. Ctrl-Z suspends.

    While there is no answer the last picture stays, with the reason below it: watching a restart or
    an upgrade must be possible. The terminal is also restored after TERM.

    Returns:
        The exit code.

    Raises:
        RelayError: there was no answer the first time.
    """
    shown, answered_s, failure = ask(), time.monotonic(), ""
    keys, modes = KeyBindings(), KeyModes(sys.stdin.fileno())
    jobs = JobControl(modes)

    @keys.add("q")
    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        event.app.exit()

    @keys.add("c-z")
    def _(event: KeyPressEvent) -> None:
        jobs.suspend()

    def picture() -> str:
        return "\n".join(top_lines(shown, application.output.get_size().rows - 1))

    def below() -> str:
        silent_s = time.monotonic() - answered_s
        if not failure and silent_s < interval_s + LATE_S:
            return f"every {interval_s:g} s; q ends"
        return f"no answer for {duration(silent_s)}{failure and ': '}{failure}; q ends"

    application: Application[None] = Application(
        layout=Layout(
            HSplit(
                [
                    Window(FormattedTextControl(picture), wrap_lines=False),
                    Window(FormattedTextControl(below), wrap_lines=True, dont_extend_height=True),
                ]
            )
        ),
        key_bindings=keys,
        full_screen=True,
    )

    async def refresh() -> None:
        nonlocal shown, answered_s, failure
        while True:
            await asyncio.sleep(interval_s)
            answer = _asked(ask)
            while not answer.done():
                await asyncio.wait([answer], timeout=1.0)
                application.invalidate()
            try:
                shown, failure = answer.result(), ""
                answered_s = time.monotonic()
            except RelayError as error:
                failure = harmless(str(error))
            application.invalidate()

    ended = Exit.OK

    def terminate() -> None:
        nonlocal ended
        ended = Exit.TERMINATED
        if application.is_running and application.future and not application.future.done():
            application.exit()

    def begin() -> None:
        ending.enter_context(jobs.handled())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        application.create_background_task(refresh())

    modes.take()
    # EOFError: the terminal is gone.
    with contextlib.suppress(EOFError), contextlib.ExitStack() as ending:
        ending.callback(modes.give_back)
        application.run(pre_run=begin)
    return ended


def _asked(ask: Callable[[], Item]) -> asyncio.Future[Item]:
    """Ask in a thread that nothing waits for: q leaves at once, whatever the relay does."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Item] = loop.create_future()

    def settle(found: Item | Exception) -> None:
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def run() -> None:
        found: Item | Exception
        try:
            found = ask()
        except Exception as error:  # noqa: BLE001  # it is raised where it is awaited
            found = error
        with contextlib.suppress(RuntimeError):  # the result is not needed any more
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=run, daemon=True).start()
    return answer
