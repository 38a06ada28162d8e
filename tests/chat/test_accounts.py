"""Accounts and invitations: decisions as tables, and random sequences against a simple model."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.chat.accounts import (
    answers,
    chain,
    decide,
    decide_request,
    events,
    invitation,
    links,
    preferences,
    requests,
    snapshot,
)
from relay.chat.accounts.account import Account, applied, folded
from relay.chat.accounts.decide import Policy
from relay.chat.accounts.links import Kind
from relay.chat.accounts.refusal import Reason, Refused
from relay.wire.device_keys import PrivateDeviceKey, verify
from tests.vectors.accounts import key, signed

SERVER = bytes(range(32))
A, B, C = (key(label) for label in "abc")
TOKEN = invitation.hash_of(b"t" * 32)
OTHER = invitation.hash_of(b"u" * 32)
NOW = 1_000_000


def context(registration: Any = "open", *, looks_alike: bool = False, now: int = NOW) -> Any:  # noqa: ANN401
    policy = Policy(registration, SERVER)
    return decide_request.Context(policy, verify, now, looks_alike, "alice")


def root(
    owner: PrivateDeviceKey = A,
    name: str = "alice",
    nonce: bytes = b"n" * 16,
    server: bytes = SERVER,
) -> bytes:
    return signed(chain.root_body(server, name, nonce, owner.public), owner)


def register(link: bytes, token: bytes = b"", *, invited: bool = False) -> requests.Register:
    return requests.Register(link, token, invited, False, False)


def after(account: Account, *asked: requests.Request) -> Account:
    for request in asked:
        event = decide_request.about_account(account, request, context()).event
        if event is not None:
            account = applied(account, event)  # type: ignore[arg-type]
    return account


def link(account: Account, kind: Kind, subject: PrivateDeviceKey, *by: PrivateDeviceKey) -> bytes:
    assert account.chain is not None
    return signed(account.chain.next_body(kind, subject.public, by[0].public), *by)


NOBODY = Account("alice")
ALICE = after(NOBODY, register(root()))
TWO = after(ALICE, requests.Extend(link(ALICE, Kind.ADD, B, A, B)))
RESERVED = after(NOBODY, requests.Add(TOKEN, NOW + 1, False))
REMOVED = after(ALICE, requests.Remove())

REFUSED: dict[str, tuple[Account, requests.Request, Any, Reason]] = {
    "by invitation": (NOBODY, register(root()), context("invite"), Reason.INVITATION_NEEDED),
    "a wrong invitation": (
        NOBODY, register(root(), TOKEN), context("invite"), Reason.INVITATION_NEEDED,
    ),
    "closed": (NOBODY, register(root()), context("closed"), Reason.REGISTRATION_CLOSED),
    "a look-alike": (
        NOBODY, register(root()), context(looks_alike=True), Reason.LOOKS_ALIKE,
    ),
    "a look-alike by invitation": (
        NOBODY, register(root(), TOKEN, invited=True), context("invite", looks_alike=True),
        Reason.LOOKS_ALIKE,
    ),
    "a link for another name": (
        NOBODY, register(root(name="bob")), context(), Reason.BAD_REQUEST,
    ),
    "a link for another server": (
        NOBODY, register(root(server=b"x" * 32)), context(), Reason.BAD_REQUEST,
    ),
    "a link that is none": (NOBODY, register(b"link"), context(), Reason.BAD_REQUEST),
    "somebody else's name": (ALICE, register(root(B)), context(), Reason.NAME_TAKEN),
    "a removed name": (REMOVED, register(root()), context(), Reason.NAME_TAKEN),
    "a kept name without its token": (
        RESERVED, register(root()), context(), Reason.INVITATION_NEEDED,
    ),
    "a kept name with another token": (
        RESERVED, register(root(), OTHER), context(), Reason.INVITATION_NEEDED,
    ),
    "a kept name too late": (
        RESERVED, register(root(), TOKEN), context(now=NOW + 1), Reason.INVITATION_NEEDED,
    ),
    "a kept name with somebody's invitation": (
        RESERVED, register(root(), OTHER, invited=True), context(), Reason.INVITATION_NEEDED,
    ),
    "adding a name that is taken": (
        ALICE, requests.Add(TOKEN, NOW, False), context(), Reason.NAME_TAKEN,
    ),
    "adding a removed name": (
        REMOVED, requests.Add(TOKEN, NOW, False), context(), Reason.NAME_TAKEN,
    ),
    "disabling nobody": (NOBODY, requests.Disable(), context(), Reason.NOT_REGISTERED),
    "resetting a removed one": (
        REMOVED, requests.Reset(TOKEN, NOW), context(), Reason.NOT_REGISTERED,
    ),
    "blocking in a removed one": (
        REMOVED, requests.Block("bob", bytes(32)), context(), Reason.NOT_REGISTERED,
    ),
    "how long a removed one keeps": (
        REMOVED, requests.SetKeep(1, 1, 1), context(), Reason.NOT_REGISTERED,
    ),
    "promoting a kept name": (
        RESERVED, requests.Promote(True), context(), Reason.NOT_REGISTERED,
    ),
    "enrolling unasked": (ALICE, requests.Enrol(B.public, b""), context(), Reason.KEY_REFUSED),
    "naming a stranger's device": (
        ALICE, requests.NameDevice(B.public, "x"), context(), Reason.KEY_REFUSED,
    ),
    "a name that hides": (
        ALICE, requests.NameDevice(A.public, "x\u202e"), context(), Reason.BAD_REQUEST,
    ),
    "a link for an older state": (
        TWO, requests.Extend(link(ALICE, Kind.ADD, C, A, C)), context(), Reason.CHANGED,
    ),
    "a link without a signature": (
        ALICE, requests.Extend(link(ALICE, Kind.ADD, B, A, A)), context(), Reason.BAD_REQUEST,
    ),
    "an invitation of an account": (
        ALICE, requests.Invite(TOKEN, NOW, False), context(), Reason.BAD_REQUEST,
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_refused(why: str) -> None:
    account, request, given, reason = REFUSED[why]
    with pytest.raises(Refused) as caught:
        decide_request.about_account(account, request, given)
    assert caught.value.reason is reason


AGAIN: dict[str, tuple[Account, requests.Request]] = {
    "registering": (ALICE, register(root())),
    "registering with another root of the same key": (ALICE, register(root(nonce=b"m" * 16))),
    "the last link": (TWO, requests.Extend(link(ALICE, Kind.ADD, B, A, B))),
    "enrolling": (TWO, requests.Enrol(B.public, b"")),
    "disabling": (after(ALICE, requests.Disable()), requests.Disable()),
    "enabling": (ALICE, requests.Enable()),
    "adding": (RESERVED, requests.Add(TOKEN, NOW + 1, False)),
    "removing": (REMOVED, requests.Remove()),
    "demoting": (ALICE, requests.Promote(False)),
}


@pytest.mark.parametrize("what", AGAIN)
def test_asked_again_it_is_so_already(what: str) -> None:
    """A home may die after the commit and before the answer."""
    account, request = AGAIN[what]
    assert decide_request.about_account(account, request, context()).event is None


def test_whose_invitation_has_expired_is_told_so() -> None:
    """With another token the answer reveals nothing about the right one."""
    for token, text in ((TOKEN, "has expired"), (OTHER, "made for it"), (b"", "made for it")):
        with pytest.raises(Refused, match=text) as caught:
            decide_request.about_account(RESERVED, register(root(), token), context(now=NOW + 1))
        assert caught.value.reason is Reason.INVITATION_NEEDED


def test_an_invitation_that_is_none_is_said_to_be_none_on_an_open_server() -> None:
    """It may have been an operator's invitation; without it the account is ordinary for good."""
    for registration in ("open", "invite", "closed"):
        with pytest.raises(Refused, match="is not valid") as caught:
            decide_request.about_account(NOBODY, register(root(), TOKEN), context(registration))
        assert caught.value.reason is Reason.INVITATION_NEEDED


