"""``relay ctl top`` on a terminal: the picture, again and again, until q."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from prompt_toolkit.application import Application
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import HSplit, Layout, Window
from prompt_toolkit.layout.controls import FormattedTextControl

from relay.cli.ctl_tables import Item, duration, top_lines
from relay.errors import RelayError
from relay.terminal.text import harmless


def show(ask: Callable[[], Item], interval_s: float) -> None:
    """Show answers, asked for anew every so many seconds, until q or Ctrl-C. Ctrl-Z suspends.

    While nobody answers the last picture stays, with the reason below it: a relay that is being
    restarted or upgraded is what one watches.

    Raises:
        RelayError: nobody answered the first time.
    """
    shown, answered_s, failure = ask(), time.monotonic(), ""
    keys = KeyBindings()

    @keys.add("q")
    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        event.app.exit()

    @keys.add("c-z")
    def _(event: KeyPressEvent) -> None:
        event.app.suspend_to_background()

    def picture() -> str:
        return "\n".join(top_lines(shown, application.output.get_size().rows - 1))

    def below() -> str:
        if not failure:
            return f"every {interval_s:g} s; q ends"
        return f"no answer for {duration(time.monotonic() - answered_s)}: {failure}; q ends"

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
            try:
                shown, failure = await asyncio.to_thread(ask), ""
                answered_s = time.monotonic()
            except RelayError as error:
                failure = harmless(str(error))
            application.invalidate()

    def begin() -> None:
        application.create_background_task(refresh())

    with contextlib.suppress(EOFError):  # the terminal is gone
        application.run(pre_run=begin)
