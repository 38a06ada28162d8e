"""The home of accounts: decides requests about them, commits, and notifies all workers.

Decisions are made by ``chat.accounts`` at commit time, in the order of the log (``log_changes``). A
change that removes devices is answered when every live worker has ended their sessions.
"""

from __future__ import annotations

import logging
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
from relay.server.worker.error_codes import NOT_CONFIRMED, code_of
from relay.server.worker.home.accounts.entries import OPERATOR, entry_of
from relay.server.worker.home.accounts.names import Verdict
from relay.server.worker.home.accounts.operators import Confirmed
from relay.server.worker.home.accounts.requesters import may_still_ask
from relay.server.worker.home.log_changes import Change, LogChanges, PendingRequest
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
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.server.worker.home.accounts.logs import AccountLogs
    from relay.server.worker.home.accounts.operators import Operators
    from relay.server.worker.home.accounts.revocations import Revocations

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
"""Beyond this number, names whose registration has ended are forgotten."""
log = logging.getLogger("relay.worker")

assert set(CODES) == set(Reason)


class _Decided(NamedTuple):
    """A change that is being committed."""

    before: Account | None
    """None: it is about an invitation."""
    event: events.Event
    data: bytes


class AccountsHome(LogChanges[_Decided]):
    """The home of accounts."""

    def __init__(
        self,
        logs: AccountLogs,
        policy: Policy,
        submit: Callable[[Port, int, Submission], None],
        revocations: Revocations,
        operators: Operators,
        damaged: DamagedLogs,
        wall_clock_ns: Callable[[], int],
    ) -> None:
        """Create the home.

        Args:
            logs: the states.
            policy: of the server.
            submit: passes a submission to the home of this worker.
            revocations: notifies the workers.
            operators: confirms who is an operator.
            damaged: reports logs that cannot be read.
            wall_clock_ns: nanoseconds since 1970.
        """
        super().__init__(submit, damaged, "account")
        self.logs = logs
        self._policy = policy
        self._revocations = revocations
        self._operators = operators
        self._wall_clock_ns = wall_clock_ns
        self._registering: dict[str, str] = {}
        """By skeleton: the log of the name that was last being registered."""
        self.online: Callable[[str], bool] = _nobody
        """Returns whether a user has a session now."""
        self.block_claims: Callable[[str, bool], None] = lambda _name, _blocked: None
        """Lets the logins of an account wait, or go on."""
        self.shares_room: Callable[[str, bytes, str, bytes], bool] = _no_room
        """Returns whether two accounts (handle, root) are permanent members of one room."""
        self.tell: Callable[[str, bytes], None] = _nobody_hears
        """Sends an envelope to all sessions of an account."""
        self.on_removed: Callable[[], None] = lambda: None
        """Called when an account was removed: its inbox and its roles must be deleted."""
        self.on_invitation_end: Callable[[str], None] = lambda _: None
        """Called with the log of an invitation that was used up or revoked."""

    def forget(self) -> None:
        """Clear the caches: the partition table has changed."""
        self.logs.forget()

    def judge(self, name: str, key: bytes) -> Verdict:
        """names.NameRegistry: decide whether a key may log in with a name."""
        if names.is_guest(name):
            return Verdict(0)  # the worker has checked whether guests are allowed
        try:
            account = self.logs.account(name)
        except StoreError as error:
            self._damaged.report(names.INBOX_PREFIX + name, error)
            return Verdict(int(code_of(error)), "the account cannot be read now")
        refusal = account.refusal(key)
        if refusal is not None:
            return Verdict(int(CODES[refusal.reason]), refusal.text)
        return Verdict(0, "", account.root, account.operator)

    # --- requests -----------------------------------------------------------------------------
    def _similar(self, handle: str) -> Change[_Decided] | None:
        """Return the registration of another name that looks like this one, while it is stored."""
        under_way = self._registering.get(names.skeleton(handle), "")
        other = under_way != names.INBOX_PREFIX + handle
        return self._by_log.get(under_way) if other else None

    def _note_registering(self, log: str) -> None:
        """Note that a name is being registered: until that has ended, no similar name may be."""
        if len(self._registering) >= REGISTERING_MAX:
            self._registering = {
                skeleton: one for skeleton, one in self._registering.items() if one in self._by_log
            }
        self._registering[names.skeleton(log[len(names.INBOX_PREFIX) :])] = log

    def _decide(self, asked: PendingRequest) -> None:
        ask = asked.ask
        name = ask.log
        before: Account | None = None
        try:
            request = requests.unpack(ask.content)
            if name.startswith(names.INBOX_PREFIX):
                before = self.logs.account(names.shared(name[len(names.INBOX_PREFIX) :]))
                version = before.version
                alike = False
                if isinstance(request, requests.Register):
                    # Only what is stored refuses a name: that is final, and releases invitations.
                    if self._waits(asked, self._similar(before.handle)):
                        return
                    alike = self.logs.looks_alike(before.handle)
                context = self._context(ask, alike)
                if isinstance(request, requests.MayWrite | requests.SeenBy):
                    context = self._acquaintance(before, request.root, context)
                decided = decide_request.about_account(before, request, context)
            else:
                state = self.logs.invitation(name)
                version = state.version
                decided = decide_request.about_invitation(state, request, self._context(ask, False))
        except AccountRefused as refusal:
            lost = self.logs.is_lost(before, request, refusal)
            asked.refuse(CODES[refusal.reason], refusal.text, decide_request.LOST if lost else b"")
            return
        except (EnvelopeError, StoreError) as error:
            self._undecided(asked, error)
            return
        if isinstance(request, requests.TellInvited):
            if decided.data == decide_request.TOLD:
                self.tell(name[len(names.INBOX_PREFIX) :], pack(Invited(request.room, ask.by)))
            asked.answer()
            return
        if decided.event is None:
            self._repeated(asked, request, before, decided.data)
            return
        still = may_still_ask(before, request, ask, self._operators)
        if still is Confirmed.NO:
            asked.refuse(ErrorCode.KEY_REFUSED, "the rights of the requester have ended")
            return
        if still is Confirmed.UNKNOWN:
            asked.refuse(ErrorCode.UNAVAILABLE, NOT_CONFIRMED)
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
        """Add what is known about the requesting user.

        The time this takes depends only on the account's own settings, not on who asks, so it does
        not reveal who is blocked. That a name belongs to nobody is no secret.
        """
        if account.chain is None:
            return context
        handle = account.handle
        knows = self.logs.has_written(handle, context.by)
        asks = preferences.Writers.ROOMS in (account.writers, account.seen_by)
        return context._replace(
            knows=knows,
            shares_room=asks
            and account.chain is not None
            and self.shares_room(handle, account.root, context.by, root),
            full=self.logs.is_full(handle, knows=knows),
            online=self.online(handle),
            seen_ms=self.logs.seen_ms(handle),
        )

    def _repeated(
        self, asked: PendingRequest, request: Request, account: Account | None, data: bytes
    ) -> None:
        """Answer a request whose effect exists already.

        Its first sender may not have told the workers.
        """
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
            # Before the sessions end: that includes the requester's, and the answer to a reset
            # contains the way back in.
            asked.answer(data)
            by_operator = not isinstance(event, events.Removed)
            self._tell(before, keys, by_operator=by_operator, done=lambda: None)
            return
        self._finish(asked, before, keys, data, by_operator=ended is None)

    def _finish(
        self,
        asked: PendingRequest,
        account: Account | None,
        keys: list[bytes],
        data: bytes,
        *,
        by_operator: bool = False,
        lifted: bool = False,
    ) -> None:
        """Answer once every worker has what it needs to know."""
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
        """End the sessions of devices that stay valid: their next sessions have other rights.

        First, everywhere, drop what they were still sending under the old rights.
        """
        handle = account.handle
        self.block_claims(handle, True)

        def lifted() -> None:
            self.block_claims(handle, False)
            done()

        self._tell(account, keys, by_operator=True, done=lambda: self._lift(handle, keys, lifted))

    def _lift(self, handle: str, keys: list[bytes], done: Callable[[], None]) -> None:
        """Let all workers accept again what these devices send, unless they have been removed."""
        try:
            account = self.logs.account(handle)
        except StoreError as error:
            self._damaged.report(names.INBOX_PREFIX + handle, error)
            done()
            return
        good = [key for key in keys if account.refusal(key) is None]
        if good:
            self._tell(account, good, lifted=True, done=done)
        else:
            done()

    def drop(self, port: Port) -> None:
        """Forget a worker that has died: its answers are not awaited, and its sessions are gone."""
        self._revocations.drop(port)
        super().drop(port)


def _keys(account: Account | None, ended: list[bytes] | None) -> list[bytes]:
    if ended is not None:
        return ended
    if account is None or account.chain is None:
        return []
    return list(account.chain.devices)


def _nobody(_: str) -> bool:
    """Default of ``online``: no sessions are known."""
    return False


def _no_room(_person: str, _root: bytes, _other: str, _other_root: bytes) -> bool:
    """Default of ``shares_room``: there are no rooms with permanent members."""
    return False


def _nobody_hears(_name: str, _envelope: bytes) -> None:
    """Default of ``tell``: no sessions are known."""
