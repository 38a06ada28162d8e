"""Ed25519 as devices use it: the published cases, and keys that must be refused."""

from __future__ import annotations

import itertools

import pytest

from relay.wire import device_keys
from relay.wire.device_keys import DeviceKeyError, PrivateDeviceKey, check_public_key, verify
from relay.wire.login import Operation, proves, signed_bytes
from relay.wire.sealed_seed import WrongPassphrase, seal, unseal
from tests.support.published import unhex, wycheproof
from tests.vectors.accounts import REFUSED_KEYS, key

P = 2**255 - 19


def test_wycheproof() -> None:
    """All signatures of the published file, valid and invalid; its keys are valid."""
    tried = {"valid": 0, "invalid": 0, "small order": 0}
    for group, case in wycheproof("Signature/wycheproof/ed25519_test.json"):
        public = bytes.fromhex(group["publicKey"]["pk"])
        message, signature = unhex(case, "msg", "sig")
        if case["result"] == "acceptable":  # the file leaves these to the verifier
            small = "SmallOrderPublicKey" in case["flags"]
            assert verify(public, signature, message) != small, case["tcId"]
            tried["small order"] += small
            continue
        assert verify(public, signature, message) == (case["result"] == "valid"), case["tcId"]
        tried[case["result"]] += 1
    assert tried["valid"] > 50
    assert tried["invalid"] > 50
    assert tried["small order"] == 8


@pytest.mark.parametrize("text", REFUSED_KEYS)
def test_keys_that_nobody_may_use(text: str) -> None:
    with pytest.raises(DeviceKeyError):
        check_public_key(bytes.fromhex(text))


def test_every_small_order_and_non_canonical_encoding() -> None:
    """With either sign; y from p to 2^255-1."""
    for y in [
        *(int.from_bytes(k, "little") for k in device_keys._SMALL_ORDER),
        *range(P, 2**255),
    ]:
        for sign in (0, 1 << 255):
            with pytest.raises(DeviceKeyError):
                check_public_key((y | sign).to_bytes(32, "little"))


def test_what_a_small_order_key_would_allow() -> None:
    """One constant signature is valid for every message if such a key is accepted."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    neutral = b"\1" + bytes(31)
    constant = neutral + bytes(32)
    for message in (b"", b"approve", b"remove"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(constant, message)  # it does not raise
        assert not verify(neutral, constant, message)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_wrong_lengths(length: int) -> None:
    device = key("a")
    with pytest.raises(DeviceKeyError):
        check_public_key(bytes(length))
    assert not verify(bytes(length), device.sign(b"m"), b"m")
    assert not verify(device.public, bytes(length), b"m")


BINDING, SERVER = b"b" * 32, b"s" * 32


def test_a_login_holds_for_this_one_alone() -> None:
    device = key("a")
    message = signed_bytes(Operation.LOGIN, BINDING, SERVER, device.public, "alice")
    good = device.sign(message)
    assert proves(Operation.LOGIN, BINDING, SERVER, device.public, "alice", good)
    for wrong in (
        (Operation.REGISTER, BINDING, SERVER, device.public, "alice"),
        (Operation.ADD_DEVICE, BINDING, SERVER, device.public, "alice"),
        (Operation.LOGIN, SERVER, SERVER, device.public, "alice"),
        (Operation.LOGIN, BINDING, BINDING, device.public, "alice"),
        (Operation.LOGIN, BINDING, SERVER, key("b").public, "alice"),
        (Operation.LOGIN, BINDING, SERVER, device.public, "a1ice"),
    ):
        assert not proves(*wrong, good)


def test_a_passphrase_opens_what_it_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.wire.sealed_seed.COST", 1 << 10)
    kept = seal(bytes(range(32)), "grüße", b"s" * 16, b"n" * 12)
    assert unseal(kept, "grüße") == bytes(range(32))
    assert bytes(range(32)) not in kept.sealed
    for wrong in (
        (kept, "gruesse"),
        (kept._replace(salt=b"t" * 16), "grüße"),
        (kept._replace(sealed=kept.sealed[:-1] + b"\0"), "grüße"),
        (kept._replace(cost=1 << 11), "grüße"),
        (kept._replace(cost=1 << 40), "grüße"),
        (kept._replace(cost=3), "grüße"),
    ):
        with pytest.raises(WrongPassphrase):
            unseal(*wrong)


def test_one_passphrase_however_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composed and decomposed, with any space; also keys that older versions sealed as typed."""
    monkeypatch.setattr("relay.wire.sealed_seed.COST", 1 << 10)
    forms = [
        "gr\u00fc\u00dfe aus \u00c5s",
        "gru\u0308\u00dfe\u00a0aus A\u030as",
        "gr\u00fc\u00dfe\u00a0aus \u00c5s",
    ]
    seed = bytes(range(32))
    for sealed, typed in itertools.product(forms, repeat=2):
        kept = seal(seed, sealed, b"s" * 16, b"n" * 12)
        assert unseal(kept, typed) == seed
    with monkeypatch.context() as before:
        before.setattr("relay.wire.sealed_seed.prepared", str)
        old = [seal(seed, form, b"s" * 16, b"n" * 12) for form in forms]
    assert all(unseal(kept, form) == seed for kept, form in zip(old, forms, strict=True))
    assert unseal(old[0], "gru\u0308\u00dfe aus \u212bs") == seed
    assert unseal(old[1], forms[2]) == unseal(old[2], forms[1]) == seed
    with pytest.raises(WrongPassphrase):
        unseal(kept, "Gr\u00fc\u00dfe aus \u00c5s")


def test_a_private_key_shows_nothing() -> None:
    device = PrivateDeviceKey(b"\7" * 32)
    assert "0707" not in repr(device)
