"""relay.client.state: connections, over the real wire protocol and a scripted server."""

from __future__ import annotations

import dataclasses
import secrets

import pytest

from relay import codec
from relay.client.answer_watch import ANSWER_S
from relay.client.candidates import Candidate
from relay.client.closes import GoingAway, Replaced
from relay.client.connection_deadlines import LOGIN_S
from relay.client.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    HandshakeFailed,
    ServerBrokeProtocol,
    ServerKeyMismatch,
    UnknownServerKey,
    WrongAccount,
)
from relay.client.events import State, StateChanged, Stored
from relay.client.identity import new_identity
from relay.client.pending_sends import Offer
from relay.client.refusals import NameTaken
from relay.client.trust.lineage import Expected
from relay.errors import LocalProtocolError
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Ack, Error, Hello, Send, Welcome
from relay.wire.identity import fingerprint
from relay.wire.packing import pack
from relay.wire.timing import DEFAULT_TIMING
from tests.client.peer import Link
from tests.support.devices import device
from tests.support.pair import other_key, server_key

EPOCH = b"e" * 8


def states(link: Link) -> list[State]:
    """Return the states that the program was told."""
    return [event.state for event in link.taken() if isinstance(event, StateChanged)]


# --- keys --------------------------------------------------------------------------------------
def test_an_unknown_key_gets_not_one_byte() -> None:
    """The client asks with no connection open; the accepted key is expected from then on."""
    link = Link()
    link.dial()
    offered = fingerprint(server_key().spki)
    assert link.state.key.undecided == offered
    assert not link.state.connected
    assert link.bytes_from_client == 0
    with pytest.raises(LocalProtocolError):
        link.state.key.trust("a" * 52)
    link.state.key.trust(offered)
    link.log_in()
    assert link.condition() is State.ONLINE
    assert link.state.key.fingerprint == offered


def test_an_unknown_key_that_is_not_accepted_ends_the_client() -> None:
    """With the given error."""
    link = Link()
    link.dial()
    link.state.fail(UnknownServerKey("no", "x"))
    assert link.condition() is State.CLOSED
    assert isinstance(link.state.error, UnknownServerKey)


def test_another_key_than_the_expected_one_is_final() -> None:
    """The error has both fingerprints, no byte is sent, and it is never tried again."""
    expected = fingerprint(other_key().spki)
    link = Link(expected_key=Expected(expected))
    link.dial()
    error = link.state.error
    assert isinstance(error, ServerKeyMismatch)
    assert (error.expected, error.fingerprint) == (expected, fingerprint(server_key().spki))
    assert link.bytes_from_client == 0
    assert link.state.connect_at is None


def test_a_key_that_changes_between_two_connections_is_final() -> None:
    """A key that was accepted once stays the expected one."""
    link = Link()
    link.log_in()
    link.lose()
    link.dial(other_key())
    assert isinstance(link.state.error, ServerKeyMismatch)


# --- login -------------------------------------------------------------------------------------
def test_login() -> None:
    """One HELLO; online with WELCOME, under the server's spelling of the name."""
    link = Link(name="Alice", display="Al", agent="test")
    link.dial()
    link.state.key.trust(link.state.key.undecided or "")
    link.dial()
    hello = link.heard(Hello)
    assert hello.name == "alice"
    assert (hello.display, hello.agent) == ("Al", "test")
    assert hello.key == device("alice").public
    assert link.condition() is State.CONNECTING
    link.send_envelopes(Welcome("alice", 0, 32_768, 1024, "peer"))
    assert link.state.name == "alice"
    assert states(link) == [State.CONNECTING, State.ONLINE]


@pytest.mark.parametrize("name", ["alicf", "Alice", "", "\x1b[2Jalice", "~alice"])
def test_a_welcome_for_another_name_ends_the_client(name: str) -> None:
    """The requested name is what the program shows, and looks its keys up by."""
    link = Link()
    link.dial()
    link.state.key.trust(link.state.key.undecided or "")
    link.dial()
    link.send_envelopes(Welcome(name, 0, 32_768, 1024, "peer"))
    assert isinstance(link.state.error, ServerBrokeProtocol)
    assert link.state.name == "alice"


def test_an_account_that_begins_anew_ends_a_client_that_was_in_the_old_one() -> None:
    """It would send again what the server stored for the old account: twice, then."""
    link = Link()
    link.log_in(root=b"a" * 32)
    link.state.chat.send(Offer("room", "", b"x"), "send")
    link.run()
    link.lose()
    link.log_in(root=b"b" * 32)
    assert isinstance(link.state.error, WrongAccount)
    assert len([one for one in link.received if isinstance(one, Send)]) == 0


