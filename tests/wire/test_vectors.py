"""Our own vectors: generating them gives the same bytes, and an independent decoder agrees."""

from __future__ import annotations

import ast
import copy
from pathlib import Path

import pytest

from relay.wire.envelopes import Op
from relay.wire.packing import unpack_client, unpack_server
from tests.vectors import generate, independent

FILES = [
    "handshake", "records", "key_update", "next_key", "producers", "accounts", "rooms",
    "envelopes",
]  # fmt: skip


def test_made_again_they_are_the_same_bytes() -> None:
    stored = generate.stored_randomness()
    before = copy.deepcopy(stored.known)
    made = generate.generate(stored)
    assert list(made) == FILES
    for name, vector in made.items():
        text = (generate.HERE / f"{name}.json").read_text(encoding="utf-8")
        assert text == generate.text_of(vector), "run: python -m tests.vectors.generate"
    assert stored.used == before, "a value was drawn again, or is not used"


def test_the_independent_decoder_imports_nothing_of_relay() -> None:
    tree = ast.parse(Path(independent.__file__).read_text())
    imported = {
        name.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    roots = {name.partition(".")[0] for name in imported}
    assert roots.isdisjoint({"relay", "tests", "cryptography", "msgpack"})


def test_the_independent_decoder_agrees() -> None:
    assert independent.check_all() == 5


def test_the_vectors_cover_every_type_of_record_and_every_operation() -> None:
    kinds = {
        record["type"]
        for name in ("records", "key_update")
        for direction in independent.load(name)["directions"]
        for generation in direction["generations"]
        for record in generation["records"]
    }
    assert kinds == {1, 2, 3, 4, 5, 6}
    envelopes = independent.load("envelopes")["envelopes"]
    assert {case["op"] for case in envelopes} == set(Op)
    for case in envelopes:
        unpack = unpack_client if case["op"] < 32 else unpack_server
        assert len(unpack(bytes.fromhex(case["packed"]))) == 1


@pytest.mark.parametrize("field", ["f1", "f2", "f3", "f4"])
@pytest.mark.parametrize("at", [0, 4, 30, -1])
@pytest.mark.parametrize("number", [0, 2, 3])
def test_the_decoder_notices_a_changed_frame(field: str, at: int, number: int) -> None:
    """It can disagree: otherwise its agreement would prove nothing."""
    vector = independent.load("handshake")["handshakes"][number]
    frame = bytearray.fromhex(vector["frames"][field])
    frame[at] ^= 1
    vector["frames"][field] = frame.hex()
    with pytest.raises(independent.Disagreement):
        independent.check_handshake(vector, independent.load("server_key"))


@pytest.mark.parametrize("part", ["inputs", "schedule"])
@pytest.mark.parametrize("number", [0, 2, 3])
def test_the_decoder_notices_every_changed_value(part: str, number: int) -> None:
    key = independent.load("server_key")
    right = independent.load("handshake")["handshakes"][number]
    for name in right[part]:
        vector = copy.deepcopy(right)
        vector[part][name] = "00" * (len(vector[part][name]) // 2)
        with pytest.raises(independent.Disagreement):
            independent.check_handshake(vector, key)
