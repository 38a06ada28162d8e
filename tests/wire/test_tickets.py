"""Resumed handshakes: what a ticket shortens, and everything that must not complete one."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest

from relay.errors import LocalProtocolError
from relay.server.agent.ticket_keys import LIFETIME_S, ROTATE_S
from relay.wire.events import HandshakeCompleted, SecretWrapped
from relay.wire.frames import FrameType, frame
from relay.wire.handshake import OPENSSL, Randomised
from relay.wire.identity import ServerPublicKey, parse_spki
from relay.wire.messages import NO_BINDER, ClientKey, ServerFinished
from relay.wire.phases import Phase
from relay.wire.tickets import TICKET_BYTES, ClientTicket, TicketKeys
from tests.support.pair import Pair, client, other_key, server, server_key, stream
from tests.support.tickets import Desk, pair, ticket_of

MODULUS_BYTES = 256
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def desk() -> Desk:
    return Desk()


def mode_of(run: Pair) -> int:
    """Return the kind of handshake, as both ends report it."""
    found = [
        [event for event in peer.events if isinstance(event, HandshakeCompleted)]
        for peer in (run.client, run.server)
    ]
    assert len(found[0]) == len(found[1]) == 1
    assert found[0][0].mode == found[1][0].mode
    return found[0][0].mode


def fell_back(run: Pair) -> bool:
    run.run()
    assert run.server.unwrapped == 1
    assert HandshakeCompleted(0, True) in run.server.events
    assert HandshakeCompleted(0, True) in run.client.events
    return mode_of(run) == 0


# --- what a ticket does ---------------------------------------------------------------------------
def test_a_ticket_saves_the_private_operation(desk: Desk) -> None:
    tickets = desk.worker()
    run = pair(tickets, ticket_of(tickets))
    run.run()
    assert mode_of(run) == 1
    assert run.server.unwrapped == 0
    assert not any(isinstance(event, SecretWrapped) for event in run.server.events)
    run.client.connection.send(b"up", 0.0)
    run.server.connection.send(b"down", 0.0)
    run.run()
    assert run.server.received == [b"up"]
    assert run.client.received == [b"down"]


def test_every_connection_has_keys_and_a_binding_of_its_own(desk: Desk) -> None:
    """The ticket's secret is mixed with fresh ones: the same ticket twice gives different keys."""
    tickets = desk.worker()
    ticket = ticket_of(tickets)
    first = pair(tickets, ticket, "one")
    first.run()
    register = Desk()  # a server that has forgotten that it was used
    again = TicketKeys(
        hashlib.sha256(server_key().spki).digest(), register.register, desk.random_bytes, desk.clock
    )
    again.install(desk.maker.keys)
    second = pair(again, ticket, "two")
    second.run()
    assert mode_of(second) == 1
    bindings = {run.client.connection.login_binding for run in (first, second)}
    assert len(bindings) == 2
    record = first.client.connection.seal(b"x", 0.0)
    second.server.take(record)
    assert "does not authenticate" in second.server.closed.detail


def test_from_each_resumed_connection_follows_the_next(desk: Desk) -> None:
    tickets = desk.worker()
    ticket = ticket_of(tickets)
    for number in range(5):
        run = pair(tickets, ticket, str(number))
        run.run()
        assert mode_of(run) == 1
        assert run.server.connection.give_ticket(tickets, 0.0)
        run.run()
        (ticket,) = run.client.tickets


def test_a_ticket_is_good_at_every_worker_and_once(desk: Desk) -> None:
    one, two = desk.worker(), desk.worker()
    ticket = ticket_of(one)
    run = pair(two, ticket)
    run.run()
    assert mode_of(run) == 1
    for worker in (one, two):
        assert fell_back(pair(worker, ticket)), "the same round trip, with RSA"


def test_one_ticket_for_each_connection(desk: Desk) -> None:
    tickets = desk.worker()
    run = pair(tickets)
    run.run()
    assert run.server.connection.give_ticket(tickets, 0.0)
    with pytest.raises(LocalProtocolError):
        run.server.connection.give_ticket(tickets, 0.0)
    with pytest.raises(LocalProtocolError):
        run.client.connection.give_ticket(tickets, 0.0)
    with pytest.raises(LocalProtocolError):
        server().connection.give_ticket(tickets, 0.0)


