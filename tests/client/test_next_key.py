"""relay.client: successive keys of a server, and which of them a client accepts."""

from __future__ import annotations

import hashlib
import secrets
from itertools import pairwise
from pathlib import Path

import pytest

from relay.client.address import Address
from relay.client.devices.key_files import KeyFiles
from relay.client.errors import ServerIdentityError, ServerKeyMismatch
from relay.client.events import State
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.lineage import ClaimedId, Expected, KeyChange, Lineage
from relay.client.trust.policy import KeyPolicy
from relay.errors import UsageError
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done, Error, NextKey, Prove
from relay.wire.identity import PrivateKey, fingerprint, generate_private_key
from tests.client.peer import Link
from tests.support.pair import other_key, server_key, stream

OLD, NEW = fingerprint(server_key().spki), fingerprint(other_key().spki)
HOST = Address("relay.example", 7475)


def hash_of(key: PrivateKey) -> bytes:
    return hashlib.sha256(key.spki).digest()


def announced(link: Link, by: PrivateKey, following: PrivateKey) -> None:
    """Announce a key as the server, and answer the client's challenge with ``by``."""
    link.send_envelopes(NextKey(hash_of(following)))
    for asked in link.all_heard(Prove):
        link.send_envelopes(Done(asked.request, by.prove_next(asked.challenge, hash_of(following))))


# --- the state ------------------------------------------------------------------------------------
def test_an_announced_key_is_followed_without_a_question() -> None:
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    announced(link, server_key(), other_key())
    assert link.state.key.take_changes() == [KeyChange(OLD, NEW, followed=False)]
    link.lose()
    link.log_in(key=other_key(), server_id=hash_of(server_key()))
    assert link.condition() is State.ONLINE
    assert link.state.key.fingerprint == NEW
    assert link.state.key.take_changes() == [KeyChange(OLD, NEW, followed=True)]
    known = link.state.login.credentials
    assert known is not None
    assert known.server_id == OLD, "keys and pins stay where they are"
    link.lose()
    link.log_in(key=other_key(), server_id=hash_of(server_key()))
    assert link.condition() is State.ONLINE, "the id is the same, and there is no question"
    assert link.state.key.id == OLD


def test_once_followed_the_old_key_is_refused() -> None:
    """A thief of the old key cannot take the server's place any more."""
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    announced(link, server_key(), other_key())
    link.lose()
    link.log_in(key=other_key(), server_id=hash_of(server_key()))
    link.lose()
    link.dial(server_key())
    assert isinstance(link.state.error, ServerKeyMismatch)
    assert link.bytes_from_client_now == 0


def test_a_key_that_was_replaced_is_not_gone_back_to(caplog: pytest.LogCaptureFixture) -> None:
    """Though the present key vouches for it: a thief of both could make it valid again."""
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    announced(link, server_key(), other_key())
    link.lose()
    link.log_in(key=other_key(), server_id=hash_of(server_key()))
    link.state.key.take_changes()
    announced(link, other_key(), server_key())
    assert "was replaced" in caplog.text
    assert not link.state.key.take_changes()
    link.lose()
    link.dial(server_key())
    assert isinstance(link.state.error, ServerKeyMismatch)


def test_no_earlier_key_is_gone_back_to(caplog: pytest.LogCaptureFixture) -> None:
    """For a server on its third key: neither the first, which is its id, nor the second."""
    third = generate_private_key(secrets.token_bytes, 2048)
    keys, server_id = [server_key(), other_key(), third], hash_of(server_key())
    link = Link(expected_key=Expected(OLD))
    for key, following in pairwise(keys):
        link.log_in(key=key, server_id=server_id)
        announced(link, key, following)
        link.lose()
    link.log_in(key=third, server_id=server_id)
    link.state.key.take_changes()
    for earlier in keys[:2]:
        caplog.clear()
        announced(link, third, earlier)
        assert "was replaced" in caplog.text
        assert not link.state.key.take_changes()


def test_until_it_is_met_the_old_key_is_as_good() -> None:
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    announced(link, server_key(), other_key())
    link.lose()
    link.log_in()
    assert link.condition() is State.ONLINE
    assert link.state.key.fingerprint == OLD
    announced(link, server_key(), other_key())
    assert len(link.state.key.take_changes()) == 1, "it was proved, and is not requested again"


