"""``relay ctl top`` on a terminal: the picture, again and again, until q."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prompt_toolkit.application import Application
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import Layout, Window
from prompt_toolkit.layout.controls import FormattedTextControl

from relay.errors import RelayError


def show(lines: Callable[[], list[str]], interval_s: float) -> None:
    """Show lines, asked for anew every so many seconds, until q or Ctrl-C.

    Raises:
        RelayError: as ``lines`` does; the terminal is as it was before.
    """
    text = "..."
    failure: list[RelayError] = []
    keys = KeyBindings()

    @keys.add("q")
    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        event.app.exit()

    window = Window(FormattedTextControl(lambda: text), wrap_lines=False)
    application: Application[None] = Application(
        layout=Layout(window), key_bindings=keys, full_screen=True
    )

    async def refresh() -> None:
        nonlocal text
        while True:
            try:
                shown = await asyncio.to_thread(lines)
            except RelayError as error:
                failure.append(error)
                application.exit()
                return
            text = "\n".join([*shown, "", f"every {interval_s:g} s; q ends"])
            application.invalidate()
            await asyncio.sleep(interval_s)

    def begin() -> None:
        application.create_background_task(refresh())

    application.run(pre_run=begin)
    if failure:
        raise failure[0]