def test_no_ticket_without_a_key_or_a_number(desk: Desk) -> None:
    empty = TicketKeys(bytes(32), desk.register, desk.random_bytes, desk.clock)
    run = pair(empty)
    run.run()
    assert not run.server.connection.give_ticket(empty, 0.0)
    run.run()
    assert not run.client.tickets
    desk.register._cells[4 + 1] = 2**23  # all numbers of the first key are given out
    assert desk.worker().seal(bytes(32)) is None


# --- tickets that are of no use: a full handshake, in the same round trip --------------------
def test_changed_and_cut_tickets(desk: Desk) -> None:
    tickets = desk.worker()
    ticket, psk = ticket_of(tickets)
    assert len(ticket) == TICKET_BYTES
    for index in range(len(ticket)):
        changed = bytearray(ticket)
        changed[index] ^= 1 << index % 8
        assert tickets.open(bytes(changed)) is None
    for other in (*(ticket[:cut] for cut in range(len(ticket))), ticket + b"\0", bytes(256)):
        assert tickets.open(other) is None
    for bad in (ticket[:-1] + bytes((ticket[-1] ^ 1,)), ticket[:40], bytes(125), b"\xff" * 256):
        assert fell_back(pair(tickets, ClientTicket(bad, psk)))
    run = pair(tickets, ClientTicket(ticket, psk))
    run.run()
    assert mode_of(run) == 1, "none of them has used the ticket up"


def test_a_ticket_of_another_server(desk: Desk) -> None:
    """Even with the same ticket keys: it is bound to one server's key."""
    other = desk.worker(other_key().spki)
    assert fell_back(pair(desk.worker(), ticket_of(other)))


def test_a_ticket_of_a_server_that_was_started_again(desk: Desk) -> None:
    assert fell_back(pair(Desk().worker(), ticket_of(desk.worker())))


def test_a_server_without_tickets(desk: Desk) -> None:
    assert fell_back(pair(None, ticket_of(desk.worker())))


def test_the_keys_rotate_and_the_last_one_is_accepted(desk: Desk) -> None:
    tickets = desk.worker()
    first = [ticket_of(tickets, f"first {n}") for n in range(3)]
    desk.at(1000 + ROTATE_S)
    second = ticket_of(tickets, "second")
    assert first[0].ticket[:8] != second.ticket[:8], "with a new key"
    run = pair(tickets, first[0])
    run.run()
    assert mode_of(run) == 1
    desk.at(1000 + LIFETIME_S - 1)
    run = pair(tickets, first[1])
    run.run()
    assert mode_of(run) == 1
    desk.at(1000 + LIFETIME_S)
    assert fell_back(pair(tickets, first[2])), "its key is gone"
    run = pair(tickets, second)
    run.run()
    assert mode_of(run) == 1


def test_operators_are_told_how_long_a_ticket_is_good() -> None:
    hours = f"for {(LIFETIME_S - ROTATE_S) / 3600:g} to {LIFETIME_S / 3600:g} hours"
    assert f"A ticket can be used once, {hours}" in OPERATIONS.read_text(encoding="utf-8")


def test_a_worker_that_was_not_told_of_the_rotation_accepts_no_longer(desk: Desk) -> None:
    tickets = desk.worker()
    ticket = ticket_of(tickets)
    desk.workers.clear()
    desk.at(1000 + LIFETIME_S)
    assert tickets.open(ticket.ticket) is None
    assert tickets.seal(bytes(32)) is None


def test_the_lifetime_that_a_client_is_told_ends_with_the_key(desk: Desk) -> None:
    tickets = desk.worker()
    desk.now += 100.5
    sealed = tickets.seal(bytes(32))
    assert sealed is not None
    assert sealed[1] == LIFETIME_S - 101


