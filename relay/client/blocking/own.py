# Generated from relay/client/aio by `python -m tests.blocking_client`: edit that.
"""Calls of a client about all of its user's own data: exporting and erasing it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any, cast

from relay.client import arguments, own_data
from relay.client.blocking.direct import BlockingDirect
from relay.client.blocking.rooms import BlockingRooms
from relay.client.closes import DeviceRevoked
from relay.client.own_data import Deleted, OwnData, OwnRooms, Pause, Played, Step
from relay.client.pending_sends import Offer
from relay.client.refusals import Refused


class BlockingOwn(BlockingDirect, BlockingRooms):
    """The calls of a client about all data of its account."""

    def export(
        self,
        rooms: Iterable[str] = (),
        *,
        timeout: float | None = None,
    ) -> Iterator[OwnData]:
        """Yield all data that the server has about this account, read with its own rights.

        A ``User``, ``Devices`` and ``Preferences``; a ``ReadUpTo`` and a ``ListedRoom`` each; then
        all direct messages, in both directions, and this account's messages in the rooms that it
        may read: those in the list, and those in which it has a role. What was erased is an
        ``Erased``. If you stop early, close the iterator (``contextlib.aclosing``, ``closing`` for
        a blocking client): a room that was being read is then left.

        Args:
            rooms: further rooms: public ones that are in no list.
            timeout: seconds, for each of many requests; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, for a guest; ...
            DeviceChainError: the server sent an invalid list of devices.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        self._check_started()
        own = OwnRooms(rooms)
        steps = self._found(own, own.exported(lambda: (self.name, self.server_id)), timeout)
        with contextlib.closing(steps):
            for found in steps:
                yield cast("OwnData", found)

    def delete_account(
        self,
        *,
        erase_messages: bool = False,
        rooms: Iterable[str] = (),
        timeout: float | None = None,
    ) -> Deleted:
        """Delete this account permanently. Its name is never assigned again.

        All connections of all its devices end, including this one, and no device can log in again.
        The server erases the inbox and the account's devices and settings, and ends its roles in
        rooms, within minutes; a room that only this account owned then has no owner. Without
        ``erase_messages``, the account's messages in rooms and in other inboxes stay.

        Args:
            erase_messages: first erase this account's messages: in the rooms that ``export`` reads,
                and in the inboxes of others. It takes a moment for each message.
            rooms: as for ``export``.
            timeout: seconds, for each of many requests; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed, for a guest, and, at the end, for the only operator; ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        self._check_started()
        done = Deleted(0, 0)
        own = OwnRooms(rooms)
        if arguments.flag("erase_messages", erase_messages):
            for found in self._found(own, own.erased(lambda: self.name), timeout):
                done = cast("Deleted", found)
        with contextlib.suppress(DeviceRevoked):  # this session ended before the answer
            self._ask(own_data.delete(), timeout)
        return done

    # --- inside ----------------------------------------------------------------------------------
    def _found(
        self, own: OwnRooms, steps: Generator[Step, Any, None], timeout_s: float | None
    ) -> Generator[Step, None]:
        """Make the requests and sends of the steps, and yield what they find."""
        played = Played(steps)
        try:
            while (step := played.next()) is not None:
                if isinstance(step, Pause):
                    self._pump.let_others_run()
                    continue
                try:
                    if isinstance(step, Offer):
                        played.answer = self._append(step, timeout_s)
                        continue
                    if callable(step):
                        played.answer = self._ask(step, timeout_s)
                        continue
                except Refused as error:
                    played.refused = error
                    continue
                yield step
        finally:
            if own.give_up(self._chat):
                self._pump.sent()
