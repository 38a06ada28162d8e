"""Which modules a compiled build compiles, and whether this installation is one.

The source is the same for both (docs/performance.md, "Compiled"). ``hatch_build.py`` reads the list
without importing the package. It contains the modules on the path of a message, a delivery or a
login, where interpreting costs most: cold bytecode, in processes that were asleep. Not included
are:

- what runs once or rarely: settings, start, supervisor, recovery, history, catching up, rosters;
- the client;
- ``bus.link`` and ``bus.mesh``, which only move bytes: tests lose batches and cut links there;
- what mypyc compiles incorrectly or not at all: ``wire.codes`` (an enum with ``__new__``),
  ``wire.hello`` and ``bus.claim`` (see there), ``chat.fields`` and ``chat.entries`` (they read
  their own annotations, of which a compiled class keeps only the plain types).
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

MODULES: Final = (
    # Bytes to envelopes and back: on every path of a message, and of a login.
    "relay.chunking",
    "relay.codec",
    "relay.field_checks",
    "relay.framing",
    "relay.chat.names",
    "relay.wire.cipher",
    "relay.wire.connection",
    "relay.wire.endpoint",
    "relay.wire.envelopes",
    "relay.wire.events",
    "relay.wire.packing",
    "relay.wire.frames",
    "relay.wire.phases",
    # A connection, from its socket to its requests.
    "relay.server.worker.connection.channel",
    "relay.server.worker.connection.requests.commands",
    "relay.server.worker.connection.owner",
    "relay.server.worker.connection.pauses",
    "relay.server.worker.connection.reading",
    "relay.server.worker.connection.received",
    "relay.server.worker.connection.schedule",
    "relay.server.worker.connection.sends",
    "relay.server.worker.connection.session",
    "relay.server.worker.connection.stages",
    # A send on its way to its home, and through the turn.
    "relay.bus.messages",
    "relay.bus.packing",
    "relay.chat.partition",
    "relay.server.worker.member.forward",
    "relay.server.worker.member.receive",
    "relay.server.worker.member.routes",
    "relay.server.worker.member.sender",
    "relay.server.worker.member.window",
    "relay.server.worker.process.messaging.bus_dispatcher",
    "relay.server.worker.process.messaging.copy_sender",
    "relay.server.worker.process.messaging.own_home",
    "relay.server.worker.process.loop.pace",
    "relay.server.worker.process.loop.turn",
    "relay.server.worker.fair_queue",
    "relay.server.worker.grouped",
    "relay.server.worker.wakeup",
    # A commit.
    "relay.chat.repeats",
    "relay.server.scoreboard",
    "relay.server.worker.home.committing.commits",
    "relay.server.worker.home.followers.attached_workers",
    "relay.server.worker.home.committing.writer",
    "relay.server.worker.home.committing.notes",
    "relay.server.worker.home.partitions",
    "relay.server.worker.home.followers.publishing",
    "relay.server.worker.home.committing.revoked_devices",
    "relay.server.worker.home.committing.submission_queues",
    "relay.server.worker.home.submissions",
    "relay.store.apply",
    "relay.store.committed",
    "relay.store.decide",
    "relay.store.log",
    "relay.store.notes",
    "relay.store.opened",
    "relay.store.partition_file",
    "relay.store.plain",
    "relay.store.read_budget",
    "relay.store.refusals",
    "relay.store.sqlite",
    "relay.store.state",
    "relay.store.touched",
    "relay.store.unflushed",
    "relay.store.view",
    # A delivery.
    "relay.server.worker.delivery.batch",
    "relay.server.worker.delivery.outbox",
    "relay.server.worker.delivery.rush",
    "relay.server.worker.delivery.stream",
    "relay.server.worker.member.fanout",
    "relay.server.worker.member.feed",
    "relay.server.worker.member.subscription",
    "relay.server.worker.member.subscriptions",
    # A handshake and a login, in addition.
    "relay.chat.ids",
    "relay.server.agent.protocol",
    "relay.server.worker.connection.budgets.source_usage",
    "relay.server.worker.connection.budgets.ledger",
    "relay.server.worker.connection.budgets.admission",
    "relay.server.worker.connection.requests.login",
    "relay.server.worker.connection.budgets.spending",
    "relay.server.worker.connection.budgets.token_bucket",
    "relay.server.worker.connection.budgets.users",
    "relay.server.worker.home.accounts.names",
    "relay.server.worker.home.receive",
    "relay.server.worker.member.claims",
    "relay.server.worker.member.reply",
    "relay.server.worker.refusals",
    "relay.wire.handshake",
    "relay.wire.key_schedule",
    "relay.wire.messages",
    "relay.wire.resumption",
    "relay.wire.transcript",
)
"""The modules that a compiled build compiles, in any order: they become one library."""


def extensions() -> list[str]:
    """Return those of ``MODULES`` that would be imported as extensions."""
    return [name for name in MODULES if _is_extension(name)]


def build() -> str:
    """Return the kind of this installation: "compiled" or "interpreted"."""
    return "compiled" if _is_extension(MODULES[0]) else "interpreted"


def _is_extension(name: str) -> bool:
    found = importlib.util.find_spec(name)
    origin = found.origin if found is not None else None
    return origin is not None and origin.endswith(tuple(EXTENSION_SUFFIXES))