def test_nobody_makes_themselves_an_operator() -> None:
    """An operator's invitation does; the request alone does not."""
    for registration, invited, wanted in (
        ("open", False, True), ("open", True, True), ("invite", True, True),
        ("invite", True, False),
    ):  # fmt: skip
        request = requests.Register(root(), TOKEN if invited else b"", invited, wanted, False)
        event = decide_request.about_account(NOBODY, request, context(registration)).event
        assert isinstance(event, events.Created)
        assert event.operator is (invited and wanted), (registration, invited, wanted)


def test_an_offer_becomes_a_device() -> None:
    offered = after(ALICE, requests.Extend(link(ALICE, Kind.ADD, B, A)))
    assert offered.refusal(B.public) is not None
    offer = decide_request.about_account(offered, requests.Enrol(B.public, b""), context()).data
    with pytest.raises(Refused):
        decide_request.about_account(offered, requests.Enrol(C.public, b""), context())
    wrong = requests.Enrol(B.public, C.sign(links.parse(offer).signed))
    with pytest.raises(Refused):
        decide_request.about_account(offered, wrong, context())
    done = after(offered, requests.Enrol(B.public, B.sign(links.parse(offer).signed)))
    assert done.refusal(B.public) is None
    assert not done.offer


def test_an_offer_for_an_older_chain_is_none() -> None:
    offered = after(ALICE, requests.Extend(link(ALICE, Kind.ADD, B, A)))
    moved = after(offered, requests.Extend(link(offered, Kind.ADD, C, A, C)))
    with pytest.raises(Refused):
        decide_request.about_account(moved, requests.Enrol(B.public, b""), context())


