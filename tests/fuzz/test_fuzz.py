"""The fuzzer itself: every target runs; a bug is found, reduced, and reproduced."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
from pathlib import Path
from typing import get_args

import msgpack
import pytest
from hypothesis import strategies as st

from relay.chat.accounts import requests as account_requests
from relay.chat.rooms import events as room_events
from relay.chat.rooms import requests as room_requests
from relay.wire import envelopes as wire
from relay.wire.packing import CLIENT_SHAPES, pack, unpack_client, unpack_server
from tests.fuzz import operations, requests, server
from tests.fuzz.__main__ import TARGETS, search
from tests.fuzz.attacks import ATTACKS
from tests.fuzz.honest import faults_in
from tests.fuzz.inputs import CORPUS, Edit, corpus_of, edited
from tests.fuzz.outcome import TITLES, Plan, cells
from tests.fuzz.target import Hang, Target, no_longer_than, run_slice
from tests.fuzz.visitor import Visitor
from tests.fuzz.wire import _check_envelopes
from tests.support.cluster import ROOT, Relay, until
from tests.vectors.rooms import REQUESTS as ROOM_REQUESTS

SEED = 20_261_125


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_runs(name: str) -> None:
    target = TARGETS[name]
    finding = run_slice(dataclasses.replace(target, examples=8, quick=min(target.quick, 50)), SEED)
    assert finding is None, finding


def test_the_corpus_belongs_to_targets() -> None:
    folders = {folder.name for folder in CORPUS.iterdir() if folder.is_dir()}
    assert folders <= set(TARGETS)
    assert folders


@pytest.mark.parametrize("content", corpus_of("client_envelopes") + corpus_of("server_envelopes"))
def test_kept_envelopes(content: bytes) -> None:
    for unpack in (unpack_client, unpack_server):
        _check_envelopes(unpack)(content)


def broken(data: bytes) -> None:
    """A parser that fails on one byte in the middle of others."""
    if 0xFE in data[2:-1]:
        raise KeyError("not a documented exception")


def test_a_fault_is_found_made_small_and_found_again() -> None:
    target = Target("broken", st.binary(max_size=50), broken, examples=400)
    tried, finding = search([target], SEED, until=float("inf"))
    assert finding is not None
    assert tried["broken"]
    assert r"value=b'\x00\x00\xfe\x00'" in finding.report
    assert "not a documented exception" in finding.report
    again = run_slice(target, finding.seed)
    assert again is not None
    assert again.report.splitlines()[-3:] == finding.report.splitlines()[-3:]


def test_a_fault_is_found_by_mutation_and_made_small() -> None:
    target = Target(
        "broken", st.nothing(), broken, of_bytes=bytes, seeds=[bytes(1000), b"\xfe"], quick=10_000
    )
    finding = run_slice(target, SEED)
    assert finding is not None
    assert r"bytes (4): b'\x00\x00\xfe\x00'" in finding.report
    assert run_slice(target, SEED) == finding


def test_a_hang_is_found() -> None:
    def endless() -> None:
        with no_longer_than(0.05):
            while True:
                pass

    with pytest.raises(Hang):
        endless()


def test_edits_are_the_same_each_time_and_fit_any_bytes() -> None:
    changes = [Edit(kind, 65_535, 4096, b"\x07\x01") for kind in range(8)]
    for data in (b"", b"x", bytes(1000)):
        assert edited(data, changes) == edited(data, changes)


# --- a whole server -------------------------------------------------------------------------------
def test_the_honest_pair_is_judged() -> None:
    right = [0, 1, 2, 3, 5, 4]
    assert faults_in(6, [right, right]) == []
    assert "different orders" in faults_in(6, [right, [1, *right[2:], 0]])[0]
    assert "misses 1" in " ".join(faults_in(6, [right[1:], right[1:]]))
    assert "twice" in " ".join(faults_in(6, [[0, *right], [0, *right]]))
    assert "out of order" in " ".join(faults_in(6, [[2, 1, 0, 3, 4, 5]] * 2))


@pytest.mark.parametrize("name", ["damaged", "rubbish", "half-records"])
def test_a_server_withstands_a_few_attackers(name: str) -> None:
    plan = Plan(name, (name,), SEED, 0.5, connections=4, processes=1)
    row = server.run(plan)
    assert row.findings == []
    assert row.attacked
    assert len(cells(row)) == len(TITLES)
    assert name in ATTACKS


async def test_a_worker_that_dies_is_a_finding(tmp_path: Path) -> None:
    plan = Plan("silent", ("silent",), SEED, 60.0, connections=4, processes=1)
    with Relay(tmp_path / "data", workers=server.WORKERS) as relay:
        attack = asyncio.create_task(server.attacked(plan, relay))
        await until(lambda: sum(map(len, relay.peers_by_worker().values())) >= 6, "the connections")
        for pid in relay.worker_pids():
            os.kill(pid, signal.SIGKILL)
        row = await attack
    words = " ".join(row.findings)
    assert "was cut off" in words
    assert "workers are gone" in words or "child_exited" in words


def test_the_longest_turn_is_read_from_the_log(tmp_path: Path) -> None:
    lines = ['{"event": "stopped"}', "no JSON", '{"event": "x", "turn_ms_max": 12.5}']
    assert server.longest_turn_ms(lines) == 12.5
    assert server.longest_turn_ms([]) is None


def test_every_operation_and_request_is_tried() -> None:
    """Those added later, too: as samples of the parsers, and by connections of a whole server."""
    login = {wire.Hello, wire.Register, wire.Enrol}
    assert operations.MAKERS.keys() == {one.type for one in CLIENT_SHAPES.values()} - login
    assert set(map(type, requests.ACCOUNT_REQUESTS)) == {
        one.type for one in account_requests.SHAPES.values()
    }
    assert {type(one) for one, _ in ROOM_REQUESTS} == set(get_args(room_requests.Request)) - {
        room_requests.Depart  # of a worker, for an account that is removed
    }
    assert len(set(map(_number, requests.EVENT_SEEDS))) == len(room_events.SHAPES)


def _number(packed: bytes) -> object:
    return msgpack.unpackb(packed)[0]


async def test_random_operations_are_legal_envelopes() -> None:
    visitor = Visitor(0, random.Random(SEED))
    made = [operations.any_operation(visitor) for _ in range(2000)]
    assert {type(one) for one in made} == operations.MAKERS.keys()
    for one in made:
        assert unpack_client(pack(one)) == [one]


def test_every_attack_is_on_the_page() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for name in ATTACKS:
        assert f"`{name}`" in page