def test_an_announcement_without_the_key_is_not_believed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A compromised worker can announce it, and cannot prove it."""
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    announced(link, other_key(), other_key())
    assert not link.state.key.take_changes()
    assert "did not prove" in caplog.text
    link.lose()
    link.dial(other_key())
    assert isinstance(link.state.error, ServerKeyMismatch)
    assert link.bytes_from_client_now == 0


def test_a_proof_for_another_key_or_another_secret_is_not_believed() -> None:
    third = generate_private_key(stream("a third key"), 2048)
    for proof_of in (third, server_key()):
        link = Link(expected_key=Expected(OLD))
        link.log_in()
        link.send_envelopes(NextKey(hash_of(other_key())))
        asked = link.heard(Prove)
        stale = server_key().prove_next(asked.challenge, hash_of(proof_of))
        link.send_envelopes(Done(asked.request, stale if proof_of is third else bytes(32)))
        assert not link.state.key.take_changes()


def test_an_unannounced_key_gets_not_one_byte() -> None:
    link = Link(expected_key=Expected(OLD))
    link.dial(other_key(), server_id=hash_of(server_key()))
    assert isinstance(link.state.error, ServerKeyMismatch)
    assert link.bytes_from_client == 0


def test_the_last_announcement_counts() -> None:
    third = generate_private_key(stream("a third key"), 2048)
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    announced(link, server_key(), other_key())
    announced(link, server_key(), third)
    link.lose()
    link.dial(other_key(), server_id=hash_of(server_key()))
    assert isinstance(link.state.error, ServerKeyMismatch)


def test_an_announcement_while_the_one_before_is_being_proved_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The operator replaces the next key at once: connected clients learn of the last one.

    The key agent may be the new one already, and prove the second key in answer to a challenge for
    the first.
    """
    third = generate_private_key(stream("a third key"), 2048)
    for proves in (other_key(), third):
        link = Link(expected_key=Expected(OLD))
        link.log_in()
        link.send_envelopes(NextKey(hash_of(other_key())), NextKey(hash_of(third)))
        (first,) = link.all_heard(Prove)
        proof = server_key().prove_next(first.challenge, hash_of(proves))
        link.send_envelopes(Done(first.request, proof))
        second = link.all_heard(Prove)[-1]
        assert second.request != first.request
        assert second.challenge != first.challenge
        proof = server_key().prove_next(second.challenge, hash_of(third))
        link.send_envelopes(Done(second.request, proof))
        assert link.state.key.following == fingerprint(third.spki)
        assert not caplog.records
        link.lose()
        link.dial(other_key(), server_id=hash_of(server_key()))
        assert isinstance(link.state.error, ServerKeyMismatch)


def test_what_was_announced_on_another_connection_is_not_asked_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server announces its next key at each login."""
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    third = generate_private_key(stream("a third key"), 2048)
    link.send_envelopes(NextKey(hash_of(other_key())), NextKey(hash_of(third)))
    link.lose()
    link.log_in()
    announced(link, server_key(), other_key())
    assert link.state.key.following == NEW
    assert not link.all_heard(Prove)
    assert not caplog.records


def test_announcements_without_end_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Each is a line in a file shared by all servers; the next connection starts again."""
    third = generate_private_key(stream("a third key"), 2048)
    link = Link(expected_key=Expected(OLD))
    for _ in range(2):
        link.log_in()
        for _ in range(20):
            announced(link, server_key(), other_key())
            announced(link, server_key(), third)
        assert 1 < len(link.state.key.take_changes()) <= 8
        assert link.condition() is State.ONLINE
        link.lose()
    assert [r.message for r in caplog.records if "too often" in r.message] == 2 * [
        "the server announces next keys too often: they are ignored now"
    ]


def test_an_announcement_that_was_withdrawn_makes_room_for_the_next() -> None:
    link = Link(expected_key=Expected(OLD))
    link.log_in()
    third = generate_private_key(stream("a third key"), 2048)
    link.send_envelopes(NextKey(hash_of(third)), NextKey(hash_of(other_key())))
    (first,) = link.all_heard(Prove)
    link.send_envelopes(Error(first.request, ErrorCode.NOT_SUPPORTED, 0, "no key is announced"))
    second = link.all_heard(Prove)[-1]
    proof = server_key().prove_next(second.challenge, hash_of(other_key()))
    link.send_envelopes(Done(second.request, proof))
    assert link.state.key.following == NEW


