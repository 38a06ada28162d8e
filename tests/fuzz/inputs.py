"""Strategies for hostile inputs: legal ones, mutated, and random ones."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

CORPUS: Final = Path(__file__).parent / "corpus"
"""A folder for each target, a file for each input that once broke it, or nearly."""
EDGES: Final = (
    0, 1, 2, 7, 8, 15, 16, 17, 23, 24, 25, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1000, 1023,
    1024, 4096, 32_767, 32_768, 65_535, 65_536, 69_632, 69_648, 2**24 - 1, 2**31, 2**32 - 1, 2**32,
    2**53, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip


def corpus_of(target: str) -> list[bytes]:
    """Return the kept inputs of a target."""
    folder = CORPUS / target
    return [file.read_bytes() for file in sorted(folder.glob("*"))] if folder.is_dir() else []


# --- bytes ----------------------------------------------------------------------------------------
class Edit(NamedTuple):
    """One change of some bytes. ``at`` and ``length`` are parts of 2^16 of them."""

    kind: int
    at: int
    length: int
    data: bytes


EDIT_KINDS: Final = 8
edits: Final[SearchStrategy[list[Edit]]] = st.lists(
    st.builds(
        Edit,
        st.integers(0, EDIT_KINDS - 1),
        st.integers(0, 65_535),
        st.integers(0, 4096),
        st.binary(min_size=1, max_size=12),
    ),
    max_size=5,
)


def edited(data: bytes, changes: Iterable[Edit]) -> bytes:
    """Apply changes. The same changes fit any bytes: a reproduction needs no random bytes."""
    changed = bytearray(data)
    for kind, at, length, patch in changes:
        start = at * (len(changed) + 1) >> 16
        size = max(1, length * len(changed) >> 16)
        edge = EDGES[patch[0] % len(EDGES)]
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << patch[0] % 8
        elif kind == 1:
            changed[start : start + len(patch)] = patch
        elif kind == 2:
            changed[start:start] = patch
        elif kind == 3:
            del changed[start : start + size]
        elif kind == 4:
            changed[start:start] = changed[start : start + size]
        elif kind == 5:
            del changed[start:]
        elif kind == 6:  # a length or a number, as far as it fits
            width = (1, 2, 3, 4, 8)[patch[-1] % 5]
            number = (edge & (1 << 8 * width) - 1).to_bytes(width, "big")
            changed[start : start + width] = number
        elif kind == 7:
            changed += patch
    return bytes(changed)


cuts: Final = st.lists(st.sampled_from((1, 2, 3, 4, 5, 17, 64, 1000, 5000, 70_000)), max_size=20)


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut a stream as a network would; the rest comes in one piece."""
    start = 0
    for size in sizes:
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size
    if start < len(data):
        yield data[start:]


# --- msgpack values -------------------------------------------------------------------------------
leaves: Final[SearchStrategy[Any]] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(EDGES),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.sampled_from(
        ("", "lobby", "@ann", "ann", "x" * 32, "x" * 33, "x" * 34, "é" * 128, "\x1b[2J")
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from((b"", bytes(8), bytes(15), bytes(16), bytes(17), bytes(32), bytes(33))),
    st.binary(max_size=40),
    st.just(b"b" * 32_768),
)
values: Final[SearchStrategy[Any]] = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 3), inner, max_size=2)
    ),
    max_leaves=12,
)


class Swap(NamedTuple):
    """One change of a msgpack value: what, where on the way down, and by what."""

    kind: int
    path: list[int]
    value: Any


swaps: Final[SearchStrategy[list[Swap]]] = st.lists(
    st.builds(
        Swap, st.integers(0, 4), st.lists(st.integers(0, 30), min_size=1, max_size=4), values
    ),
    max_size=3,
)


def swapped(envelope: list[Any], changes: Iterable[Swap]) -> list[Any]:
    """Apply changes to a message: replace, insert, remove, repeat, or wrap an element."""
    changed: list[Any] = copy.deepcopy(envelope)
    for kind, path, value in changes:
        inside = changed
        for step in path[:-1]:
            arrays = [item for item in inside if type(item) is list]
            if not arrays:
                break
            inside = arrays[step % len(arrays)]
        at = path[-1] % (len(inside) + 1)
        if kind == 0 and at < len(inside):
            inside[at] = value
        elif kind == 1:
            inside.insert(at, value)
        elif kind == 2:
            del inside[at : at + 1]
        elif kind == 3 and at < len(inside):
            inside[at:at] = [inside[at]] * (1 + path[-1] % 30)
        elif kind == 4 and at < len(inside):
            inside[at] = [inside[at]]
    return changed


def packed(value: object) -> bytes:
    """Pack anything that msgpack can; other values become nil."""
    try:
        return bytes(msgpack.packb(value))
    except (ValueError, OverflowError, TypeError):
        return b"\xc0"


def contents(samples: Sequence[bytes], target: str) -> SearchStrategy[bytes]:
    """Return what arrives as the content of a record or a message.

    Args:
        samples: legal messages, packed.
        target: whose corpus is used as well.
    """
    legal = [msgpack.unpackb(sample) for sample in samples]
    known = [*samples, *corpus_of(target)]
    message = st.one_of(
        st.sampled_from(samples),
        st.builds(lambda one, by: packed(swapped(one, by)), st.sampled_from(legal), swaps),
        st.builds(edited, st.sampled_from(known), edits),
        st.builds(lambda op, rest: packed([op, *rest]), leaves, st.lists(values, max_size=14)),
        st.binary(max_size=60),
    )
    joined = st.lists(message, max_size=4).map(b"".join)
    repeated = st.builds(
        # no more than fits: 32 KiB times 65,536 would take seconds, and 2 GiB
        lambda one, times: (one * min(times, 65_536 // max(1, len(one)) + 1))[:65_536],
        message,
        st.sampled_from(EDGES[:30]),
    )
    nested = st.builds(
        lambda head, depth, end: (head * depth)[:65_000] + end,
        st.sampled_from(
            (b"\x91", b"\x92\xc0", b"\xdc\x00\x18", b"\xdc\x03\xe8", b"\xdd\0\0\0\x01")
        ),
        st.sampled_from(EDGES[:30]),
        st.binary(max_size=8),
    )
    return st.one_of(message, joined, repeated, nested)
