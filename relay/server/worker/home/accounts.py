"""The home of accounts: takes requests about them, decides, commits, and tells all workers.

Decisions are ``chat.accounts``', at commit time and in the order of the log (``log_changes``). A
change that ends devices is answered when every live worker has ended their sessions.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from relay.chat import names
from relay.chat.accounts import account as accounts
from relay.chat.accounts import (
    decide,
    decide_request,
    events,
    invitation,
    links,
    preferences,
    requests,
)
from relay.chat.accounts.refusal import Reason
from relay.chat.accounts.refusal import Refused as AccountRefused
from relay.errors import EnvelopeError
from relay.server.worker.error_codes import code_of
from relay.server.worker.home.account_entries import OPERATOR, entry_of
from relay.server.worker.home.log_changes import Asked, Change, LogChanges
from relay.server.worker.home.names import Verdict
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode
from relay.wire.device_keys import verify
from relay.wire.envelopes import Invited
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Ask
    from relay.chat.accounts.account import Account
    from relay.chat.accounts.decide import Policy
    from relay.chat.accounts.events import AccountEvent
    from relay.chat.accounts.requests import Request
    from relay.chat.entries import Submission
    from relay.server.worker.home.account_logs import AccountLogs
    from relay.server.worker.home.revocations import Revocations

CODES: Final = {
    Reason.NOT_REGISTERED: ErrorCode.NOT_REGISTERED,
    Reason.KEY_REFUSED: ErrorCode.KEY_REFUSED,
    Reason.DISABLED: ErrorCode.DISABLED,
    Reason.NAME_TAKEN: ErrorCode.NAME_TAKEN,
    Reason.LOOKS_ALIKE: ErrorCode.LOOKS_ALIKE,
    Reason.INVITATION_NEEDED: ErrorCode.INVITATION_NEEDED,
    Reason.REGISTRATION_CLOSED: ErrorCode.REGISTRATION_CLOSED,
    Reason.CHANGED: ErrorCode.CHANGED,
    Reason.BAD_REQUEST: ErrorCode.BAD_REQUEST,
    Reason.LIMIT: ErrorCode.LIMIT,
    Reason.NOT_ACCEPTED: ErrorCode.NOT_ACCEPTED,
}
REGISTERING_MAX: Final = 1024
"""Beyond it, names whose registration has ended are forgotten."""
log = logging.getLogger("relay.worker")

assert set(CODES) == set(Reason)


class _Decided(NamedTuple):
    """What is being committed."""

    before: Account | None
    """None: it is about an invitation."""
    event: events.Event
    data: bytes


class AccountsHome(LogChanges[_Decided]):
    """See the module's docstring."""

    def __init__(
        self,
        logs: AccountLogs,
        policy: Policy,
        submit: Callable[[Port, int, Submission], None],
        revocations: Revocations,
        wall_clock_ns: Callable[[], int],
    ) -> None:
        """Begin.

        Args:
            logs: the states.
            policy: of the server.
            submit: gives a submission to the home of this worker.
            revocations: tells the workers.
            wall_clock_ns: nanoseconds since 1970.
        """
        super().__init__(submit, "too many requests about this account")
        self.logs = logs
        self._policy = policy
        self._revocations = revocations
        self._wall_clock_ns = wall_clock_ns
        self._registering: dict[str, str] = {}
        """By skeleton, the log of a name whose registration was under way last."""
        self.online: Callable[[str], bool] = _nobody
        """Whether somebody has a session now."""
        self.shares_room: Callable[[str, bytes, str, bytes], bool] = _no_room
        """Whether two accounts, each a handle and a root, are lasting members of one room."""
        self.tell: Callable[[str, bytes], None] = _nobody_hears
        """Sends an envelope to all sessions of an account."""
        self.on_removed: Callable[[], None] = _nobody_asks
        """Called when an account was removed: its inbox and its roles are to go."""
        self.on_invitation_end: Callable[[str], None] = _nothing
        """Called with the log of an invitation that was used up, or taken back."""

    def forget(self) -> None:
        """The table of who owns what has changed."""
        self.logs.forget()

    def judge(self, name: str, key: bytes) -> Verdict:
        """names.NameRegistry: tell whether a key may log in under a name."""
        if names.is_guest(name):
            return Verdict(0)  # the worker has looked whether there are guests
        try:
            account = self.logs.account(name)
        except StoreError as error:
            log.error("account_unreadable", extra={"handle": name, "reason": str(error)})
            return Verdict(int(code_of(error)), "the account cannot be read now")
        refusal = account.refusal(key)
        if refusal is not None:
            return Verdict(int(CODES[refusal.reason]), refusal.text)
        return Verdict(0, "", account.root, account.operator)

    # --- requests -----------------------------------------------------------------------------
    def _looks_alike(self, handle: str) -> bool:
        """Tell whether another handle looks like this one, or will when it is stored.

        Raises:
            StoreError: the partition cannot be read.
        """
        under_way = self._registering.get(names.skeleton(handle))
        is_other = under_way is not None and under_way != names.INBOX_PREFIX + handle
        return (is_other and under_way in self._by_log) or self.logs.looks_alike(handle)

    def _note_registering(self, log: str) -> None:
        """A name is about to be registered: until that has ended none may look like it."""
        if len(self._registering) >= REGISTERING_MAX:
            self._registering = {
                skeleton: one for skeleton, one in self._registering.items() if one in self._by_log
            }
        self._registering[names.skeleton(log[len(names.INBOX_PREFIX) :])] = log

    def _decide(self, asked: Asked) -> None:
        ask = asked.ask
        name = ask.log
        before: Account | None = None
        try:
            request = requests.unpack(ask.content)
            if name.startswith(names.INBOX_PREFIX):
                before = self.logs.account(sys.intern(name[len(names.INBOX_PREFIX) :]))
                version = before.version
                alike = isinstance(request, requests.Register) and self._looks_alike(before.handle)
                context = self._context(ask, alike)
                if isinstance(request, requests.MayWrite | requests.SeenBy):
                    context = self._acquaintance(before, request.root, context)
                decided = decide_request.about_account(before, request, context)
            else:
                state = self.logs.invitation(name)
                version = state.version
                decided = decide_request.about_invitation(state, request, self._context(ask, False))
        except AccountRefused as refusal:
            asked.refuse(CODES[refusal.reason], refusal.text)
            return
        except EnvelopeError as error:
            asked.refuse(ErrorCode.BAD_REQUEST, str(error))
            return
        except StoreError as error:
            log.error("account_unreadable", extra={"log": name, "reason": str(error)})
            asked.refuse(code_of(error), "the account cannot be read now")
            return
        if isinstance(request, requests.TellInvited):
            if decided.data == decide_request.TOLD:
                self.tell(name[len(names.INBOX_PREFIX) :], pack(Invited(request.room, ask.by)))
            asked.answer()
            return
        if decided.event is None:
            self._repeated(asked, request, before, decided.data)
            return
        if before is not None and not _may_still_ask(before, request, ask):
            asked.refuse(ErrorCode.KEY_REFUSED, "this key is not a device of the account any more")
            return
        entry = entry_of(name, version, decided.event, ask.by or OPERATOR, ask.key_id)
        if isinstance(request, requests.Register):
            self._note_registering(name)
        self._commit(name, asked, _Decided(before, decided.event, decided.data), entry)

    def _context(self, ask: Ask, looks_alike: bool) -> decide_request.Context:
        now_ms = self._wall_clock_ns() // 1_000_000
        return decide_request.Context(self._policy, verify, now_ms, looks_alike, ask.by or OPERATOR)

    def _acquaintance(
        self, account: Account, root: bytes, context: decide_request.Context
    ) -> decide_request.Context:
        """Add what is known of who asks.

        How long it takes depends on what the person has chosen, and on nobody who asks: it tells
        nothing of who is blocked. That nobody has the name, everybody is told.
        """
        if account.chain is None:
            return context
        handle = account.handle
        asks = preferences.Writers.ROOMS in (account.writers, account.seen_by)
        return context._replace(
            knows=self.logs.has_written(handle, context.by),
            shares_room=asks
            and account.chain is not None
            and self.shares_room(handle, account.root, context.by, root),
            full=self.logs.is_full(handle),
            online=self.online(handle),
            seen_ms=self.logs.seen_ms(handle),
        )

    def _repeated(
        self, asked: Asked, request: Request, account: Account | None, data: bytes
    ) -> None:
        """It is so already. Whoever asked first may not have got to telling the workers."""
        ended: list[bytes] | None = []
        match request:
            case requests.Disable():
                ended = None
            case requests.Promote(operator=False):
                assert account is not None
                self._lift(account.handle, _keys(account, None), lambda: asked.answer(data))
                return
            case requests.Extend(link=link):
                body = links.parse(link).body
                ended = [body.subject] if body.kind is links.Kind.REMOVE else []
            case _:
                pass
        assert account is not None or not ended
        keys = _keys(account, ended)
        self._finish(asked, account, keys, data, by_operator=ended is None)

    # --- the outcome of a commit ----------------------------------------------------------------
    def _committed(self, change: Change[_Decided]) -> None:
        asked = change.asked
        assert asked is not None, "no account changes by itself"
        before, event, data = change.decided
        if before is None:
            if invitation.is_end(event, self._wall_clock_ns() // 1_000_000):
                self.on_invitation_end(change.log)
            asked.answer(data)
            return
        happened = cast("AccountEvent", event)
        self.logs.remember(accounts.applied(before, happened), change.seq)
        log.info(
            "account_changed",
            extra={
                "handle": before.handle,
                "change": type(event).__name__.lower(),
                "by": asked.ask.by or OPERATOR,
                "connection": asked.ask.connection,
            },
        )
        if isinstance(event, events.Removed):
            self.on_removed()
        lifted = decide.returned_keys(before, happened)
        if lifted:
            self._finish(asked, before, lifted, data, lifted=True)
            return
        ended = decide.ended_keys(before, happened)
        keys, own = _keys(before, ended), asked.ask.by == before.handle
        if isinstance(event, events.Promoted) and keys:
            if own:
                asked.answer(data)
            self._end_sessions(before, keys, (lambda: None) if own else lambda: asked.answer(data))
            return
        if own and ended is None:
            # First: the session that asks ends, too, and a reset answers with the way back in.
            asked.answer(data)
            by_operator = not isinstance(event, events.Removed)
            self._tell(before, keys, by_operator=by_operator, done=lambda: None)
            return
        self._finish(asked, before, keys, data, by_operator=ended is None)

    def _finish(
        self,
        asked: Asked,
        account: Account | None,
        keys: list[bytes],
        data: bytes,
        *,
        by_operator: bool = False,
        lifted: bool = False,
    ) -> None:
        """Answer, when every worker knows what it has to know."""
        if not keys or account is None:
            asked.answer(data)
            return
        self._tell(
            account, keys, by_operator=by_operator, lifted=lifted, done=lambda: asked.answer(data)
        )

    def _tell(
        self,
        account: Account,
        keys: list[bytes],
        *,
        by_operator: bool = False,
        lifted: bool = False,
        done: Callable[[], None],
    ) -> None:
        self._revocations.start(
            account.handle,
            [links.key_id(key) for key in keys],
            by_operator=by_operator,
            lifted=lifted,
            done=done,
        )

    def _end_sessions(self, account: Account, keys: list[bytes], done: Callable[[], None]) -> None:
        """End the sessions of devices that stay devices: the next ones have other rights.

        First what was under way with the old ones is dropped everywhere.
        """
        handle = account.handle
        self._tell(account, keys, by_operator=True, done=lambda: self._lift(handle, keys, done))

    def _lift(self, handle: str, keys: list[bytes], done: Callable[[], None]) -> None:
        """Have all workers store again what these devices send; but for those that are none now."""
        try:
            account = self.logs.account(handle)
        except StoreError as error:
            log.error("account_unreadable", extra={"handle": handle, "reason": str(error)})
            done()
            return
        good = [key for key in keys if account.refusal(key) is None]
        if good:
            self._tell(account, good, lifted=True, done=done)
        else:
            done()

    def drop(self, port: Port) -> None:
        """A worker is gone: nobody waits for its answers, and what it held is gone."""
        self._revocations.drop(port)
        super().drop(port)


def _keys(account: Account | None, ended: list[bytes] | None) -> list[bytes]:
    if ended is not None:
        return ended
    if account is None or account.chain is None:
        return []
    return list(account.chain.devices)


def _may_still_ask(account: Account, request: Request, ask: Ask) -> bool:
    """Tell whether a device that has asked for a change of its own account may ask that still.

    It might when it asked; what was decided on meanwhile may have removed it, or have taken an
    operator's rights away: those do not come back by what waited behind their end.
    """
    new = isinstance(request, requests.Register | requests.Enrol)  # by a key that is to be one
    if new or not ask.key_id or ask.by != account.handle:
        return True
    allowed = account.operator or type(request) in requests.OF_DEVICES
    return allowed and account.may_ask(ask.key_id)


def _nobody(_: str) -> bool:
    """No sessions are known."""
    return False


def _no_room(_person: str, _root: bytes, _other: str, _other_root: bytes) -> bool:
    """There are no rooms with lasting members."""
    return False


def _nobody_hears(_name: str, _envelope: bytes) -> None:
    """No sessions are known."""


def _nothing(_: str) -> None:
    """Nobody wants to know."""


def _nobody_asks() -> None:
    """Nobody wants to know."""
