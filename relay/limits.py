"""The bounds of the protocol, and of what one connection can make the server hold.

Each has its unit and its reason. Settings may lower some of the server's bounds; the protocol's own
are constants, part of docs/protocol.md. Bounds of a whole worker or process stand in the module
that keeps them. Relations are asserted at import, so a careless change fails at once.
"""

from __future__ import annotations

from typing import Final

# --- frames and records (docs/protocol.md, "Records") ---------------------------------------------
FRAME_HEADER_BYTES: Final = 4
"""Type u8 and length u24."""
HANDSHAKE_BODY_BYTES_MAX: Final = 4096
"""Frozen for all versions: a peer that speaks something else is dropped after four bytes."""
RECORD_CONTENT_BYTES_MAX: Final = 65_536
RECORD_INNER_BYTES_MAX: Final = 69_632
"""Content, type byte and padding: content rounded up to a multiple of 4096 (strict padding)."""
TAG_BYTES: Final = 16
RECORD_BODY_BYTES_MIN: Final = 1 + TAG_BYTES
RECORD_BODY_BYTES_MAX: Final = RECORD_INNER_BYTES_MAX + TAG_BYTES
LOGIN_RECORD_BODY_BYTES_MAX: Final = 4096 + TAG_BYTES
"""Of a client's record before its HELLO was taken: who is not known yet makes the server hold no
more. A HELLO has at most 600 bytes; with strict padding its record has this size."""
SEALED_BYTES_MAX: Final = FRAME_HEADER_BYTES + RECORD_CONTENT_BYTES_MAX + 1024 + TAG_BYTES
"""The largest record that this side makes: it pads less than a peer may."""

# --- envelopes --------------------------------------------------------------------------------
ENVELOPES_PER_RECORD_MAX: Final = 1024
"""A client's record of more is refused: it bounds the work one record can cause (NATS bounds the
same by max_payload and its read buffer). A server's record is bounded by its bytes alone."""
ENVELOPE_FIELDS_MAX: Final = 24
"""Known fields and the trailing ones of a later version."""
ENVELOPE_DEPTH_MAX: Final = 8
ENVELOPE_VALUES_MAX: Final = 1024
"""Elements of all arrays of a client's envelope: it has nine at most, the others are for later
versions. An envelope is unpacked in one go: 64 KiB of empty arrays would take some ms."""
BODY_BYTES_MAX: Final = 32_768
"""Half a record, so that an entry with all its fields always fits in one (IRC 512, NATS 1 MiB)."""
CONTENT_TYPE_BYTES_MAX: Final = 64
ERROR_TEXT_BYTES_MAX: Final = 512
DISPLAY_NAME_CHARS_MAX: Final = 64
AGENT_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 32
EPOCH_BYTES: Final = 8
PRODUCER_BYTES: Final = 16
PRODUCER_BYTES_OF_0_1: Final = 8
INSTANCE_SECRET_BYTES: Final = 16
"""Proves in HELLO that a connection comes from the same instance of a client as an earlier one."""
SESSION_SECRET_BYTES: Final = 32
"""What a client sends under the server's RSA key: an AES-256 key's worth."""
KEY_ID_BYTES_MAX: Final = 32
"""Of a reader's check; all that exist have ``KEY_ID_BYTES``, or none."""
KEY_ID_BYTES: Final = 16
ROOT_BYTES: Final = 32
DEVICE_NAME_BYTES_MAX: Final = 64
"""Of what a person calls a device."""
TICKET_KEYS_MAX: Final = 4
"""Keys that open tickets at a time: the current one, the one before, and two more for times in
which keys are made anew too soon."""
ROOM_TOPIC_BYTES_MAX: Final = 400
"""What IRC's servers allow, about."""
ROOM_TITLE_BYTES_MAX: Final = 4 * DISPLAY_NAME_CHARS_MAX
ROOM_REASON_BYTES_MAX: Final = 200
"""Of why somebody was kicked, banned or muted."""
TOKEN_BYTES: Final = 32
"""Of an invitation: unguessable, so that a plain hash of it may be stored."""
U32_MAX: Final = 2**32 - 1
U63_MAX: Final = 2**63 - 1
"""Counters and sequence numbers: SQLite's integers are signed 64 bit."""

# --- pages and history ------------------------------------------------------------------------
PAGE_BYTES_MAX: Final = 60_000
"""Rows in one history page or catch-up record: fits a record with room for the envelope's head."""
PAGE_ENTRIES_MAX: Final = 1000
HISTORY_ON_JOIN_MAX: Final = 10_000
SEARCH_BYTES_MAX: Final = 256
"""Of what is searched for."""
SEARCH_COUNT_MAX: Final = 100
"""Messages of one answer."""

# --- what one connection may make the server hold ---------------------------------------------
OUTBOX_BYTES_MAX: Final = 129_024
"""Unsealed batch references of one connection; over it all its logs fall behind.

Invariant "Falling behind".
"""
ANSWERS_BYTES_MAX: Final = 65_536
"""Answers of its own that a connection has not read; beyond it, what it asks next waits."""
KERNEL_NOTSENT_LOWAT_BYTES: Final = 65_536
CONNECTION_BYTES_MAX: Final = 262_144
"""The outbox, one sealed record in the transport, and the kernel's unsent bytes."""
LOGS_PER_CONNECTION_MAX: Final = 1024
SENDS_UNACKNOWLEDGED_MAX: Final = 1024
"""A client's window per connection: sends the server takes before it stops reading the socket."""
SENDS_UNACKNOWLEDGED_BYTES_MAX: Final = 262_144
REPEATS_BACK_MAX: Final = 65_536
"""A counter that was used so many messages ago is not looked for: 64 windows of unacknowledged
sends. It bounds what an old id costs, by 17 levels of the skip list."""
EDITS_MAX: Final = 200
"""Of one message: a redaction reads and writes all of them in its commit, of at most 6 MiB then."""
EDITS_SHOWN_MAX: Final = 64
"""The last ones of a message, of which the newest that is not erased is what it reads now."""
RETRY_MS: Final = 500
"""When a client that was refused with BUSY or UNAVAILABLE asks again."""
RETRY_MS_MAX: Final = 60_000
"""No server says more, and a client takes more for this: none can have it wait for weeks."""
ROSTER_NAMES_MAX: Final = 200
"""Above so many members a room's join and leave events carry only the count."""

assert RECORD_INNER_BYTES_MAX >= RECORD_CONTENT_BYTES_MAX + 1
assert RECORD_INNER_BYTES_MAX % 4096 == 0
assert BODY_BYTES_MAX + 1024 <= PAGE_BYTES_MAX <= RECORD_CONTENT_BYTES_MAX - 1024
assert OUTBOX_BYTES_MAX + SEALED_BYTES_MAX + KERNEL_NOTSENT_LOWAT_BYTES <= CONNECTION_BYTES_MAX
assert REPEATS_BACK_MAX >= SENDS_UNACKNOWLEDGED_MAX
