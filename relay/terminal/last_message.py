"""The target of /reply, /react, /edit and /erase: the last message in the current conversation.

A later message may have been shown that belongs elsewhere: a direct message sent with /msg, or a
received one. Then it is unclear which one is meant, and a guess could send a private reply to a
room, or erase the wrong message. So the user is told, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from relay.client.aio import Client
from relay.client.events import LogEntry
from relay.terminal.recent import Recent, snippet
from relay.terminal.sending import Question, Sending

Ask = Callable[[Question], None]


class _Doubt(NamedTuple):
    """What the user was told: repeating the command carries it out."""

    what: str
    text: str
    message: LogEntry


class LastMessageCommands:
    """The commands of one user about the last message."""

    def __init__(self, client: Client, sending: Sending, recent: Recent, ask: Ask) -> None:
        """``ask`` makes a request to the server without waiting for its answer."""
        self._client = client
        self._sending = sending
        self._recent = recent
        self._ask = ask
        self._doubt: _Doubt | None = None

    async def do(self, what: str, text: str, target: str) -> None:
        """Act on the last message of the current conversation, unless that is ambiguous.

        Args:
            what: "reply", "edit", "erase" or "react".
            text: the reply, the new text, or the emoji.
            target: the current conversation: a room, or ``@`` and a user's name.
        """
        own = what in ("edit", "erase")
        told, self._doubt = self._doubt, None
        found = self._recent.last(target, own=own)
        if own and not self._sending.all_shown(self._recent):
            self._sending.fail("your last message is not stored yet: wait for it; not sent")
            return
        doubt = self._doubt_about(found, target, own=own)
        if doubt and (found is None or told != (what, text, found)):
            self._sending.fail(doubt)
            if found is not None:
                self._doubt = _Doubt(what, text, found)
        elif found is None:
            whose = "of yours" if own else "of somebody else"
            self._sending.fail(f"there is no message {whose} here; not sent")
        else:
            await self._say(what, text, target, found)

    def _doubt_about(self, found: LogEntry | None, target: str, *, own: bool) -> str:
        """Return why the last message of the conversation may not be meant; empty: it is."""
        if own and found is not None and self._sending.last_is_gone(self._recent):
            return f"not sent: your last message is gone; {_again(found, target)}"
        last = self._recent.last(None, own=own)
        # Other users' room messages in between are no reason for doubt in a private conversation:
        # the prompt shows with whom it is.
        if last is not None and found is not last and (own or (last.to and target[0] != "@")):
            return _in_doubt(last, found, target, own=own)
        return ""

    async def _say(self, what: str, text: str, target: str, message: LogEntry) -> None:
        match what:
            case "reply":
                await self._sending.say(text, target, message)
            case "erase":  # there is less to read afterwards: it waits for no change
                self._ask(partial(self._client.redact, message))
            case _:
                say = self._client.edit if what == "edit" else self._client.react
                question: Question = partial(say, message, text)
                self._ask(self._sending.after_change(question, target, f"/{what} {text}"))


def _in_doubt(last: LogEntry, found: LogEntry | None, target: str, *, own: bool) -> str:
    """Return why nothing was done, and what to type."""
    if not own:
        what = f"the last message is from {last.peer}, to you alone"
    else:
        what = f"your last message went to {f'{last.peer} alone' if last.to else last.room}"
    go = f"/query {last.peer}" if last.to else "/query"
    told = f"not sent: {what} ({go} goes there)"
    if found is None:
        return told
    return f"{told}; {_again(found, target, '' if own else f' from {found.sender}')}"


def _again(found: LogEntry, target: str, whose: str = "") -> str:
    where = f"to {target[1:]}" if target.startswith("@") else f"in {target}"
    return f"type the same again for {snippet(found)}{whose} {where}"