def test_a_name_in_use_is_the_error_not_the_close_code() -> None:
    """ERROR has the exact reason; the close code has not."""
    link = Link()
    link.dial()
    link.state.key.trust(link.state.key.undecided or "")
    link.dial()
    link.send_envelopes(Error(0, int(ErrorCode.NAME_TAKEN), 0, ""))
    link.end(CloseCode.NAME_REFUSED)
    assert isinstance(link.state.error, NameTaken)
    assert link.condition() is State.CLOSED

    link = Link()
    link.log_in()
    link.send_envelopes(Error(0, int(ErrorCode.NAME_TAKEN), 0, ""))
    assert link.condition() is State.ONLINE
    link.end(CloseCode.NAME_REFUSED)
    assert isinstance(link.state.error, NameTaken), "also a guest's that was online"

    link = Link()
    link.log_in()
    link.send_envelopes(Error(0, int(ErrorCode.NAME_TAKEN), 0, ""))
    link.lose()
    link.log_in()
    link.end(CloseCode.NAME_REFUSED)
    assert link.condition() is State.CLOSED
    assert not isinstance(link.state.error, NameTaken), "the error of an earlier connection"


def test_only_the_first_of_several_addresses_is_given_little_time() -> None:
    """An overloaded server is slow at each of them; a client that was logged in would add to it."""
    link = Link()
    candidates = [Candidate(2, 6, (name, 1)) for name in "abc"]

    def given_s(logins: int) -> float:
        """How long the handshake with the next address may take."""
        if link.state.connect_at is not None:
            link.now = max(link.now, link.state.connect_at)
        link.state.dialling()
        link.state.addresses.chosen(link.state.addresses.in_order(candidates)[0])
        link.state.connection_made(link.now)
        assert link.state.logins == logins
        deadline = link.state.next_deadline()
        assert deadline is not None
        return deadline - link.now

    first = given_s(0)
    assert first < DEFAULT_TIMING.handshake_s
    link.now += first
    link.state.handle_deadline(link.now)
    link.state.data_to_send(link.now)
    assert given_s(0) == DEFAULT_TIMING.handshake_s
    link.lose()
    link.log_in()
    assert link.condition() is State.ONLINE
    link.lose()
    assert given_s(1) == DEFAULT_TIMING.handshake_s


def test_a_server_that_does_not_answer_the_login() -> None:
    """The connection is dropped and dialled again."""
    link = Link()
    link.dial()
    link.state.key.trust(link.state.key.undecided or "")
    link.dial()
    link.pass_time(LOGIN_S + 1)
    assert link.condition() is State.WAITING
    assert isinstance(link.state.last_problem, ConnectionLost)


# --- the end of a connection -------------------------------------------------------------------
@pytest.mark.parametrize("code", CloseCode)
def test_close_codes_in_two_ranges(code: CloseCode) -> None:
    """1000-1999: reconnect, not before the given time. Others: the end."""
    link = Link()
    link.log_in()
    link.taken()
    link.end(code, 3)
    if code < 2000:
        assert link.condition() is State.WAITING
        assert link.state.connect_at is not None
        assert link.state.connect_at >= link.now + 3
        (event,) = link.taken()
        assert isinstance(event, StateChanged)
        assert code.name in event.detail
        assert event.retry_s >= 3
    else:
        assert link.condition() is State.CLOSED
        assert link.state.connect_at is None
    assert link.close is not None
    assert link.close.clean


def test_without_reconnect_every_end_is_the_end() -> None:
    """Lost, or closed with any code."""
    link = Link(reconnect=False)
    link.log_in()
    link.lose()
    assert isinstance(link.state.error, ConnectionLost)
    link = Link(reconnect=False)
    link.log_in()
    link.end(CloseCode.GOING_AWAY)
    assert isinstance(link.state.error, GoingAway)


def test_the_same_secret_comes_back() -> None:
    """Its old connection is replaced, never waited for (invariant "Presence is derived")."""
    link = Link()
    link.log_in()
    first = link.hello
    link.lose()
    link.log_in()
    assert link.hello.secret == first.secret
    assert link.hello.key == first.key
    assert link.hello.signature != first.signature, "for this connection alone"
    assert link.state.logins == 2


