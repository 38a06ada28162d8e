"""Device chains: which links extend one, and which do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.chat.accounts import chain, links
from relay.chat.accounts.chain import LINKS_MAX, Chain, Pin
from relay.chat.accounts.links import Body, Kind, LinkError
from relay.wire.device_keys import PrivateDeviceKey, verify
from tests.vectors.accounts import key, signed

SERVER = bytes(range(32))
A, B, C, D = (key(label) for label in "abcd")
NONCE = b"n" * 16


def root(owner: PrivateDeviceKey = A, name: str = "alice", server: bytes = SERVER) -> bytes:
    return signed(chain.root_body(server, name, NONCE, owner.public), owner)


def begun() -> Chain:
    return chain.begun(links.parse(root()), verify)


def add(held: Chain, new: PrivateDeviceKey, by: PrivateDeviceKey) -> bytes:
    return signed(held.next_body(Kind.ADD, new.public, by.public), by, new)


def grown(*steps: tuple[PrivateDeviceKey, PrivateDeviceKey]) -> Chain:
    held = begun()
    for new, by in steps:
        held = held.extended(links.parse(add(held, new, by)), verify)
    return held


def test_a_chain_grows_and_shrinks() -> None:
    held = grown((B, A), (C, B))
    assert set(held.devices) == {A.public, B.public, C.public}
    removal = signed(held.next_body(Kind.REMOVE, A.public, C.public), C)
    after = held.extended(links.parse(removal), verify)
    assert set(after.devices) == {B.public, C.public}
    assert after.removed == {A.public}
    assert after.root == begun().root
    assert after.number == 3


def test_bytes_there_and_back() -> None:
    packed = add(begun(), B, A)
    link = links.parse(packed)
    assert link.body.packed() == link.signed
    assert link.packed == packed
    assert len(packed) <= links.LINK_BYTES_MAX


@pytest.mark.parametrize("at", range(len(add(begun(), B, A))))
def test_every_byte_counts(at: int) -> None:
    """Whatever is changed, the link does not extend the chain."""
    packed = bytearray(add(begun(), B, A))
    packed[at] ^= 1
    with pytest.raises(LinkError):
        begun().extended(links.parse(bytes(packed)), verify)


@pytest.mark.parametrize("cut", [1, 64, 65, 128, 129, 200])
def test_a_piece_is_no_link(cut: int) -> None:
    packed = add(begun(), B, A)
    with pytest.raises(LinkError):
        begun().extended(links.parse(packed[:-cut]), verify)
    with pytest.raises(LinkError):
        links.parse(packed + bytes(cut))


def changed(**fields: object) -> Callable[[Body], Body]:
    return lambda body: body._replace(**fields)  # type: ignore[arg-type]


WRONG: dict[str, tuple[Callable[[Body], Body], tuple[PrivateDeviceKey, ...]]] = {
    "of another server": (changed(server_id=bytes(32)), (A, B)),
    "of another name": (changed(handle="a1ice"), (A, B)),
    "of another chain": (changed(nonce=bytes(16)), (A, B)),
    "a number too far": (changed(number=2), (A, B)),
    "a number again": (changed(number=0), (A, B)),
    "another link before": (changed(previous=bytes(32)), (A, B)),
    "a root in the middle": (changed(kind=Kind.ROOT, signer=B.public), (B,)),
    "signed by a stranger": (changed(signer=C.public), (C, B)),
    "signed by itself": (changed(signer=B.public), (B, B)),
    "signed by another device": (changed(), (C, B)),
    "not signed by the new one": (changed(), (A, C)),
    "the new one twice": (changed(subject=A.public), (A, A)),
    "the last one away": (changed(kind=Kind.REMOVE, subject=A.public), (A,)),
    "a stranger away": (changed(kind=Kind.REMOVE, subject=C.public), (A,)),
}


@pytest.mark.parametrize("why", WRONG)
def test_what_does_not_continue_a_chain(why: str) -> None:
    held = begun()
    change, signers = WRONG[why]
    body = change(held.next_body(Kind.ADD, B.public, A.public))
    with pytest.raises(LinkError):
        held.extended(links.parse(signed(body, *signers)), verify)


def test_an_offer_is_not_a_link_yet() -> None:
    held = begun()
    offer = signed(held.next_body(Kind.ADD, B.public, A.public), A)
    assert not links.parse(offer).complete
    with pytest.raises(LinkError):
        held.extended(links.parse(offer), verify)
    whole = offer + B.sign(links.parse(offer).signed)
    assert set(held.extended(links.parse(whole), verify).devices) == {A.public, B.public}


def test_a_removed_key_never_comes_back() -> None:
    held = grown((B, A))
    held = held.extended(
        links.parse(signed(held.next_body(Kind.REMOVE, B.public, A.public), A)), verify
    )
    with pytest.raises(LinkError):
        held.next_body(Kind.ADD, B.public, A.public)


@pytest.mark.parametrize(
    "body",
    [
        chain.root_body(SERVER, "alice", NONCE, A.public)._replace(number=1),
        chain.root_body(SERVER, "alice", NONCE, A.public)._replace(previous=b"p" * 32),
        chain.root_body(SERVER, "alice", NONCE, A.public)._replace(subject=B.public),
    ],
)
def test_what_is_no_root(body: Body) -> None:
    with pytest.raises(LinkError):
        chain.begun(links.parse(signed(body, A)), verify)


def test_a_root_proves_its_key() -> None:
    with pytest.raises(LinkError):
        chain.begun(
            links.parse(signed(chain.root_body(SERVER, "alice", NONCE, A.public), B)), verify
        )


def test_nobody_can_fill_a_chain_up_and_stay() -> None:
    """With every addition there is room left to remove all devices but one."""
    yes = lambda _k, _s, _m: True  # noqa: E731  # signatures are tried elsewhere
    held = begun()
    number = 0
    while True:
        new = number.to_bytes(32, "big")
        try:
            body = held.next_body(Kind.ADD, new, A.public)
        except LinkError:
            break
        held = held.extended(links.parse(body.packed() + bytes(128)), yes)
        number += 1
    assert len(held.devices) > 100
    for gone in [one for one in held.devices if one != A.public]:
        body = held.next_body(Kind.REMOVE, gone, A.public)
        held = held.extended(links.parse(body.packed() + bytes(64)), yes)
    assert set(held.devices) == {A.public}
    assert held.number < LINKS_MAX


# --- what a reader keeps ------------------------------------------------------------------------
def packed_chain() -> list[bytes]:
    held = begun()
    second = add(held, B, A)
    return [root(), second, add(held.extended(links.parse(second), verify), C, B)]


def test_a_reader_accepts_extensions_alone() -> None:
    whole = packed_chain()
    chains = chain.read(whole, verify)
    for held in chains:
        assert chain.extends(chains, held.pin), "the known chain, and an extension"
    short = chain.read(whole[:2], verify)
    assert not chain.extends(short, chains[2].pin), "the server rolled back"
    fork = [root(), add(begun(), D, A)]
    assert not chain.extends(chain.read(fork, verify), chains[1].pin), "two histories"
    other = chain.read([root(B)], verify)
    assert not chain.extends(other, chains[0].pin), "another root"
    assert not chain.extends(chains, Pin(chains[0].root, 7, chains[2].head))


def test_a_forged_chain_is_no_chain() -> None:
    whole = packed_chain()
    for wrong in (
        [whole[0], whole[2]],
        whole[1:],
        [whole[0], whole[0]],
        [whole[0], whole[1], b"x"],
    ):
        with pytest.raises(LinkError):
            chain.read(wrong, verify)