def test_who_is_ended() -> None:
    removal = events.Linked(link(TWO, Kind.REMOVE, A, B))
    assert decide.ended_keys(TWO, removal) == [A.public]
    assert decide.ended_keys(ALICE, events.Linked(link(ALICE, Kind.ADD, B, A, B))) == []
    for event in (events.Disabled(), events.Removed(), events.Promoted(False)):
        assert decide.ended_keys(TWO, event) is None
    assert decide.ended_keys(TWO, events.Reserved(TOKEN, NOW, False)) is None
    assert decide.returned_keys(TWO, events.Enabled()) == [A.public, B.public]


def test_a_reset_begins_anew() -> None:
    """Same name, perhaps the same key: still another account, with other message ids."""
    reset = after(TWO, requests.Reset(TOKEN, NOW + 1))
    assert reset.refusal(A.public) is not None
    again = after(reset, register(root(A, nonce=b"o" * 16), TOKEN))
    assert again.refusal(A.public) is None
    assert again.refusal(B.public) is not None
    assert again.root != TWO.root


def test_what_a_reset_leaves_and_what_it_takes() -> None:
    """Whether disabled, and blocked users, are kept; an operator only by the token."""
    other = bytes(32)
    begun = register(root(A, nonce=b"o" * 16), TOKEN)
    wishes = (requests.Block("eve", other), requests.Prefer(2, 2), requests.SetKeep(1, 2, 3))
    again = after(TWO, *wishes, requests.Disable(), requests.Reset(TOKEN, NOW + 1), begun)
    refusal = again.refusal(A.public)
    assert refusal is not None
    assert refusal.reason is Reason.DISABLED
    assert again.blocked == {("eve", other)}
    assert (again.writers, again.seen_by, again.keep) == (2, 2, (1, 2, 3))
    ops = after(TWO, requests.Promote(True))
    for operator in (False, True):
        reset = applied(ops, events.Reserved(TOKEN, NOW + 1, operator))
        assert not reset.operator
        assert after(reset, begun).operator is operator
    taken = applied(ops, events.Created(root(A, nonce=b"o" * 16), False, TOKEN))
    assert not taken.operator
    assert after(ops, requests.Reset(TOKEN, NOW + 1), begun).operator
    assert not after(TWO, requests.Reset(TOKEN, NOW + 1), begun).operator


