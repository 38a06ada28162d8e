"""The invitation in the data directory that creates the first operator."""

from __future__ import annotations

from pathlib import Path

from relay.chat.accounts import invitation
from relay.server.registration import FIRST_INVITATION, chosen, ended, first_invitation, prepare
from relay.settings import Accounts


def test_it_goes_when_it_was_used_and_not_with_another_one(tmp_path: Path) -> None:
    """Until there is an operator, nobody else could create one."""
    record = prepare(tmp_path, Accounts())
    path = tmp_path / FIRST_INVITATION
    assert record.waits_for_operator
    assert path.stat().st_mode & 0o777 == 0o600
    ended(path, invitation.log_of(invitation.hash_of(b"another")))
    assert record.waits_for_operator
    ended(path, invitation.log_of(first_invitation(path)))
    assert not record.waits_for_operator
    ended(path, invitation.log_of(invitation.hash_of(b"another")))
    assert not prepare(tmp_path, Accounts()).waits_for_operator, "it was created again"


def test_what_is_wanted_holds_at_once_and_is_written_down_where_it_is_to_stay(
    tmp_path: Path,
) -> None:
    assert prepare(tmp_path, Accounts(registration="closed")).mode == "closed"
    assert prepare(tmp_path, Accounts()).mode == "closed", "the file was removed"
    assert prepare(tmp_path, Accounts(registration="open"), change=False).mode == "open"
    assert chosen(tmp_path) == "closed"
    assert prepare(tmp_path, Accounts(registration="open")).mode == "open"
    assert chosen(tmp_path) == prepare(tmp_path, Accounts()).mode == "open"