def test_an_id_that_nobody_has_proved_is_left_to_the_face() -> None:
    """The connection ends before a name is sent; a claimed id counts after the server's
    proof only.
    """
    link = Link(expected_key=Expected(NEW))
    link.dial(other_key(), server_id=hash_of(server_key()))
    assert link.state.key.undecided_id == ClaimedId(NEW, OLD)
    assert not link.received
    link.state.key.trust_id(ClaimedId(NEW, OLD))
    link.log_in(key=other_key(), server_id=hash_of(server_key()))
    assert link.condition() is State.ONLINE
    known = link.state.login.credentials
    assert known is not None
    assert known.server_id == OLD


# --- files and policy -----------------------------------------------------------------------------
@pytest.fixture
def policy(tmp_path: Path) -> KeyPolicy:
    return KeyPolicy(KnownServers(tmp_path / "known"), keys=KeyFiles(tmp_path / "keys"))


def test_what_was_proved_is_found_again(policy: KeyPolicy) -> None:
    policy.known.pin(HOST.host, HOST.port, OLD)
    assert policy.expected(HOST) == Expected(OLD)
    policy.keep([KeyChange(OLD, NEW, followed=False)])
    assert policy.expected(HOST) == Expected(OLD, NEW)
    policy.keep([KeyChange(OLD, NEW, followed=True)] * 2)
    assert policy.expected(HOST) == Expected(NEW, None, OLD)
    assert policy.server_id(HOST) == OLD
    assert policy.expected(HOST._replace(fingerprint=OLD)) == Expected(NEW, None, OLD)
    assert policy.expected(HOST._replace(fingerprint=NEW)) == Expected(NEW, None, OLD)
    other_host = HOST._replace(host="another.example")
    assert policy.expected(other_host) is None
    lines = policy.known.path.read_text().splitlines()
    assert lines == [
        f"[relay.example]:7475 relay-key-v1 {OLD}",
        f"* relay-next-key-v1 {OLD} {NEW}",
        f"* relay-followed-key-v1 {OLD} {NEW}",
    ]


def test_keys_over_many_years() -> None:
    keys = [c * 51 + "a" for c in "abcdefgh"]
    followed = dict(pairwise(keys))
    lineage = Lineage({}, followed)
    for key in keys:
        assert lineage.expected(key).fingerprint == keys[-1]
        assert lineage.id_of(key) == keys[0]
    circle = Lineage({}, {**followed, keys[-1]: keys[0]})
    assert circle.expected(keys[3]).fingerprint in keys, "a damaged file ends no program"


def test_an_id_is_believed_when_nothing_is_kept_under_it(policy: KeyPolicy) -> None:
    """For a client that is new after a change of keys; the next time the id is known."""
    assert policy.claimed(HOST, ClaimedId(NEW, OLD)) is None
    assert policy.expected(HOST._replace(fingerprint=NEW)) == Expected(NEW, None, OLD)


def test_what_was_made_before_the_id_was_known_follows(policy: KeyPolicy) -> None:
    """A key for a passphrase, or to be approved, is made before the first connection."""
    made = policy.keys.create(NEW, "anna")
    assert policy.claimed(HOST, ClaimedId(NEW, OLD)) is None
    found = policy.keys.find(OLD, "anna")
    assert found is not None
    assert found.public == made.public
    assert policy.keys.names(NEW) == []
    other = KeyPolicy(policy.known, keys=policy.keys)
    assert other.claimed(HOST, ClaimedId(NEW, OLD)) is None, "two programs at once"


def test_what_was_made_follows_when_another_program_has_recorded_the_id(policy: KeyPolicy) -> None:
    """It stored keys under the id by then; one of the same name is not changed."""
    made = policy.keys.create(NEW, "anna")
    policy.keys.create(NEW, "bert")
    policy.keep([KeyChange(OLD, NEW, followed=True)])
    others = policy.keys.create(OLD, "bert")
    assert policy.claimed(HOST, ClaimedId(NEW, OLD)) is None
    for name, key in (("anna", made), ("bert", others)):
        found = policy.keys.find(OLD, name)
        assert found is not None
        assert found.public == key.public
    assert policy.keys.names(NEW) == ["bert"]


def test_keys_that_an_earlier_version_left_behind_are_found(policy: KeyPolicy) -> None:
    """Under any key that the server has had, also one left between two renames."""
    third = "c" * 51 + "a"
    for key, name in ((NEW, "anna"), (third, "bert"), (third, "carol"), ("d" * 52, "dora")):
        policy.keys.create(key, name)
    policy.keep([KeyChange(OLD, NEW, followed=True), KeyChange(NEW, third, followed=True)])
    (policy.keys.directory / OLD).mkdir()
    policy.keys.path_of(OLD, "carol").hardlink_to(policy.keys.path_of(third, "carol"))
    assert policy.server_id(HOST._replace(fingerprint=third)) == OLD
    assert sorted(policy.keys.names(OLD)) == ["anna", "bert", "carol"]
    assert not (policy.keys.directory / third).exists()
    assert policy.keys.names("d" * 52) == ["dora"], "that of another server"


