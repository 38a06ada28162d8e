"""The chat: one user in a room, with direct messages. Lines go in, messages and notices come out.

It knows neither pipes nor terminals: lines come from an iterator, and a ``Screen`` shows
everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NoReturn

from relay.client.account_calls import Writers
from relay.client.aio import Client
from relay.client.arguments import ME
from relay.client.errors import ClientError, DeviceChainError, MessageTooLong
from relay.client.events import (
    Event,
    Gap,
    Invited,
    Live,
    LogEntry,
    Message,
    RoomChanged,
    RosterChanged,
    State,
    StateChanged,
    Unfollowed,
)
from relay.client.refusals import AlreadyJoined, NoSuchRoom, NotAMember, Refused
from relay.terminal import commands, room_commands
from relay.terminal.accepting import accept
from relay.terminal.choices import AIM
from relay.terminal.entering import Entering
from relay.terminal.history import HistoryCommands
from relay.terminal.invitations import Invitations
from relay.terminal.last_message import LastMessageCommands
from relay.terminal.notices import Narrator, choices, members_notice
from relay.terminal.pending import Pending
from relay.terminal.room_list import listed_rooms
from relay.terminal.room_notices import (
    back_in,
    info_lines,
    is_member,
    list_line,
    not_begun,
    out_of,
    waiting_notices,
)
from relay.terminal.screens import Screen
from relay.terminal.sending import NotSent, Question, Sending, shortened
from relay.terminal.shown import Shown
from relay.terminal.view import day_and_clock
from relay.terminal.who_is_here import WhoIsHere

_MISSED_MAX = 50
"""How many of the newest inbox entries are examined for unread ones at the start."""
_MARK_S = 30.0
"""Minimum interval between marking the room as read, except when leaving: each mark is stored."""


class Chat:
    """One user in one room."""

    def __init__(self, client: Client, room: str, screen: Screen) -> None:
        """Take a connected client, and a canonical room that it has not joined yet."""
        self.client = client
        self.room = room
        self.screen = screen
        self._pending = Pending(screen.pending)
        self.sending = Sending(client, room, screen, self._pending)
        self.mistakes = 0
        """Lines that are no valid command or message, so were not sent."""
        self.target = room
        """Where typed lines are sent: the room, or ``@`` and a user's name."""
        self.reads = False
        """True if a person sees what is shown: their other devices are told what was read."""
        self._shown = Shown(screen, client.name, room)
        recent = self._shown.recent
        self._last_message = LastMessageCommands(client, self.sending, recent, self._ask)
        self._history = HistoryCommands(client, room, screen, self._shown)
        self._typed = ""
        """The command being executed."""
        self._member = False
        """True for a permanent member of the room, whose read mark is useful."""
        self._invitations = Invitations(room)
        self._not_begun = not_begun(room, guest=client.device_key is None)
        self._who_is_here = WhoIsHere(client, room, screen)
        self._marked_s = -_MARK_S
        """When the room was last marked as read, by a monotonic clock."""
        self._requests: set[asyncio.Task[None]] = set()
        """Unanswered requests to the server: typing continues meanwhile."""
        self._one_request = asyncio.Lock()
        """Keeps answers in the order of the requests."""
        self._away = asyncio.Event()
        """Set while there is no connection."""

    async def run(self, lines: AsyncIterator[str], last: int, join_s: float | None = None) -> None:
        """Join, show the ``last`` messages, and chat until the lines end or /quit.

        When it returns, everything that was sent is stored, except for ``sending.failures``.

        Raises:
            ClientError: the server ended the connection for good, refused the room, or has not
                answered the join within ``join_s`` seconds.
        """
        entering = Entering(self.screen.notice)
        show = asyncio.create_task(self._show_events(entering.events(self.client)))
        tasks: set[asyncio.Task[Any]] = {show}
        try:
            joined = await entering.join(self.client.join(self.room, last=last, timeout=join_s))
            self.screen.notice(f"in {self.room} as {self.client.name}; /help lists the commands")
            self.sending.begin(watched=self.reads, begun=bool(joined.head.seq))
            if not joined.head.seq:
                self.screen.notice(self._not_begun)
            self._who_is_here.ask()
            if self.client.device_key is not None:  # a guest has no inbox
                self._ask(self._open_inbox)
                await self._all_answered()
            talk = asyncio.create_task(self._talk(lines))
            tasks.add(talk)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if show.done():
                show.result()
            await talk
        finally:
            tasks |= {*self._requests, *self._who_is_here.end()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.sending.tell_unstored()

    # --- received -----------------------------------------------------------------------------
    async def _show_events(self, events: AsyncIterator[Event]) -> NoReturn:
        narrator = Narrator(self.client.name)
        async for event in events:
            if isinstance(event, LogEntry | RoomChanged):
                if event.room == self.room:
                    self.sending.room_begun()
                    self._history.first_seq = self._history.first_seq or event.seq
                # only here: what history shows happened long ago
                if isinstance(event, RoomChanged):
                    self._member = is_member(event, self.client.name, self._member)
                await self._shown.show(event)
                continue
            if isinstance(event, StateChanged):
                self._note_state(event)
            if isinstance(event, Gap):
                self._shown.recent.note_gap(event)
            if isinstance(event, Live) and event.room != self.room:
                continue
            if isinstance(event, RosterChanged):
                self._who_is_here.changed(event)
                continue
            if isinstance(event, Unfollowed) and event.room == self.room:
                self._invitations.out = True
            if isinstance(event, Invited):
                notice = self._invitations.notice_of(event)
            else:
                notice = narrator.notice_of(event)
            if notice:
                self.screen.notice(notice)
        raise ClientError("the connection was closed")

    def _note_state(self, event: StateChanged) -> None:
        self._who_is_here.state(event)
        if event.state is State.WAITING:
            self._away.set()
        elif event.state is State.ONLINE:
            self._away.clear()
        if self._invitations.are_due(event) and self.client.device_key is not None:
            self._ask(self._look_for_invitations)

    async def _look_for_invitations(self) -> None:
        """Report invitations that arrived while there was no connection."""
        if notice := self._invitations.missed(await self.client.rooms(mine=True)):
            self.screen.notice(notice)

    async def _open_inbox(self) -> None:
        """Follow the user's inbox, and show unread messages among the newest."""
        await self.client.join(ME)
        marks = await self.client.read_marks()
        page = await self.client.history(ME, count=_MISSED_MAX)
        missed = [
            entry
            for entry in page.entries
            if isinstance(entry, Message)
            and entry.sender == entry.peer != self.client.name
            and entry.seq > marks.get(f"@{entry.peer}", entry.cursor._replace(seq=0)).seq
        ]
        if missed:
            self.screen.notice(f"direct messages since you were last here: {len(missed)}")
        for entry in missed:
            await self._shown.show(entry)
        rooms = await self.client.rooms(mine=True)
        self._member = any(
            room.name == self.room and room.role not in ("none", "invited") for room in rooms
        )
        self._invitations.known(rooms)
        for notice in waiting_notices(rooms, self.room):
            self.screen.notice(notice)

    def _mark_read(self, *, leaving: bool = False) -> None:
        """Mark the room as read: a user who types has seen what is shown."""
        unread, self._shown.unread = self._shown.unread, {}
        here = unread.pop(self.room, None)
        if not self.reads:
            return
        if here is not None and self._member:
            now = asyncio.get_running_loop().time()
            if leaving or now - self._marked_s >= _MARK_S:
                self._marked_s = now
                unread[self.room] = here
            else:
                self._shown.unread[self.room] = here
        for entry in unread.values():
            self._ask(partial(self.client.mark_read, entry))

    # --- typed --------------------------------------------------------------------------------
    async def _talk(self, lines: AsyncIterator[str]) -> None:
        async for line in lines:
            command = commands.parse(line, self.room, strict=self.sending.strict)
            self._mark_read()
            if isinstance(command, commands.Quit):
                break
            self._typed = line
            await self._do(command)
            self._typed = ""
        self._mark_read(leaving=True)
        await self._all_answered()
        await self.sending.all_stored()

    async def _all_answered(self) -> None:
        """Wait for the answers to all requests, but not for a server that is unreachable."""
        away = asyncio.create_task(self._away.wait())
        asked = set(self._requests)
        try:
            while asked and not away.done():
                done, _ = await asyncio.wait({*asked, away}, return_when=asyncio.FIRST_COMPLETED)
                for request in done & asked:
                    request.result()
                asked -= done
        finally:
            away.cancel()

    async def _do(self, command: commands.Command) -> None:
        match command:
            case commands.Say(text) if text and self._invitations.out and self.target == self.room:
                # It might still be stored, and would never be shown here.
                self.sending.fail(f"not sent, {out_of(self.room)}: {shortened(text)}")
            case commands.Say(text):
                await self.sending.say(text, self.target)
            case commands.Tell(name, text):
                await self.sending.say(text, f"@{name}")
            case commands.Query(name):
                self.sending.chosen(AIM)
                self.target = f"@{name}" if name else self.room
                self.screen.talk_to(self.target)
            case commands.About(what, text):
                await self._last_message.do(what, text, self.target)
            case commands.Seen(name):
                self._ask(partial(self._seen, name))
            case commands.Accept(name, code):
                self._ask(partial(self._accept, name, code))
            case commands.Block(name, blocked):
                self._ask(partial(self._block, name, blocked))
            case commands.Choose(what, chosen):
                self._ask(partial(self._choose, what, chosen))
            case commands.Mistake():
                self.mistaken(command)
            case commands.Help(of_rooms):
                for line in room_commands.HELP if of_rooms else commands.HELP:
                    self.screen.notice(line)
            case commands.Numbers(count):
                self._ask(partial(self._history.numbers, count))
            case commands.Room():
                self._ask(self._room)
            case commands.Join():
                self._ask(self._join_again)
            case commands.Rooms():
                self._ask(self._rooms)
            case room_commands.Change():
                make = partial(self._change, command)
                says = self._typed if command.says else ""
                narrows, chooses = command.narrows, command.chooses
                self._ask(self.sending.change(make, chooses, needed=narrows, says=says))
            case commands.Who():
                self._ask(self._who)
            case commands.History(count):
                self._ask(partial(self._history.history, count, self.target))
            case commands.Search(words):
                self._ask(partial(self._history.find, words, self.target))

    def mistaken(self, mistake: commands.Mistake) -> None:
        """Report a line that is not sent; hold lines that may rely on it."""
        self.mistakes += 1
        self.screen.notice(mistake.reason)
        if mistake.chooses is not None and self.sending.not_chosen(mistake.chooses):
            self.target = self.room  # where lines are held

    async def _accept(self, name: str, code: str) -> None:
        for line in await accept(self.client, name, code):
            self.screen.notice(line)

    async def _seen(self, name: str) -> None:
        seen = await self.client.last_seen(name)
        when = f" since {day_and_clock(seen.time_ms)}" if seen.time_ms else ""
        if seen.online:
            self.screen.notice(f"{name} is here{when}")
        elif seen.time_ms:
            self.screen.notice(f"{name} was last here at {day_and_clock(seen.time_ms)}")
        else:
            self.screen.notice(f"you are not told when {name} was last here")

    async def _block(self, name: str, blocked: bool) -> None:
        await (self.client.block(name) if blocked else self.client.unblock(name))
        what = "blocked" if blocked else "accepted again"
        self.screen.notice(f"direct messages from {name} are {what}")

    async def _choose(self, what: str, who: Writers | None) -> None:
        """Set a preference if a group is named; show the preferences."""
        if who and what == "writers":
            await self.client.set_preferences(writers=who)
        elif who:
            await self.client.set_preferences(seen_by=who)
        self.screen.notice(choices(await self.client.preferences()))

    def _ask(self, question: Question) -> None:
        task = asyncio.create_task(self._answer(question))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        if self._typed:
            done = self._pending.begin(f"no answer yet: {self._typed}")
            task.add_done_callback(lambda _: done())

    async def _answer(self, question: Question) -> None:
        """Make a request and show the answer; a refusal is a notice, not the end."""
        async with self._one_request:
            try:
                await question()
            except NotAMember:
                self.screen.notice(f"refused: {out_of(self.room)}")
            except Refused as error:
                no_room = isinstance(error, NoSuchRoom) and not self._invitations.out  # nor was one
                self.screen.notice(f"refused: {self._not_begun if no_room else error}")
            except NotSent as error:
                self.sending.fail(str(error))
            except DeviceChainError as error:
                self.screen.notice(str(error))
            except (ValueError, MessageTooLong) as error:
                self.screen.notice(f"not sent: {error}")

    async def _who(self) -> None:
        self.screen.notice(members_notice(await self.client.who(self.room)))

    async def _join_again(self) -> None:
        try:
            joined = await self.client.join(self.room)
        except AlreadyJoined:
            self.screen.notice(f"you are in {self.room}")
            return
        self._invitations.out = False
        self.screen.notice(back_in(joined))
        self._who_is_here.ask()

    async def _room(self) -> None:
        for line in info_lines(await self.client.room_info(self.room)):
            self.screen.notice(line)

    async def _rooms(self) -> None:
        rooms, missing = await listed_rooms(self.client)
        for room in rooms:
            self.screen.notice(list_line(room))
        if missing:
            self.screen.notice(missing)
        elif not rooms:
            self.screen.notice("there are no rooms yet")

    async def _change(self, change: room_commands.Change) -> None:
        """Change the room; everybody sees the change as an entry of the room.

        Its kind may be chosen before there is a room: its first message would make it public.
        """
        try:
            await self.client.change_room(
                self.room,
                change.action,
                change.person,
                text=change.text,
                seconds=change.seconds,
                kind=change.kind,
                role=change.role,
                seq=change.seq,
                keep=change.keep,
            )
        except NoSuchRoom:
            if self._invitations.out or change.kind is None:
                raise
            await self.client.create_room(self.room, change.kind)