def test_replaced_does_not_fight_back() -> None:
    """Two programs with one identity would replace each other for ever."""
    link = Link()
    link.log_in()
    link.end(CloseCode.REPLACED)
    assert isinstance(link.state.error, Replaced)


def test_the_first_dial_fails_for_good_later_ones_do_not() -> None:
    """A wrong address is an error at once; a server that was reached before is retried."""
    link = Link()
    link.state.connect_failed(ConnectFailed("refused"), link.now)
    assert isinstance(link.state.error, ConnectFailed)
    link = Link()
    link.log_in()
    link.lose()
    link.state.dialling()
    link.state.connect_failed(ConnectFailed("refused"), link.now)
    assert link.condition() is State.WAITING
    link.log_in()
    assert link.condition() is State.ONLINE


def test_what_is_no_relay() -> None:
    """A web server's answer is an error of the handshake."""
    link = Link()
    link.state.dialling()
    link.state.connection_made(link.now)
    link.state.receive_data(b"HTTP/1.1 400 Bad Request\r\n\r\n", link.now)
    link.state.data_to_send(link.now)
    assert isinstance(link.state.error, HandshakeFailed)
    assert not link.state.connected


def test_a_silent_server_is_given_up() -> None:
    """15 seconds for the handshake."""
    link = Link()
    link.state.dialling()
    link.state.connection_made(link.now)
    deadline = link.state.next_deadline()
    assert deadline is not None
    link.state.handle_deadline(deadline)
    link.state.data_to_send(deadline)
    assert isinstance(link.state.error, HandshakeFailed)


@pytest.mark.parametrize("content", [b"\xc1", b"\x91\x21", b"\x91\xff", b"\x91\xcf" + b"\xff" * 8])
def test_a_server_that_breaks_the_protocol(content: bytes) -> None:
    """It gets a close, and the client ends."""
    link = Link()
    link.log_in()
    link.send_raw(content)
    assert isinstance(link.state.error, ServerBrokeProtocol)
    assert link.close is not None
    assert link.close.code == CloseCode.PROTOCOL


def test_an_operation_of_a_later_version_is_ignored() -> None:
    """And one more field after a known one."""
    link = Link()
    link.log_in()
    link.send_raw(b"\x92\x3c\x01" + pack(Error(0, 2, 9, "")))
    assert link.condition() is State.ONLINE


# --- silence -----------------------------------------------------------------------------------
def test_silence_while_an_answer_is_awaited() -> None:
    """A ping soon, then the connection is dropped, and the send is repeated on the next.

    Invariant "Silence has an end".
    """
    link = Link()
    link.log_in()
    link.state.chat.send(Offer("room", "", b"x"), "token")
    link.run()
    link.server.data_to_send()
    start = link.now
    while link.condition() is State.ONLINE:
        deadline = link.state.next_deadline()
        assert deadline is not None
        link.now = deadline
        link.state.handle_deadline(link.now)
        link.state.data_to_send(link.now)  # goes nowhere
    assert link.now - start == pytest.approx(2 * ANSWER_S)
    assert isinstance(link.state.last_problem, ConnectionLost)
    link.log_in()
    assert link.heard(Send).counter == 1


def test_a_server_that_is_only_slow_is_not_given_up() -> None:
    """It answers the pings, and finally the send."""
    link = Link()
    link.log_in()
    link.state.chat.send(Offer("room", "", b"x"), "token")
    link.run()
    link.pass_time(60)
    assert link.condition() is State.ONLINE
    link.send_envelopes(Ack("room", 1, EPOCH, 1))
    assert link.results() == {"token": Stored(EPOCH, 1)}


# --- sends -------------------------------------------------------------------------------------
def test_a_burst_is_one_record() -> None:
    """Coalesced: the sends of one turn leave together."""
    link = Link()
    link.log_in()
    link.records.clear()
    for number in range(100):
        link.state.chat.send(Offer("room", "", b"x"), number)
    link.run()
    assert link.records == [100]


def test_sends_before_the_login_wait_for_it() -> None:
    """And go in order; again after a lost connection."""
    link = Link()
    for number in (1, 2, 3):
        link.state.chat.send(Offer("room", "", b"%d" % number), number)
    link.log_in()
    link.send_envelopes(Ack("room", 1, EPOCH, 1))
    link.lose()
    link.log_in()
    assert [send.counter for send in link.all_heard(Send)] == [2, 3]
    assert link.state.chat.sends.counters() == {"room": 2}


