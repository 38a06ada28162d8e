"""A secret that outlives the process that made it: complete, or absent."""

from __future__ import annotations

import os
import resource
import stat

import pytest

from relay.server.agent.ticket_keys import packed_keys, unpacked_keys
from relay.server.system.inherited_secret import BYTES_MAX, InheritedSecret
from relay.wire.tickets import TicketKey
from tests.support.tickets import Desk


def test_the_next_one_finds_it_as_it_was_written_last() -> None:
    first = InheritedSecret("relay-test")
    assert first.read() == b""
    for secret in (b"long " * 10, b"short", b"x" * BYTES_MAX):
        first.write(secret)
        second = InheritedSecret("relay-test", os.dup(first.fd))
        assert second.read() == first.read() == secret
        second.close()
    assert stat.S_ISREG(os.fstat(first.fd).st_mode)
    assert os.fstat(first.fd).st_nlink == 0, "it has no name"
    first.close()
    assert first.read() == b""
    first.write(b"nobody's")


def test_what_is_not_whole_counts_as_nothing() -> None:
    kept = InheritedSecret("relay-test")
    kept.write(b"a secret of some length")
    size = os.fstat(kept.fd).st_size
    for at in (0, size - 1):
        byte = os.pread(kept.fd, 1, at)
        os.pwrite(kept.fd, b"?", at)
        assert kept.read() == b"", at
        os.pwrite(kept.fd, byte, at)
        assert kept.read() == b"a secret of some length"
    os.ftruncate(kept.fd, size - 1)
    assert kept.read() == b""
    kept.close()


def test_without_a_descriptor_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        kept = InheritedSecret("relay-test")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert kept.fd == -1
    kept.write(b"anything")
    assert kept.read() == b""
    kept.close()


def test_keys_of_tickets_that_are_recorded_are_gone_on_with() -> None:
    """Keys stored by another version in another form are not used."""
    desk = Desk()
    worker = desk.worker()
    sealed = worker.seal(b"p" * 32)
    assert sealed is not None
    kept = packed_keys(desk.maker.keys)
    assert unpacked_keys(kept, desk.register.knows) == desk.maker.keys
    assert unpacked_keys(b"\2" + kept[1:], desk.register.knows) == []
    assert unpacked_keys(kept[:-1], desk.register.knows) == []
    assert unpacked_keys(b"", desk.register.knows) == []
    for _ in range(4):
        desk.register.begin()
    assert unpacked_keys(kept, desk.register.knows) == [], (
        "its part of the register belongs to another key"
    )


def test_the_next_agent_opens_what_was_sealed_before_and_seals_with_a_key_of_its_own() -> None:
    desk = Desk()
    kept: list[list[TicketKey]] = []
    sealed = desk.worker().seal(b"p" * 32)
    assert sealed is not None
    first = desk.maker.keys
    following = desk.next_agent(keep=kept.append, kept=first)
    assert following.keys == [*first, following.keys[-1]]
    assert kept == [following.keys]
    later = desk.worker()
    opened = later.open(sealed[0])
    assert opened is not None
    assert opened.psk == b"p" * 32
    assert later.spend(opened)
    again = later.seal(b"q" * 32)
    assert again is not None
    assert again[0][:8] == following.keys[-1].key_id