def test_an_agent_that_dies_and_dies(desk: Desk) -> None:
    """Each new agent has one new key; workers keep the earlier ones, four at most."""
    tickets = desk.worker()
    ticket = ticket_of(tickets)
    for death in range(1, 5):
        replaced = Desk(now=desk.now, register=desk.register)
        tickets.install(replaced.maker.keys)
        assert (tickets.open(ticket.ticket) is not None) == (death < 4)
        late = Desk(now=desk.now, register=desk.register).worker()
        assert late.open(ticket.ticket) is None, "a worker that began later"


# --- attacks --------------------------------------------------------------------------------------
def test_a_ticket_without_its_secret_is_worth_nothing(desk: Desk) -> None:
    """For an eavesdropper: the connection ends, no RSA was done, and the ticket is not used up."""
    tickets = desk.worker()
    ticket = ticket_of(tickets)
    for psk in (stream("a guess")(32), bytes(32)):
        thief = pair(tickets, ClientTicket(ticket.ticket, type(ticket.psk)(psk)))
        thief.run()
        assert "binder" in thief.server.closed.detail
        assert thief.server.unwrapped == 0
        assert not thief.client.completed
    owner = pair(tickets, ticket)
    owner.run()
    assert mode_of(owner) == 1


def test_a_recorded_client_key_with_its_ticket_is_worth_nothing(desk: Desk) -> None:
    """On another connection the binder is invalid; the ticket is not used up."""
    tickets = desk.worker()
    sender = pair(tickets, ticket_of(tickets))
    sender.client.take(sender.server.give())
    recorded = sender.client.give()
    for seed in ("one", "two"):
        victim = server(tickets=tickets, seed=seed)
        victim.give()
        victim.take(recorded)
        assert "binder" in victim.closed.detail
        assert victim.give() == b""
    sender.server.take(recorded)
    sender.run()
    assert mode_of(sender) == 1
    late = server(tickets=tickets, seed="after it was used")
    late.give()
    late.take(recorded)
    assert "binder" in late.closed.detail


def test_bytes_behind_a_client_key_use_nothing_up(desk: Desk) -> None:
    tickets = desk.worker()
    ticket = ticket_of(tickets)
    early = pair(tickets, ticket)
    early.client.take(early.server.give())
    early.server.take(early.client.give() + b"early data")
    assert "out of turn" in early.server.closed.detail
    run = pair(tickets, ticket)
    run.run()
    assert mode_of(run) == 1


def test_nothing_of_a_user_before_the_confirmation(desk: Desk) -> None:
    """The client has keys only once the server has proved that it could open the ticket."""
    tickets = desk.worker()
    run = pair(tickets, ticket_of(tickets))
    run.client.take(run.server.give())
    with pytest.raises(LocalProtocolError):
        run.client.connection.send(b"my name", 0.0)
    run.server.take(run.client.give())
    assert run.server.phase is Phase.AWAIT_CLIENT_FINISHED
    with pytest.raises(LocalProtocolError):
        run.server.connection.send(b"welcome", 0.0)


def test_a_server_that_cannot_open_the_ticket_cannot_claim_that_it_did(desk: Desk) -> None:
    """An attacker with the server's public key only: no mode completes."""
    for mode in (0, 1):
        run = pair(None, ticket_of(desk.worker()))
        run.server.trusting = False
        run.client.take(run.server.give())
        run.server.take(run.client.give())
        run.server.connection.provide_secret(bytes(32), 0.0)
        finished = ServerFinished.parse(run.server.give())._replace(mode=mode)
        run.client.take(frame(FrameType.SERVER_FINISHED, finished.body()))
        assert "does not hold the key" in run.client.closed.detail
        assert run.client.give() == b""


def test_a_mode_that_was_not_offered_or_does_not_exist(desk: Desk) -> None:
    tickets = desk.worker()
    for ticket, mode in ((None, 1), (ticket_of(tickets), 2), (ticket_of(tickets, "x"), 255)):
        run = pair(tickets, ticket)
        run.client.take(run.server.give())
        run.server.take(run.client.give())
        finished = ServerFinished.parse(run.server.give())._replace(mode=mode)
        run.client.take(frame(FrameType.SERVER_FINISHED, finished.body()))
        assert "mode" in run.client.closed.detail