# --- close -------------------------------------------------------------------------------------
def test_close_says_goodbye() -> None:
    """A close record; pending calls get ClientClosed; no request can be made any more."""
    link = Link()
    link.log_in()
    link.state.chat.send(Offer("room", "", b"x"), "token")
    link.run()
    link.state.close(link.now)
    link.run()
    assert link.close is not None
    assert (link.close.code, link.close.clean) == (CloseCode.NORMAL, True)
    assert isinstance(link.results()["token"], ClientClosed)
    assert link.condition() is State.CLOSED
    assert link.state.error is None
    assert not link.state.connected
    with pytest.raises(ClientClosed):
        link.state.chat.send(Offer("room", "", b"x"), "token")


def test_close_does_not_wait_for_ever() -> None:
    """A server that does not answer the close."""
    link = Link()
    link.log_in()
    link.state.close(link.now)
    link.state.data_to_send(link.now)
    deadline = link.state.next_deadline()
    assert deadline is not None
    link.state.handle_deadline(deadline)
    link.state.data_to_send(deadline)
    assert link.condition() is State.CLOSED
    assert not link.state.connected


def test_close_between_two_connections() -> None:
    """It ends at once."""
    link = Link()
    link.log_in()
    link.lose()
    link.state.close(link.now)
    assert link.condition() is State.CLOSED
    assert states(link)[-1] is State.CLOSED


def test_no_secret_in_any_repr() -> None:
    """Identity and options may end up in a log."""
    identity = new_identity(secrets.token_bytes)
    link = Link(identity=identity)
    secret = identity.secret
    shown = repr(identity) + repr(link.state) + repr(link.state.options)
    assert repr(secret)[2:-1] not in shown
    assert secret.hex() not in shown
    assert "secret" not in [field.name for field in dataclasses.fields(identity) if field.repr]


@pytest.mark.parametrize("op", [0, 1, 6, 49, 255, 256, 65_536, 2**32 - 1])
def test_an_unknown_operation_of_the_server_is_ignored(op: int) -> None:
    """Before and after the login, alone and among others; those of a client, too."""
    unknown = codec.pack([op, "of a later version", [1]])
    link = Link()
    link.dial()
    assert link.state.key.undecided is not None
    link.state.key.trust(link.state.key.undecided)
    link.dial()
    link.send_raw(unknown)
    link.send_raw(unknown + pack(Welcome("alice", 0, 32_768, 1024, "peer")) + unknown)
    assert link.condition() is State.ONLINE
    link.state.chat.send(Offer("lobby", "text/plain", b"hello"), "token")
    link.run()
    link.send_raw(unknown + pack(Ack("lobby", 1, EPOCH, 1)) + unknown)
    assert link.results() == {"token": Stored(EPOCH, 1)}
    assert link.condition() is State.ONLINE


# --- tickets -----------------------------------------------------------------------------------
def test_a_ticket_shortens_the_next_handshake() -> None:
    """The newest is used, once; without one, or with an unusable one, nothing changes."""
    link = Link()
    link.log_in()
    assert link.state.resumptions == 0
    for times in (1, 2, 3):
        link.give_ticket()
        link.lose()
        link.log_in()
        assert link.condition() is State.ONLINE
        assert link.state.resumptions == times
    link.lose()
    link.log_in()
    assert link.state.resumptions == 3, "each is for one handshake"
    link.give_ticket()
    link.forget_tickets()
    link.lose()
    link.log_in()
    assert link.condition() is State.ONLINE
    assert link.state.resumptions == 3


def test_a_ticket_is_kept_no_longer_than_it_is_good() -> None:
    link = Link()
    link.log_in()
    lifetime_s = link.give_ticket()
    link.lose()
    link.now += lifetime_s
    link.log_in()
    assert link.state.resumptions == 0
    assert not link.offered_ticket


def test_a_ticket_is_not_shown_to_another_server() -> None:
    """Nor is anything else: its key is not the one that the ticket came from."""
    link = Link()
    link.log_in()
    link.give_ticket()
    link.lose()
    link.dial(other_key())
    assert isinstance(link.state.error, ServerKeyMismatch)
    assert not link.offered_ticket


def test_a_ticket_is_used_up_when_it_is_sent() -> None:
    """Whatever becomes of that connection, the next one does not offer it again."""
    link = Link()
    link.log_in()
    link.give_ticket()
    link.lose()
    link.now = link.state.connect_at or link.now
    link.dial()
    assert link.offered_ticket
    link.lose()
    link.log_in()
    assert not link.offered_ticket