def test_without_a_directory_there_is_nothing_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with its key in memory needs none, and gets no warning at each start."""
    monkeypatch.setenv("RELAY_KEYS", "~nobody-of-this-name/keys")
    with pytest.raises(UsageError):
        KeyFiles().find(OLD, "anna")
    KeyFiles().follow(NEW, OLD)


@pytest.mark.parametrize("kept", ["pin", "keys", "lineage"])
def test_an_id_of_a_server_that_is_known_is_not_taken_over(policy: KeyPolicy, kept: str) -> None:
    """Another server claims an id for which keys are stored: they are not used there."""
    if kept == "pin":
        policy.known.pin("elsewhere.example", 1, OLD)
    elif kept == "keys":
        (policy.keys.directory / OLD).mkdir(parents=True)
    else:
        policy.known.announced(OLD, "b" * 51 + "a")
    refused = policy.claimed(HOST, ClaimedId(NEW, OLD))
    assert isinstance(refused, ServerIdentityError)
    assert OLD in str(refused)
    line = str(refused).partition(": * ")[2]
    with policy.known.path.open("a") as file:
        file.write(f"* {line}\n")
    assert policy.server_id(HOST._replace(fingerprint=NEW)) == OLD, "what its operator confirmed"


def test_a_damaged_file_hides_no_keys(policy: KeyPolicy) -> None:
    """A full address needs no known-servers file; the stored keys are still found."""
    policy.known.path.write_text(f"[{HOST.host}]:7475 relay-key-v1 damaged\n")
    assert policy.expected(HOST._replace(fingerprint=NEW)) == Expected(NEW)
    assert policy.claimed(HOST, ClaimedId(NEW, OLD)) is None, "there is nothing"
    (policy.keys.directory / OLD).mkdir(parents=True)
    another = ClaimedId("b" * 51 + "a", OLD)
    assert isinstance(policy.claimed(HOST, another), ServerIdentityError)


def test_a_key_that_has_followed_begins_no_server_of_its_own(policy: KeyPolicy) -> None:
    """It claims to be the first key: what is stored under the id would not be used any more."""
    policy.keep([KeyChange(OLD, NEW, followed=True)])
    assert isinstance(policy.claimed(HOST, ClaimedId(NEW, NEW)), ServerIdentityError)
    assert policy.expected(HOST._replace(fingerprint=NEW)) == Expected(NEW, None, OLD)


def test_lines_in_any_order_of_events(policy: KeyPolicy) -> None:
    """Announced twice, the last one counts; an earlier key is not accepted again."""
    third = "c" * 51 + "a"
    policy.keep([KeyChange(OLD, third, followed=False)])
    assert policy.expected(HOST._replace(fingerprint=third)) == Expected(third, None, OLD)
    policy.keep([KeyChange(OLD, NEW, followed=False)] * 2)
    assert policy.expected(HOST._replace(fingerprint=OLD)) == Expected(OLD, NEW)
    assert len(policy.known.path.read_text().splitlines()) == 2
    policy.keep([KeyChange(OLD, NEW, followed=True), KeyChange(NEW, OLD, followed=False)])
    policy.keep([KeyChange(NEW, OLD, followed=True)])
    assert policy.expected(HOST._replace(fingerprint=OLD)) == Expected(NEW, None, OLD)
    assert len(policy.known.path.read_text().splitlines()) == 3, "no way back is written"
    circle = Lineage({NEW: OLD}, {OLD: NEW})
    assert circle.expected(OLD) == Expected(NEW, None, OLD), "nor accepted"


def test_damaged_lines_about_keys_are_an_error(tmp_path: Path) -> None:
    for line in (f"* relay-next-key-v1 {OLD}", f"* relay-followed-key-v1 {OLD} x"):
        path = tmp_path / "known"
        path.write_text(f"# mine\n{line}\n")
        with pytest.raises(UsageError, match="line 2"):
            KnownServers(path).lineage()
    path.write_text(f"* relay-later-key-v9 {OLD}\n")
    assert not KnownServers(path).lineage().followed