def test_who_hears_what_others_do_with_their_account() -> None:
    """Not the owner of a name after a reset, nor a blocked user."""
    by = "bob", bytes(32)
    assert preferences.hears_of(ALICE, ALICE.root, *by)
    assert not preferences.hears_of(ALICE, b"x" * 32, *by)
    assert not preferences.hears_of(after(ALICE, requests.Block(*by)), ALICE.root, *by)
    assert preferences.hears_of(after(ALICE, requests.Block("bob", b"x" * 32)), ALICE.root, *by)
    assert not preferences.hears_of(REMOVED, ALICE.root, *by)


def test_who_is_blocked_sees_nobody_come_and_go() -> None:
    """Nor the owner of the blocked name after a reset: only that account."""
    seen = after(ALICE, requests.Prefer(0, 0), requests.Block("bob", bytes(32)))
    assert not preferences.sees(seen, "bob", bytes(32), knows=True, shares_room=True)
    assert preferences.sees(seen, "bob", b"x" * 32, knows=False, shares_room=False)
    hidden = after(ALICE, requests.Prefer(0, 2))
    assert not preferences.sees(hidden, "bob", bytes(32), knows=True, shares_room=True)
    assert preferences.sees(hidden, "alice", ALICE.root, knows=False, shares_room=False)


def test_who_is_disabled_takes_no_messages() -> None:
    with pytest.raises(Refused) as caught:
        preferences.may_write(
            after(ALICE, requests.Disable()), "bob", bytes(32), knows=True, shares_room=True,
            full=False,
        )  # fmt: skip
    assert caught.value.reason is Reason.NOT_ACCEPTED


def test_what_is_noted_of_an_account_is_all_of_it() -> None:
    wishes = (requests.Block("eve", bytes(32)), requests.Prefer(2, 2), requests.SetKeep(1, 2, 3))
    whole = after(TWO, *wishes, requests.Promote(True), requests.Disable())
    assert snapshot.unpack("alice", snapshot.pack(whole)) == whole


def test_a_log_whose_beginning_is_missing_is_damaged() -> None:
    """With the exception that its readers expect."""
    with pytest.raises(links.LinkError, match="has not begun"):
        folded(Account("alice"), [events.Linked(root())])


def test_what_an_account_shows() -> None:
    named = after(TWO, requests.NameDevice(B.public, "phone"))
    shown = answers.unpack_shown(answers.packed_shown(named))
    assert shown.state == "active"
    assert [(one.key, one.name) for one in shown.devices] == [(A.public, ""), (B.public, "phone")]
    states = {answers.state_of(one) for one in (NOBODY, ALICE, RESERVED, REMOVED)}
    assert states == {"none", "active", "reserved", "removed"}


# --- invitations --------------------------------------------------------------------------------
NONE = invitation.Invitation()


def invited(expires: int = NOW + 10) -> invitation.Invitation:
    ask = requests.Invite(TOKEN, expires, True)
    made = invitation.invite(invitation.Invitation(), ask, "op", NOW - 10, closed=False)
    assert made is not None
    return invitation.folded([made])


def test_an_invitation_is_for_one_name_and_one_key() -> None:
    bound = invitation.bind(invited(), TOKEN, "bob", B.public, NOW)
    assert bound is not None
    used = invitation.applied(invited(), bound)
    assert invitation.bind(used, TOKEN, "bob", B.public, NOW + 99) is None, "again: done already"
    for handle, public in (("bob", A.public), ("rob", B.public)):
        with pytest.raises(Refused):
            invitation.bind(used, TOKEN, handle, public, NOW)


def test_an_invitation_is_released_as_it_was_bound_alone() -> None:
    bound = events.Bound("bob", B.public)
    used = invitation.applied(invited(), bound)
    for handle, public in (("bob", A.public), ("rob", B.public)):
        assert invitation.release(used, TOKEN, handle, public) is None
    assert invitation.release(invited(), TOKEN, "bob", B.public) is None
    for state, token in ((NONE, TOKEN), (used, OTHER)):
        with pytest.raises(Refused):
            invitation.release(state, token, "bob", B.public)
    event = decide_request.about_invitation(
        used, requests.Release(TOKEN, "bob", B.public), context()
    ).event
    assert event == events.Released()
    free = invitation.applied(used, event)
    assert free.invited == used.invited
    assert invitation.is_open(free, NOW)
    assert invitation.bind(free, TOKEN, "rob", A.public, NOW) == events.Bound("rob", A.public)


