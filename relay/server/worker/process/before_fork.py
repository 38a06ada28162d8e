"""The part of a worker's program that is loaded once, before its processes are forked.

Workers share it: it is imported once, and kept in memory once. It has no loop, thread, OpenSSL or
SQLite, of which a fork would copy the state; modules that use these are imported by each worker.
What the modules named here import is not named. A test names what is missing
(tests/server/test_before_fork.py).
"""

# ruff: noqa: F401
from __future__ import annotations

import relay.bus.packing
import relay.chat.accounts.decide_request
import relay.server.worker.connection.announcement
import relay.server.worker.connection.budgets.source_usage
import relay.server.worker.connection.budgets.users
import relay.server.worker.connection.deadlines
import relay.server.worker.connection.endings
import relay.server.worker.connection.owner
import relay.server.worker.connection.received
import relay.server.worker.connection.requests.join
import relay.server.worker.connection.requests.next_key
import relay.server.worker.connection.requests.rooms
import relay.server.worker.connection.requests.special_sends
import relay.server.worker.connection.sends
import relay.server.worker.connection.services
import relay.server.worker.damaged_logs
import relay.server.worker.delivery.rush
import relay.server.worker.delivery.stalled
import relay.server.worker.home.accounts.entries
import relay.server.worker.home.accounts.operators
import relay.server.worker.home.accounts.requesters
import relay.server.worker.home.accounts.revocations
import relay.server.worker.home.committing.notes
import relay.server.worker.home.committing.revoked_devices
import relay.server.worker.home.direct.copies
import relay.server.worker.home.direct.parts
import relay.server.worker.home.direct.permissions
import relay.server.worker.home.followers.attached_workers
import relay.server.worker.home.partitions
import relay.server.worker.home.parts
import relay.server.worker.home.receive
import relay.server.worker.home.retention.inboxes
import relay.server.worker.home.rooms.requests
import relay.server.worker.home.rooms.rules
import relay.server.worker.home.rooms.steady_clock
import relay.server.worker.member.attachment
import relay.server.worker.member.checked_entries
import relay.server.worker.member.damage
import relay.server.worker.member.feed
import relay.server.worker.member.pages
import relay.server.worker.member.parts
import relay.server.worker.member.receive
import relay.server.worker.member.subscriptions
import relay.server.worker.member.window
import relay.server.worker.process.accepting.balance
import relay.server.worker.process.accepting.proxy_header
import relay.server.worker.process.accepting.reserve_descriptor
import relay.server.worker.process.loop.collector
import relay.server.worker.process.loop.pace
import relay.server.worker.process.loop.waiting_processes
import relay.server.worker.process.messaging.bus_dispatcher
import relay.server.worker.process.messaging.copy_sender
import relay.server.worker.process.messaging.own_home
import relay.server.worker.process.parts
import relay.server.worker.process.reporting.lag
import relay.server.worker.process.reporting.title
import relay.server.worker.process.storage.disk_reserve
import relay.server.worker.refusals
import relay.store.decide
import relay.store.file.wal_index
import relay.store.notes
import relay.store.reading.resume
import relay.store.retention.limits
import relay.store.retention.message_counter
import relay.store.search.words
import relay.store.touched
import relay.wire.fork
import relay.wire.key_schedule
import relay.wire.other_protocols
import relay.wire.phases
import relay.wire.timing