# --- a man in the middle --------------------------------------------------------------------------
@cache
def wrapped(secret: bytes) -> bytes:
    return ServerPublicKey.wrap(parse_spki(server_key().spki), secret)


@cache
def encapsulated(key: bytes) -> tuple[bytes, bytes]:
    return OPENSSL.encapsulate(key)


FIXED = Randomised(lambda _, secret: wrapped(secret), encapsulated)
FIXED_DESK = Desk(random_bytes=stream("tickets"))
FIXED_TICKET = ticket_of(FIXED_DESK.worker())


def fixed() -> Pair:
    """A resumption without randomness; each at a server that has not seen the ticket yet."""
    desk = Desk(random_bytes=stream("other tickets"))
    tickets = TicketKeys(
        hashlib.sha256(server_key().spki).digest(), desk.register, stream("t"), desk.clock
    )
    tickets.install(FIXED_DESK.maker.keys)
    desk.register._cells[1] = 1  # the part of the register for the ticket's key
    return Pair(
        client(ticket=FIXED_TICKET, randomised=FIXED), server(tickets=tickets, randomised=FIXED)
    )


@cache
def transcript() -> tuple[bytes, bytes, bytes, bytes]:
    run = fixed()
    frames = []
    for source, target in [(run.server, run.client), (run.client, run.server)] * 2:
        frames.append(source.give())
        target.take(frames[-1])
    assert mode_of(run) == 1
    return frames[0], frames[1], frames[2], frames[3]


def with_frame(number: int, data: bytes) -> Pair:
    """Run a fixed resumption in which one frame is replaced on the way."""
    run = fixed()
    for at, (source, target) in enumerate(
        [(run.server, run.client), (run.client, run.server)] * 2, 1
    ):
        given = source.give()
        if not given:
            break
        target.take(data if at == number else given)
    return run


def never(run: Pair, number: int) -> None:
    """Check that neither side has completed; except for ClientFinished, after which the
    client has.
    """
    assert not run.server.completed
    assert not run.client.completed or number == 4
    if number < 4:
        assert run.client.give() == b""
    for peer in (run.client, run.server):
        peer.at(15.0)
        assert peer.phase is Phase.CLOSED or (number == 4 and peer is run.client)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_changed_byte_never_resumes(number: int) -> None:
    right = transcript()[number - 1]
    for index in range(0, len(right), 1 if number in (1, 4) else 3):
        changed = bytearray(right)
        changed[index] ^= 1 << index % 8
        never(with_frame(number, bytes(changed)), number)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_cut_or_longer_frame_never_resumes(number: int) -> None:
    right = transcript()[number - 1]
    body = right[4:]
    kind = FrameType(number)
    for cut in {1, len(body) // 2, len(body) - 33, len(body) - 1}:
        never(with_frame(number, frame(kind, body[: max(cut, 1)])), number)
    for data in (b"", right[:-1], frame(kind, body + b"\0")):
        never(with_frame(number, data), number)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("other", [1, 2, 3, 4])
def test_a_frame_in_another_ones_place_never_resumes(number: int, other: int) -> None:
    """Reordered, repeated, replayed."""
    if number != other:
        never(with_frame(number, transcript()[other - 1]), number)
    else:
        run = with_frame(number, transcript()[number - 1] * 2)
        assert not (run.server.completed and run.client.completed) or number == 4


def test_stripping_the_ticket_does_not_downgrade() -> None:
    """Both would do a full handshake, but the client has sent another frame: nothing completes."""
    key = ClientKey.parse(transcript()[1], MODULUS_BYTES)
    for stripped in (
        key._replace(ticket=b"", binder=NO_BINDER),
        key._replace(ticket=bytes(125)),
        key._replace(ticket=b"x"),
    ):
        run = with_frame(2, frame(FrameType.CLIENT_KEY, stripped.body()))
        assert run.server.unwrapped == 1, "the server falls back"
        assert not run.client.completed
        assert not run.server.completed
        assert "does not hold the key" in run.client.closed.detail