def test_an_invitation_is_taken_back() -> None:
    """By ending it; if it was used, the answer tells that; a repeat changes nothing."""
    back = requests.Invite(TOKEN, 1, False)
    for registration in ("invite", "closed"):
        state = invited()
        event = decide_request.about_invitation(state, back, context(registration)).event
        assert event == events.Invited(TOKEN, 1, True, "alice")
        state = invitation.applied(state, event)
        assert decide_request.about_invitation(state, back, context(registration)).event is None
        with pytest.raises(Refused, match="expired"):
            invitation.bind(state, TOKEN, "bob", B.public, NOW)
    used = invitation.applied(invited(), events.Bound("bob", B.public))
    for state, why in ((used, "has been used, for the name 'bob'"), (NONE, "no such invitation")):
        with pytest.raises(Refused, match=why):
            decide_request.about_invitation(state, back, context())


def test_where_registration_is_closed_invitations_are_operators_alone() -> None:
    """No invitation for any name is created, and an older one is neither accepted nor used up."""
    nobody, bind = NONE, requests.Bind(TOKEN, "bob", B.public)
    for operator in (False, True):
        ask = requests.Invite(TOKEN, NOW + 10, operator)
        event = decide_request.about_invitation(nobody, ask, context("invite")).event
        state = invitation.folded([event])  # type: ignore[list-item]
        asked: list[tuple[invitation.Invitation, requests.Request]] = [(nobody, ask), (state, bind)]
        for before, request in asked:
            if operator:
                decided = decide_request.about_invitation(before, request, context("closed"))
                assert decided.event is not None
                continue
            with pytest.raises(Refused) as caught:
                decide_request.about_invitation(before, request, context("closed"))
            assert caught.value.reason is Reason.REGISTRATION_CLOSED
        assert decide_request.about_invitation(state, bind, context("invite")).event is not None


def test_what_is_no_invitation() -> None:
    for state, token, now in (
        (invitation.Invitation(), TOKEN, NOW),
        (invited(), OTHER, NOW),
        (invited(), TOKEN, NOW + 10),
    ):
        with pytest.raises(Refused) as caught:
            invitation.bind(state, token, "bob", B.public, now)
        assert caught.value.reason is Reason.INVITATION_NEEDED


def test_a_token_as_text() -> None:
    token = bytes(range(32))
    text = invitation.token_text(token)
    assert len(text) == 52
    assert invitation.token_of(f" {text.upper()}\n") == token
    assert len(invitation.log_of(invitation.hash_of(token))) == 33
    for wrong in ("", "x", text[:-1], text + "a" * 8, "1" * 52):
        with pytest.raises(ValueError, match="."):  # noqa: RUF043
            invitation.token_of(wrong)


# --- any mix of them ----------------------------------------------------------------------------
DEVICES = [PrivateDeviceKey(hashlib.sha256(f"machine {n}".encode()).digest()) for n in range(4)]
device = st.sampled_from(DEVICES)


