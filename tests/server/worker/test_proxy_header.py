"""The PROXY protocol, version 2: the examples of its page, and anything else."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.server.worker.process.proxy_header import (
    FIXED_BYTES,
    REST_BYTES_MAX,
    BadHeader,
    rest_of,
    source,
)

V4 = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000207 7f000001 9c40 1d33")


def test_an_address() -> None:
    fixed, rest = V4[:FIXED_BYTES], V4[FIXED_BYTES:]
    assert rest_of(fixed) == len(rest) == 12
    assert source(fixed, rest) == "192.0.2.7"
    local = fixed[:12] + b"\x20\x00\x00\x00"
    assert rest_of(local) == 0
    assert source(local, b"") is None


@pytest.mark.parametrize("at", range(FIXED_BYTES - 2))
def test_each_changed_byte_is_noticed(at: int) -> None:
    changed = bytearray(V4)
    changed[at] ^= 0xFF
    with pytest.raises(BadHeader):
        parsed(bytes(changed))


def parsed(data: bytes) -> str | None:
    rest_of(data[:FIXED_BYTES])
    return source(data[:FIXED_BYTES], data[FIXED_BYTES:])


@given(st.binary(min_size=FIXED_BYTES, max_size=FIXED_BYTES), st.binary(max_size=64), st.booleans())
def test_whatever_comes(fixed: bytes, rest: bytes, signed: bool) -> None:
    if signed:
        fixed = V4[:12] + fixed[12:]
    try:
        assert 0 <= rest_of(fixed) <= REST_BYTES_MAX
        found = source(fixed, rest)
    except BadHeader:
        return
    if found is not None:
        socket.inet_pton(socket.AF_INET6 if ":" in found else socket.AF_INET, found)