class AccountMachine(RuleBasedStateMachine):
    """Requests in any order, valid and not; the model is a set of keys and two flags."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account("alice")
        self.log: list[Any] = []
        self.active: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.disabled = self.ended = False
        self.nonces = 0

    def ask(self, request: requests.Request) -> bool:
        """Decide and store; False if it was refused."""
        before = self.account
        try:
            decided = decide_request.about_account(before, request, context())
        except Refused:
            return False
        if decided.event is not None:
            self.log.append(events.unpack(events.pack(decided.event)))
            self.account = applied(before, self.log[-1])
            assert self.account.version == before.version + 1
            again = decide_request.about_account(self.account, request, context())
            assert again.event is None, "every request is idempotent"
        return True

    @rule(owner=device, token=st.sampled_from([b"", TOKEN]))
    def register(self, owner: PrivateDeviceKey, token: bytes) -> None:
        self.nonces += 1
        held = self.account
        done = self.ask(register(root(owner, nonce=self.nonces.to_bytes(16, "big")), token))
        if held.chain is None and done:
            self.active, self.gone = {owner.public}, set()
        else:
            assert done == (owner.public in self.active and not self.ended)

    @rule(new=device, by=device, whole=st.booleans())
    def add(self, new: PrivateDeviceKey, by: PrivateDeviceKey, whole: bool) -> None:
        body = self._next(Kind.ADD, new, by)
        if body is None:
            return
        signers = (by, new) if whole else (by,)
        if self.ask(requests.Extend(signed(body, *signers))) and whole:
            self.active.add(new.public)

    @rule(old=device, by=device)
    def remove_device(self, old: PrivateDeviceKey, by: PrivateDeviceKey) -> None:
        body = self._next(Kind.REMOVE, old, by)
        if body is not None and self.ask(requests.Extend(signed(body, by))):
            self.active.discard(old.public)
            self.gone.add(old.public)

    def _next(
        self, kind: Kind, subject: PrivateDeviceKey, by: PrivateDeviceKey
    ) -> links.Body | None:
        held = self.account.chain
        if held is None:
            return None
        try:
            body = held.next_body(kind, subject.public, by.public)
        except links.LinkError:
            last = kind is Kind.REMOVE and self.active == {subject.public}
            member = subject.public in self.active | (self.gone if kind is Kind.ADD else set())
            assert last or by.public not in self.active or member == (kind is Kind.ADD)
            return None
        assert by.public in self.active
        return body

    @rule(new=device)
    def enrol(self, new: PrivateDeviceKey) -> None:
        try:
            offer = decide_request.about_account(
                self.account, requests.Enrol(new.public, b""), context()
            ).data
        except Refused:
            assert new.public not in self.active
            return
        if offer and self.ask(requests.Enrol(new.public, new.sign(links.parse(offer).signed))):
            self.active.add(new.public)

    @rule()
    def disable(self) -> None:
        self.disabled |= self.ask(requests.Disable())

    @rule()
    def enable(self) -> None:
        if self.ask(requests.Enable()):
            self.disabled = False

    @rule()
    def reset(self) -> None:
        if self.ask(requests.Reset(TOKEN, NOW + 1)):
            self.active, self.gone = set(), set()

    @rule(really=st.integers(0, 9))
    def remove(self, really: int) -> None:
        if really == 0 and self.ask(requests.Remove()):
            self.active, self.gone = set(), set()
            self.ended, self.disabled = True, False

    @invariant()
    def who_may_log_in(self) -> None:
        for one in DEVICES:
            allowed = one.public in self.active and not self.disabled
            assert (self.account.refusal(one.public) is None) == allowed

    @invariant()
    def the_log_says_it_all(self) -> None:
        assert folded(Account("alice"), self.log) == self.account
        noted = snapshot.unpack("alice", snapshot.pack(self.account))
        assert noted == self.account
        if self.account.chain is not None:
            assert snapshot.links_of(snapshot.pack(self.account)) == list(self.account.links)


AccountMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
test_any_mix_of_requests = AccountMachine.TestCase


def test_an_invitation_is_open_until_it_is_used_or_ends() -> None:
    hashed = bytes(32)
    made = invitation.applied(invitation.Invitation(), events.Invited(hashed, 1000, False, "ann"))
    assert not invitation.is_open(invitation.Invitation(), 0)
    assert invitation.is_open(made, 999)
    assert not invitation.is_open(made, 1000)
    assert not invitation.is_open(invitation.applied(made, events.Bound("bob", bytes(32))), 999)
    for_ever = made._replace(invited=events.Invited(hashed, 0, False, "ann"))
    assert invitation.is_open(for_ever, 1 << 62)
